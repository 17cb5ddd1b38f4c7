"""TSMNetClassifier on the shared sets, beside the authors' code on the same folds.

Leave people out, adapt on all unlabelled trials of those left out; the same with
classes 4:1 in the target; the same network without domains. One JSON line per
person; folds in the file are skipped. The originals come from
``_original_tsmnet.py`` (``--original FILE``)::

    python tests/benchmarks/accuracy_tsmnet.py --data ../shared/data --out ours.jsonl
    python tests/benchmarks/accuracy_tsmnet.py --out ours.jsonl --original their.jsonl
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _original_tsmnet import SETS, read_set
from sklearn.metrics import balanced_accuracy_score

from eegtensor.transfer import TSMNetClassifier

SHIFTED = ("refit", "balanced", "spdim-bias", "spdim-geodesic")
RATIO = 4


def unbalanced(y: np.ndarray, frequent: str, seed: int) -> tuple[np.ndarray, ...]:
    """Trials with classes alike, and with one class four times as frequent.

    The second is drawn from the first, so that both hold the frequent class's
    trials; scores are taken on the second.
    """
    rng = np.random.default_rng(seed)
    n = min((y == name).sum() for name in np.unique(y))
    alike, shifted = [], []
    for name in np.unique(y):
        here = rng.permutation(np.flatnonzero(y == name))[:n]
        alike.append(here)
        keep = n if name == frequent else max(1, round(n / RATIO))
        shifted.append(here[:keep])
    return np.sort(np.concatenate(alike)), np.sort(np.concatenate(shifted))


def score_fold(
    trials: dict[str, np.ndarray], group: np.ndarray, seed: int, norm: str
) -> list[dict[str, Any]]:
    X, y = trials["X"], trials["y"]
    domains = {"subjects": trials["subject"], "sessions": trials["session"]}
    out = np.isin(trials["subject"], group)

    def part(index: np.ndarray) -> dict[str, np.ndarray]:
        return {name: column[index] for name, column in domains.items()}

    start = time.process_time()
    source = TSMNetClassifier(norm=norm, random_state=seed)
    source.fit(X[~out], y[~out], **part(~out))
    seconds = round(time.process_time() - start, 2)

    def score(index: np.ndarray, adapt_on: np.ndarray | None, method: str) -> float:
        model = copy.deepcopy(source).set_params(adaptation=method)
        if adapt_on is not None and model.can_adapt:
            model.adapt(X[adapt_on], **part(adapt_on))
        said = model.predict(X[index], **part(index))
        return float(balanced_accuracy_score(y[index], said))

    rows = []
    for person in group:
        here = np.flatnonzero(trials["subject"] == person)
        row: dict[str, Any] = {"person": str(person), "seconds": seconds}
        row["none"] = score(here, None, "refit")
        if norm == "domain":
            row["full"] = score(here, here, "refit")
            shift: dict[str, list[float]] = {}
            for frequent in np.unique(y):
                # Session by session: each is a domain of its own.
                pairs = [
                    tuple(s[k] for k in unbalanced(y[s], frequent, seed))
                    for s in (
                        here[trials["session"][here] == session]
                        for session in np.unique(trials["session"][here])
                    )
                ]
                alike = np.concatenate([a for a, _ in pairs])
                few = np.concatenate([b for _, b in pairs])
                shift.setdefault("none", []).append(score(few, None, "refit"))
                shift.setdefault("alike", []).append(score(few, alike, "refit"))
                for method in SHIFTED:
                    shift.setdefault(method, []).append(score(few, few, method))
            row["shift"] = {name: float(np.mean(v)) for name, v in shift.items()}
        rows.append(row)
    return rows


def run(name: str, seed: int, norm: str, data: Path, out: Path) -> None:
    text = out.read_text().splitlines() if out.exists() else []
    done = [json.loads(line) for line in text]
    seen = {(r["dataset"], r["seed"], r["norm"], r["person"]) for r in done}
    trials = read_set(name, data)
    people = np.unique(trials["subject"])
    for group in np.array_split(people, SETS[name][1] or len(people)):
        if (name, seed, norm, str(group[0])) in seen:
            continue
        rows = score_fold(trials, group, seed, norm)
        with out.open("a") as file:
            for row in rows:
                row = {"dataset": name, "seed": seed, "norm": norm} | row
                file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def report(out: Path, originals: list[Path]) -> None:
    """Mean over people of each seed; then over seeds, with the spread."""
    ours = [json.loads(line) for line in out.read_text().splitlines()]
    theirs = [
        json.loads(line) for path in originals for line in path.read_text().splitlines()
    ]

    def summary(values: dict[int, list[float]]) -> str:
        means = [float(np.mean(v)) for _, v in sorted(values.items())]
        each = " ".join(f"{m:.3f}" for m in means)
        return f"{np.mean(means):.4f} ({each})" if means else "-"

    for name in SETS:
        rows = [r for r in ours if r["dataset"] == name]
        peers = [r for r in theirs if r["dataset"] == name]
        columns: dict[str, dict[int, list[float]]] = {}
        for r in rows:
            keys = {f"norm={r['norm']}, not adapted": r["none"]}
            if "full" in r:
                keys["norm=domain, refitted"] = r["full"]
            keys |= {f"  4:1, {k}": v for k, v in r.get("shift", {}).items()}
            for key, value in keys.items():
                columns.setdefault(key, {}).setdefault(r["seed"], []).append(value)
        original: dict[int, list[float]] = {}
        for r in peers:
            original.setdefault(r["seed"], []).extend(r["scores"].values())
        print(f"\n{name}: balanced accuracy, mean of seeds (each seed)")
        print(f"  {'original, refitted':32} {summary(original)}")
        for key, values in columns.items():
            print(f"  {key:32} {summary(values)}")
        shift = {k.split(", ")[1]: v for k, v in columns.items() if "4:1" in k}
        if shift:
            mean = {
                k: np.mean([np.mean(v) for v in s.values()]) for k, s in shift.items()
            }
            lost = {k: float(mean["alike"] - mean[k]) for k in SHIFTED}
            words = ", ".join(f"{k} {v:+.4f}" for k, v in lost.items())
            print(f"  lost to 4:1 against classes alike: {words}")
        seconds = [r["seconds"] for r in rows if r["norm"] == "domain"]
        peer = [r["seconds_fit"] for r in peers]
        if seconds and peer:
            mine, other = np.median(seconds), np.median(peer)
            print(
                f"  CPU seconds of a fit: ours {mine:.1f}, original {other:.1f}, "
                f"ratio {other / mine:.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--original", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--norms", nargs="+", default=["domain", "batch"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.data is not None:
        for seed in args.seeds:
            for name in args.sets:
                for norm in args.norms:
                    run(name, seed, norm, args.data, args.out)
    if args.out.exists():
        report(args.out, args.original)


if __name__ == "__main__":
    main()
