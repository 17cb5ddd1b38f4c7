"""Tangent space, tensor features, and both: leave one person out, real recordings.

Balanced accuracy on the three shared sets, every person adapted to with all of its
unlabelled trials and none of its labels. What can be chosen (decoder, its C, whitening,
windows, bins, ranks, HODA or Tucker) is chosen on the other people alone: models are
trained without two groups of people, and scored on one to choose for the other. Then::

    OMP_NUM_THREADS=1 python tests/benchmarks/accuracy_tensor.py \
        --data ../shared/data --out tensor.jsonl --cache FOLDER

One JSON line a model and its scores; models in the file are skipped. ``--bank`` adds
tangent vectors of seven bands, and with tensor features beside them. With
``--replicability`` it prints how alike CP components are over halves of the trials and
of the people, at the rank `select_rank` chooses; ``--figures folder`` draws them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import _tensor_replicability as replicability
import mne
import numpy as np
import torch
from _tensor_data import EXTRACTORS, GROUPS, TENSORS, Data, Tensor, label

_FRONT = label(Tensor("hoda", True, 30.0, 24, 1, (6, 4, 3)))
# What `PIPELINES` has, whitened, classes weighing alike: the best on people left out
# of training over three sets together (EEGMAT's common part), so here it is no test.
DEFAULTS = {
    "hoda-lda": (f"tensor {_FRONT}", "lda"),
    "tangent-tensor": (f"tangent+tensor {_FRONT}", "lr0.01"),
}


class Store:
    """Scores of models by (set, people left out, features), kept in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        text = file.read_text().splitlines() if file.exists() else []
        rows = [json.loads(line) for line in text]
        self.rows = {(r["set"], tuple(r["out"]), r["features"]): r for r in rows}

    def get(
        self, data: Data, out: np.ndarray, name: str, decoder: str | None = None
    ) -> dict[str, dict[str, float]]:
        key = (data.name, tuple(out.tolist()), name)
        row = self.rows.setdefault(
            key, {"set": key[0], "out": list(key[1]), "features": name, "ba": {}}
        )
        scores: dict[str, dict[str, float]] = row["ba"]
        if not scores or (decoder and decoder not in scores):
            scores.update(data.scores(name, out, decoder))
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return scores


def best(data: Data, store: Store, g: int, names: list[str]) -> tuple[str, str, float]:
    """Return features, decoder and score that are best on people outside group g."""
    found: dict[tuple[str, str], list[float]] = {}
    for h in range(len(data.groups)):
        if h == g:
            continue
        out = np.concatenate([data.groups[i] for i in sorted((g, h))])
        for name in names:
            for decoder, scores in store.get(data, out, name).items():
                values = [scores[str(p)] for p in data.groups[h]]
                found.setdefault((name, decoder), []).extend(values)
    (name, decoder), values = max(found.items(), key=lambda kv: np.mean(kv[1]))
    return name, decoder, float(np.mean(values))


def methods(bank: bool) -> Iterator[tuple[str, list[str]]]:
    """Names of methods, and the features among which each may choose."""
    yield "tangent", ["tangent"]
    for kind in EXTRACTORS:
        yield kind, [f"tensor {label(t)}" for t in TENSORS if t.extractor == kind]
    # Filled in with what the group chose for the tensor alone.
    yield "tangent+tensor", []
    if bank:
        yield "bank", ["bank"]
        yield "bank+tensor", []


def evaluate(data: Data, store: Store, bank: bool) -> dict[str, dict[str, float]]:
    """Return scores of every method and person."""
    pairs = list(combinations(range(len(data.groups)), 2))
    print(f"\n{data.name}: {len(data.people)} people, {len(pairs)} pairs of groups")
    result: dict[str, dict[str, float]] = {}
    tensors: dict[int, tuple[float, str]] = {}
    for method, names in methods(bank):
        for g, group in enumerate(data.groups):
            own = names or [f"{method} {tensors[g][1]}"]
            name, decoder, valid = best(data, store, g, own)
            if method in EXTRACTORS:
                tensors[g] = max(
                    tensors.get(g, (0.0, "")), (valid, name.removeprefix("tensor "))
                )
            for p in group:
                scores = store.get(data, np.array([p]), name, decoder)[decoder]
                result.setdefault(method, {}).update(scores)
            print(
                f"  {method:15} for {group[0]}..{group[-1]}: {name}, {decoder} "
                f"({valid:.3f} on the others)",
                flush=True,
            )
    for method, (name, decoder) in DEFAULTS.items():
        result[method] = {}
        for p in data.people:
            scores = store.get(data, np.array([p]), name, decoder)[decoder]
            result[method].update(scores)
    # One tensor method, HODA or Tucker as the others chose.
    result["tensor"] = {
        str(p): result[tensors[g][1].split(",")[0]][str(p)]
        for g, group in enumerate(data.groups)
        for p in group
    }
    return result


def report(result: dict[str, dict[str, float]], people: np.ndarray) -> None:
    """Print means, and paired differences with bootstrap intervals over people."""
    table = {m: np.array([s[str(p)] for p in people]) for m, s in result.items()}
    random = np.random.default_rng(0)
    draws = random.integers(len(people), size=(10_000, len(people)))

    def words(values: np.ndarray, sign: str = "") -> str:
        low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
        return f"{values.mean():{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

    for method, values in table.items():
        print(f"  {method:15} {words(values)}")
    for one, other in (
        ("tensor", "tangent"),
        ("tangent+tensor", "tangent"),
        ("tangent+tensor", "tensor"),
        ("tensor", "bank"),
        ("bank+tensor", "bank"),
        ("bank+tensor", "tensor"),
    ):
        if one not in table or other not in table:
            continue
        difference = table[one] - table[other]
        wins = int((difference > 0).sum()), int((difference < 0).sum())
        print(
            f"  {one} - {other}: {words(difference, '+')}, better for {wins[0]}, "
            f"worse for {wins[1]}"
        )


def components(data: Data, folder: Path | None) -> None:
    """Print how replicable CP components of power at the electrodes are."""
    choice = Tensor("hoda", False, 0.0, 12, 4, (0, 0, 0))
    front = data.front(choice).fit(data.X[:1])
    info = mne.create_info(data.channels, data.sfreq, "eeg")
    info.set_montage("standard_1020", on_missing="ignore", match_case=False)
    drawn = {"info": info, "freqs": front.freqs_, "times": front.times_}
    names = np.char.add(np.char.add(data.subjects, "/"), data.sessions)
    replicability.report(
        data.name, data.power(choice), data.subjects, names, drawn, folder
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--bank", action="store_true")
    parser.add_argument("--replicability", action="store_true")
    parser.add_argument("--figures", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.sets:
        data = Data(name, args.data, args.cache)
        if args.replicability:
            components(data, args.figures)
            continue
        report(evaluate(data, Store(args.out), args.bank), data.people)


if __name__ == "__main__":
    main()
