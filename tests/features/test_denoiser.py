"""PairedDenoiser: pairs within people, no labels for new trials."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.features import PairedDenoiser


def trials(n: int, seed: int, pattern: np.ndarray, level: float) -> tuple:
    rng = np.random.default_rng(seed)
    wave = np.exp(-0.5 * ((np.arange(64) - 30) / 5) ** 2)
    S = np.repeat((pattern[:, None] * wave)[None], n, axis=0)
    return S, S + level * rng.standard_normal(S.shape)


def test_new_trials_without_labels() -> None:
    S, X = trials(60, 0, 1e-6 * np.array([1.0, -1.0, 0.5]), 1e-6)
    denoiser = PairedDenoiser(n_networks=1, n_rounds=0).fit(X[:40])
    found = denoiser.transform(X[40:])
    before, after = (np.linalg.norm(Z - S[40:]) for Z in (X[40:], found))
    assert after < 0.35 * before
    assert denoiser.gain_ > 0


def test_trials_are_paired_within_people() -> None:
    # Opposite responses: together they share nothing, each alone does.
    pattern = np.array([1.0, -1.0, 0.5])
    X = np.concatenate(
        [trials(20, 0, pattern, 0.3)[1], trials(20, 1, -pattern, 0.3)[1]]
    )
    people = np.repeat(["a", "b"], 20)
    denoiser = PairedDenoiser(n_networks=1, n_rounds=0)
    found = denoiser.fit_transform(X, subjects=people)
    assert found[:20, 0, 30].mean() > 0.5 > -0.5 > found[20:, 0, 30].mean()
    few = np.where(np.arange(40) == 0, "alone", people)
    with pytest.raises(EEGTensorError, match="'alone'"):
        denoiser.fit(X, subjects=few)
