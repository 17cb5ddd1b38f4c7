"""Small trials for benchmarks: any number of people, sessions and trials."""

from __future__ import annotations

from collections.abc import Callable

import mne
import numpy as np
import pandas as pd
import pytest

from eegtensor import Trials


def _make(
    n_subjects: int = 3,
    sizes: tuple[int, ...] = (8, 8),
    *,
    n_classes: int = 2,
    separation: float = 1.0,
    dataset: str = "toy",
    ch_names: tuple[str, ...] = ("C3", "Cz", "C4"),
    seed: int = 0,
) -> Trials:
    """Return trials whose class shows in the variance of the first channels.

    `sizes` holds the number of trials of each session.
    """
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for subject in range(n_subjects):
        for session, size in enumerate(sizes):
            rows += [(dataset, f"s{subject + 1}", str(session))] * size
            labels += [f"class{i % n_classes}" for i in range(size)]
    y = np.asarray(labels)
    X = rng.standard_normal((len(y), len(ch_names), 24))
    for k in range(n_classes):
        X[y == f"class{k}", k % len(ch_names)] *= 1.0 + separation
    metadata = pd.DataFrame(rows, columns=["dataset", "subject", "session"])
    info = mne.create_info(list(ch_names), 24.0, "eeg")
    return Trials(X * 1e-5, y, metadata, info)


@pytest.fixture
def make_trials() -> Callable[..., Trials]:
    return _make
