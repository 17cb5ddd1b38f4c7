"""Clean and robust accuracy of adversarial training on a shared set, and its time.

People left out, TSMNet adapted on their unlabelled trials (EEGNet of braindecode has no
domains); their clean trials and those attacked by PGD-50 with half, once and twice the
radius of the training, which is in standard deviations of each channel, in evaluation
statistics. Training seconds are of one core.
One JSON line for each person, decoder and method; lines in the file are not run again::

    OMP_NUM_THREADS=1 python tests/benchmarks/accuracy_adversarial.py --out out.jsonl \\
        --set ssvep_exo --people 01 02 --epochs 50 --decoder tsmnet eegnet
    python tests/benchmarks/accuracy_adversarial.py --out out.jsonl --report
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _original_tsmnet import SETS, read_set
from sklearn.metrics import balanced_accuracy_score

from eegtensor.training import Batch, Setup, make_plugs, refit_statistics, train
from eegtensor.transfer import TSMNetClassifier
from eegtensor.trust.attacks import PGD

torch.set_num_threads(1)
# In the radius of the training.
BUDGETS = (0.5, 1.0, 2.0)
# What each trains with; {eps} is filled in.
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pgd-10": {"perturbation": "pgd(eps={eps})"},
    "yopo-5-3": {"perturbation": "yopo(eps={eps})"},
    "yopo-3-2": {"perturbation": "yopo(eps={eps}, m=3, n=2, step_size={third})"},
    "sub-at": {"perturbation": "sub-at(eps={eps})"},
    "fast": {"perturbation": "fast(eps={eps})"},
    "amata": {"perturbation": "amata(eps={eps})"},
    "free-8": {"recipe": "free(eps={eps})"},
    "d2r": {"objective": "d2r(eps={eps}, guide='none')"},
}


class TSMNetDecoder:
    """The classifier, adapted on the trials it is asked about."""

    def __init__(self, options: dict[str, Any], epochs: int, seed: int) -> None:
        self.model = TSMNetClassifier(
            front="conv",
            epochs=epochs,
            validation=None,
            random_state=seed,
            **options,
        )

    def fit(self, X: Any, y: Any, domains: dict[str, Any]) -> None:
        self.model.fit(X, y, **domains)

    def adapt(self, X: Any, domains: dict[str, Any]) -> None:
        self.model.adapt(X, **domains)

    def attacked(self, attack: PGD, X: Any, y: Any, domains: dict[str, Any]) -> Any:
        return attack.perturb(self.model, X, y, **domains).predicted

    def predict(self, X: Any, domains: dict[str, Any]) -> Any:
        return self.model.predict(X, **domains)


class EEGNetDecoder:
    """EEGNet of braindecode through our loop, on trials over their channels' deviation.

    It is given no domains: each recording is divided by its own deviations.
    """

    def __init__(self, options: dict[str, Any], epochs: int, seed: int) -> None:
        self.options, self.epochs, self.seed = options, epochs, seed

    def fit(self, X: Any, y: Any, domains: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from braindecode.models import EEGNet

        self.classes, codes = np.unique(y, return_inverse=True)
        torch.manual_seed(self.seed)
        net = EEGNet(X.shape[1], len(self.classes), n_times=X.shape[2])
        _, recording = np.unique(
            np.stack([domains["subjects"], domains["sessions"]]).astype(str),
            axis=1,
            return_inverse=True,
        )
        recording = recording.ravel()
        x = torch.from_numpy(self._scaled(X, domains))
        data = Batch(x, torch.from_numpy(codes), torch.from_numpy(recording))
        setup = Setup(
            net,
            data,
            n_classes=len(self.classes),
            epochs=self.epochs,
            seed=self.seed,
        )
        plugs = make_plugs(setup, sampler="domain-balanced", **self.options)
        train(net, data, epochs=self.epochs, random_state=self.seed, **plugs)
        refit_statistics(net, data)
        self.net = net.eval()

    def _scaled(self, X: Any, domains: dict[str, Any]) -> Any:
        out = np.empty(X.shape, dtype=np.float32)
        names = np.char.add(domains["subjects"], np.char.add("/", domains["sessions"]))
        for name in np.unique(names):
            own = names == name
            out[own] = X[own] / X[own].std(axis=(0, 2), keepdims=True)
        return out

    def adapt(self, X: Any, domains: dict[str, Any]) -> None:
        """Do nothing: recordings are scaled one by one."""

    def attacked(self, attack: PGD, X: Any, y: Any, domains: dict[str, Any]) -> Any:
        x = self._scaled(X, domains)
        codes = np.searchsorted(self.classes, y)
        return self.classes[attack.perturb(self.net, x, codes).predicted]

    def predict(self, X: Any, domains: dict[str, Any]) -> Any:
        with torch.no_grad():
            out = self.net(torch.from_numpy(self._scaled(X, domains)))
        return self.classes[out.argmax(1).numpy()]


DECODERS = {"tsmnet": TSMNetDecoder, "eegnet": EEGNetDecoder}


def score(
    trials: dict[str, Any], person: str, decoder: str, method: str, given: Any
) -> dict[str, Any]:
    """Train on all people but one, and return accuracies on that one."""
    out = trials["subject"] == person
    X, y = trials["X"], trials["y"]

    def domains(mask: Any) -> dict[str, Any]:
        return {
            "subjects": trials["subject"][mask],
            "sessions": trials["session"][mask],
        }

    eps = given.eps
    options = {
        k: v.format(eps=eps, third=round(eps / 3, 6))
        for k, v in METHODS[method].items()
    }
    model: Any = DECODERS[decoder](options, given.epochs, given.seed)
    start = time.process_time()
    model.fit(X[~out], y[~out], domains(~out))
    seconds = time.process_time() - start
    model.adapt(X[out], domains(out))
    found = {
        "seconds": round(seconds, 2),
        "source": balanced_accuracy_score(
            y[~out], model.predict(X[~out], domains(~out))
        ),
        "clean": balanced_accuracy_score(y[out], model.predict(X[out], domains(out))),
    }
    for budget in BUDGETS:
        attack = PGD(eps=budget * eps, n_steps=50, random_state=given.seed)
        said = model.attacked(attack, X[out], y[out], domains(out))
        found[f"robust {budget}"] = balanced_accuracy_score(y[out], said)
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in text]


def run(given: Any) -> None:
    keys = ("set", "decoder", "method", "person", "epochs", "eps", "seed")
    done = {tuple(row[k] for k in keys) for row in rows_of(given.out)}
    trials = read_set(given.set, given.data)
    for person in given.people or np.unique(trials["subject"]):
        for decoder in given.decoder:
            for method in given.method:
                values = (given.set, decoder, method, str(person), given.epochs)
                key = (*values, given.eps, given.seed)
                if key in done:
                    continue
                row = dict(zip(keys, key, strict=True))
                row |= score(trials, person, decoder, method, given)
                with given.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def report(rows: list[dict[str, Any]]) -> str:
    """Return means over people, and seconds in those of plain training, as Markdown."""
    columns = ["source", "clean", *(f"robust {b}" for b in BUDGETS)]
    head = ["set", "decoder", "method", "people", *columns, "time"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        key = (row["set"], row["decoder"], row["epochs"], row["eps"], row["seed"])
        groups.setdefault(key, {}).setdefault(row["method"], []).append(row)
    for (name, decoder, *_), methods in groups.items():
        plain = {r["person"]: r["seconds"] for r in methods.get("plain", [])}
        for method, found in methods.items():
            means = [f"{np.mean([r[c] for r in found]):.3f}" for c in columns]
            ratios = [
                r["seconds"] / plain[r["person"]] for r in found if r["person"] in plain
            ]
            times = f"{np.median(ratios):.1f}" if ratios else ""
            cells = [name, decoder, method, str(len(found)), *means, times]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", choices=list(SETS), default="ssvep_exo")
    parser.add_argument("--people", nargs="+", help="left out; all by default")
    parser.add_argument("--decoder", nargs="+", choices=DECODERS, default=["tsmnet"])
    parser.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        default=["plain", "pgd-10", "yopo-5-3", "yopo-3-2", "sub-at"],
    )
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--eps", type=float, default=0.02, help="of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="only print the table")
    given = parser.parse_args()
    if not given.report:
        run(given)
    print(report(rows_of(given.out)))
