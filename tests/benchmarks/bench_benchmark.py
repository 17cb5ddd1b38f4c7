"""CPU seconds of our leave-one-subject-out benchmark against cross_val_score.

Same trials, folds and features; both scores are printed, none is asserted.
Run: python tests/benchmarks/bench_benchmark.py [FOLDER_OF_EEGMAT]
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from pyriemann.classification import MDM
from pyriemann.estimation import Covariances
from pyriemann.tangentspace import TangentSpace
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import eegtensor as et

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EEGTENSOR_DATA", ROOT.parent / "shared" / "data"))


def measure(run: Callable[[], float]) -> tuple[float, float]:
    """Return a run's score and the CPU seconds of this process."""
    start = time.process_time()
    score = run()
    return score, time.process_time() - start


def peer(trials: et.Trials, name: str) -> float:
    """Return scikit-learn's mean balanced accuracy over people."""
    tangent = (TangentSpace(), StandardScaler(), LogisticRegression(C=0.1))
    steps = (MDM(),) if name == "mdm" else tangent
    scores = cross_val_score(
        make_pipeline(Covariances("oas"), *steps),
        np.asarray(trials.X, dtype=np.float64),
        trials.y,
        groups=trials.subjects,
        cv=LeaveOneGroupOut(),
        scoring="balanced_accuracy",
    )
    return float(scores.mean())


def main(folder: Path) -> None:
    """Print one line for us, one for each peer, and the ratio."""
    warnings.simplefilter("ignore")
    trials = et.read_trials(folder, tmin=0, tmax=4, band=(4, 30))
    names = ["mdm", "tangent-space"]
    et.benchmark(trials[trials.subjects < sorted(set(trials.subjects))[2]], names)

    result: list[et.Results] = []

    def ours() -> float:
        result.append(et.benchmark(trials, names))
        return float("nan")

    _, seconds = measure(ours)
    table = result[0].table()["balanced_accuracy"]
    print(f"{trials}\neegtensor, both pipelines: {seconds:.2f} CPU s")
    total = 0.0
    for name in names:
        score, theirs = measure(lambda name=name: peer(trials, name))
        total += theirs
        print(
            f"{name:14s} cross_val_score {theirs:6.2f} CPU s, balanced accuracy "
            f"{score:.4f}; eegtensor {table[name, 'none']:.4f}"
        )
    print(f"ratio (peers / eegtensor): {total / seconds:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "eegmat")
