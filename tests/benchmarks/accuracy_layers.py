"""Factorised layers on the shared sets: balanced accuracy beside the dense network.

    python tests/benchmarks/accuracy_layers.py [--seeds 3] [--only eegmat] [--kinds tt]

Leave people out (EEGTENSOR_DATA); tangent vectors after Recenter go into dense layers
of 256. The network is trained, its large layers are replaced by `factorize_`, and
both are trained on for as many epochs. How the small one is trained on (rate, labels
or the dense network's answers) is chosen on source people: a quarter of them is held
out. Scores are means over seeds for every person; intervals are over people.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import numpy as np
import torch
from bench_multitask import DATA, Set, archives, ssvep
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from eegtensor.benchmark import bootstrap_interval
from eegtensor.nn import factorize_

KINDS = ("tt", "tr", "tucker", "cp", "stt", "str", "sttu")
FIRST, THEN = 30, 15
GROUPS = {"ssvep_exo": 4, "eegmat": 2, "bnci_iv_2b": 5}
# The last layer stays dense: 1024 numbers, or less, that a share leaves rank 1.
LARGE = 4096
# Learning rate, and whether the dense network's answers are learned.
WAYS = ((1e-3, False), (1e-3, True), (3e-3, False))
# They stand for the others when the way is chosen: their decomposition is fast.
TRIED = ("tt", "tucker", "stt")


def network(n_features: int, n_classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for n in (n_features, 256, 256):
        layers += [nn.Linear(n, 256), nn.GELU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(256, n_classes))


def train(
    net: nn.Module,
    X: Tensor,
    y: Tensor,
    epochs: int,
    rate: float,
    seed: int,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """AdamW with a cosine schedule; classes count equally."""
    torch.manual_seed(seed)
    weights = len(y) / torch.bincount(y).clamp_min(1) / (int(y.max()) + 1)
    answers = None
    if teacher is not None:
        with torch.no_grad():
            answers = log_softmax(teacher.eval()(X), dim=1)
    search = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    steps = epochs * -(-len(X) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(search, steps)
    net.train()
    for _ in range(epochs):
        for part in torch.randperm(len(X)).split(64):
            search.zero_grad()
            out = net(X[part])
            loss = cross_entropy(out, y[part], weights)
            if answers is not None:
                apart = log_softmax(out, dim=1) - answers[part]
                loss = 0.5 * loss - 0.5 * (answers[part].exp() * apart).sum(1).mean()
            loss.backward()
            search.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def score(net: nn.Module, X: Tensor, y: Tensor) -> float:
    return float(balanced_accuracy_score(y, net(X).argmax(dim=1)))


def pick(X: Tensor, y: Tensor, names: np.ndarray, share: float) -> tuple[float, bool]:
    """How networks are best trained on, by people held out of the sources."""
    held = np.isin(names, np.unique(names)[::4])
    fit, valid = torch.from_numpy(~held), torch.from_numpy(held)
    dense = network(X.shape[1], int(y.max()) + 1, 100)
    train(dense, X[fit], y[fit], FIRST, 1e-3, 100)
    losses = np.zeros(len(WAYS))
    for kind in TRIED:
        small = copy.deepcopy(dense)
        factorize_(small, share, kind, min_size=LARGE)
        for k, (rate, taught) in enumerate(WAYS):
            net = copy.deepcopy(small)
            teacher = dense if taught else None
            train(net, X[fit], y[fit], THEN, rate, 100, teacher)
            with torch.no_grad():
                # Its loss, not its accuracy: one person in four is few trials.
                losses[k] += float(cross_entropy(net(X[valid]), y[valid]))
    return WAYS[int(np.argmin(losses))]


def compare(
    name: str, data: Set, seeds: int, kinds: tuple[str, ...], share: float
) -> None:
    people = np.unique(data.subjects)
    scale = float(np.sqrt((data.X**2).mean()))
    X = torch.from_numpy(data.X / scale).float()
    y = torch.from_numpy(np.unique(data.y, return_inverse=True)[1])
    n_classes = int(y.max()) + 1
    scores: dict[str, dict[str, list[float]]] = {}
    numbers: dict[str, tuple[int, int]] = {}
    seconds: dict[str, float] = {}
    ways: list[str] = []
    begin = time.process_time()

    def note(method: str, net: nn.Module, group: Any) -> None:
        for person in group:
            here = torch.from_numpy(data.subjects == person)
            row = scores.setdefault(method, {}).setdefault(str(person), [])
            row.append(score(net, X[here], y[here]))

    for group in np.array_split(people, GROUPS[name]):
        out = np.isin(data.subjects, group)
        source = torch.from_numpy(~out)
        rate, taught = pick(X[source], y[source], data.subjects[~out], share)
        ways.append(f"{rate:g}{' taught' if taught else ''}")
        for seed in range(seeds):
            first = network(X.shape[1], n_classes, seed)
            train(first, X[source], y[source], FIRST, 1e-3, seed)
            start = time.process_time()
            longer = copy.deepcopy(first)
            train(longer, X[source], y[source], THEN, 1e-3, seed)
            spent = time.process_time() - start
            seconds["dense"] = seconds.get("dense", 0.0) + spent
            note("dense, not trained on", first, group)
            note("dense", longer, group)
            for kind in kinds:
                start = time.process_time()
                net = copy.deepcopy(first)
                report = factorize_(net, share, kind, min_size=LARGE)
                numbers[kind] = (report.before, report.after)
                note(f"{kind}, at once", net, group)
                teacher = longer if taught else None
                train(net, X[source], y[source], THEN, rate, seed, teacher)
                note(kind, net, group)
                spent = time.process_time() - start
                seconds[kind] = seconds.get(kind, 0.0) + spent
        print(
            f"{name} {group.tolist()}: {time.process_time() - begin:.0f} s", flush=True
        )
    means = {m: np.asarray([np.mean(v) for v in s.values()]) for m, s in scores.items()}
    runs = seeds * GROUPS[name]
    print(f"\n{name}: {len(people)} people, {seeds} seeds, balanced accuracy in %")
    for method in ("dense, not trained on", "dense"):
        print(f"  {method:22} {100 * means[method].mean():.2f}")
    print("  kind     numbers  fewer  at once   after   minus dense           s")
    for kind in kinds:
        gain = 100 * (means[kind] - means["dense"])
        low, high = bootstrap_interval(gain)
        before, after = numbers[kind]
        print(
            f"  {kind:7} {after:8d} {before / after:5.1f}x"
            f" {100 * means[f'{kind}, at once'].mean():8.2f}"
            f" {100 * means[kind].mean():7.2f}"
            f"   {gain.mean():+5.2f} [{low:+.2f}, {high:+.2f}]"
            f" {seconds[kind] / runs:6.1f}"
        )
    print(f"  training the dense one on: {seconds['dense'] / runs:.1f} s")
    print(f"  rates, fold by fold: {', '.join(ways)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--only", default="", help="part of a set's name")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not DATA.is_dir():
        print(f"accuracy_layers: no recordings at {DATA}; nothing run")
        return
    bands = [(7, 10), (10, 14), (14, 20), (20, 25)]
    sets = {
        "ssvep_exo": ssvep,
        "eegmat": lambda: archives("eegmat", [(4, 30)], 0.0, 4.0),
        "bnci_iv_2b": lambda: archives("bnci_iv_2b", bands, 0.5, 3.5),
    }
    for name, load in sets.items():
        if options.only in name:
            kinds = tuple(options.kinds)
            compare(name, load(), options.seeds, kinds, options.share)


if __name__ == "__main__":
    main()
