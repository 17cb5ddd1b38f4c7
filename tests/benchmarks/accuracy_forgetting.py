"""Forgetting a person from TSMNet, beside training anew without them.

    python tests/benchmarks/accuracy_forgetting.py --data ../shared/data
        [--set ssvep_exo] [--people 01 02 03] [--epochs 50] [--seeds 1]

A fifth of every class of every session is kept out of training. For each person in
turn: the network trained on all (before), the same after `forget` with SFRon, with
fine-tuning alone (alpha=0) and with NatMU, and one trained without the person. Shown:
balanced accuracy on the people kept; AUC of membership inference (the person's
training trials against their trials kept out), on the decoder as it stands and after
it was adapted to the person; CPU seconds. Then means over people and seeds, and what
each way differs by from training anew on the same trials.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _original_tsmnet import read_set

from eegtensor.lifelong import Known, audit_forgetting, forget
from eegtensor.transfer import TSMNetClassifier

WAYS: dict[str, dict[str, Any]] = {
    "sfron": {"method": "sfron"},
    "fine-tuning": {"method": "sfron", "alpha": 0.0},
    "natmu": {"method": "natmu"},
}
COLUMNS = ("kept", "as it stands", "adapted", "seconds")


def parts(trials: Known, seed: int) -> tuple[Known, Known]:
    """Four fifths to train on, a fifth to keep out, of each class and session."""
    rng = np.random.default_rng([seed, 7])
    out = np.zeros(len(trials.X), dtype=bool)
    cells = np.stack([np.asarray(c).astype(str) for c in trials[1:]], axis=1)
    for cell in np.unique(cells, axis=0):
        here = np.flatnonzero((cells == cell).all(axis=1))
        out[rng.permutation(here)[: max(1, round(0.2 * len(here)))]] = True
    return trials.pick(~out), trials.pick(out)


def fitted(trials: Known, epochs: int, seed: int) -> tuple[TSMNetClassifier, float]:
    net = TSMNetClassifier(epochs=epochs, validation=None, random_state=seed)
    # Lagged covariances are remembered: what is timed is learning alone.
    warm(trials)
    start = time.process_time()
    net.fit(trials.X, trials.y, **trials.domains)
    return net, time.process_time() - start


def warm(trials: Known) -> None:
    """Put lagged covariances into memory, where `forget` has emptied it."""
    few = trials.pick(np.arange(len(trials.X)) % 8 == 0)
    net = TSMNetClassifier(epochs=1, validation=None)
    net.fit(few.X, few.y, **few.domains)._inputs(trials.X)


def row(audit: Any, name: str, seconds: float) -> dict[str, float]:
    found = {"kept": audit.accuracy["general"][name], "seconds": seconds}
    return found | {way: rows[name].auc for way, rows in audit.membership.items()}


def one_person(
    net: TSMNetClassifier, seen: Known, held: Known, who: str, epochs: int, seed: int
) -> dict[str, dict[str, float]]:
    """Numbers of each way for one person."""
    rest = seen.pick(np.asarray(seen.subjects) != who)
    gold, seconds = fitted(rest, epochs, seed)
    members = seen.pick(np.asarray(seen.subjects) == who)
    plain = audit_forgetting(net, gold, [who], members, holdout=held)
    rows = {
        "before": row(plain, "before", np.nan),
        "anew": row(plain, "after", seconds),
    }
    for name, options in WAYS.items():
        warm(seen)
        start = time.process_time()
        after, _ = forget(net, who, seen.X, seen.y, **seen.domains, **options)
        seconds = time.process_time() - start
        audit = audit_forgetting(net, after, [who], members, holdout=held)
        rows[name] = row(audit, "after", seconds)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", default="ssvep_exo")
    parser.add_argument("--people", nargs="*")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    read = read_set(given.set, given.data)
    trials = Known(*(read[k] for k in ("X", "y", "subject", "session")))
    people = given.people or sorted(set(np.asarray(trials.subjects).tolist()))
    found: list[dict[str, dict[str, float]]] = []
    for seed in range(given.seeds):
        seen, held = parts(trials, seed)
        net, _ = fitted(seen, given.epochs, seed)
        for who in people:
            rows = one_person(net, seen, held, who, given.epochs, seed)
            found.append(rows)
            text = ", ".join(
                f"{name} {r['kept']:.3f} {r['adapted']:.3f}" for name, r in rows.items()
            )
            print(f"seed {seed} person {who}: kept, AUC adapted: {text}", flush=True)
    print(f"\n{given.set}, {given.epochs} epochs: means over {len(found)} runs; in")
    print("brackets what differs from training anew (mean, mean of absolute values)")
    for name in found[0]:
        cells = []
        for column in COLUMNS:
            own, anew = (
                np.array([r[which][column] for r in found]) for which in (name, "anew")
            )
            if column == "seconds":
                cells.append(f"seconds {own.mean():.2f} ({(own / anew).mean():.3f})")
                continue
            d = own - anew
            cells.append(
                f"{column} {own.mean():.3f} ({d.mean():+.3f}, {np.abs(d).mean():.3f})"
            )
        print(f"{name:12s} " + "  ".join(cells))


if __name__ == "__main__":
    main()
