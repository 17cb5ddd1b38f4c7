"""Denoisers: pairs within people, no labels for new trials; noise of sensors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from eegtensor import EEGTensorError
from eegtensor.features.denoiser import NonlocalDenoiser, PairedDenoiser
from eegtensor.tensor.denoising import denoise_nonlocal, noise_level, noise_spectrum


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


def rhythms(n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Trials of a rhythm that any channel sees, at any phase."""
    rng = np.random.default_rng(0)
    t = np.arange(200)
    phase = 2 * np.pi * rng.random((n, 1, 1))
    S = np.cos(0.6 * t + phase) * np.array([1.0, -1.0, 0.5, 2.0])[:, None]
    return 1e-5 * S, 1e-5 * (S + level * rng.standard_normal(S.shape))


@pytest.mark.parametrize(
    ("domain", "noise", "share"),
    [
        ("time", "white", 0.5),
        ("time-frequency", "white", 0.5),
        ("time-frequency", "unshared", 0.5),
    ],
)
def test_noise_of_sensors(domain: str, noise: str, share: float) -> None:
    S, X = rhythms(12, 0.8)
    denoiser = NonlocalDenoiser(domain=domain, noise=noise).fit(X[:8])
    np.testing.assert_allclose(denoiser.noise_, 0.8e-5, rtol=0.35)
    found = denoiser.transform(X[8:])
    assert np.linalg.norm(found - S[8:]) < share * np.linalg.norm(X[8:] - S[8:])
    # No trial speaks to another one.
    np.testing.assert_array_equal(found[1:2], denoiser.transform(X[9:10]))


@pytest.mark.parametrize(
    ("noise", "options"),
    [
        ("white", {"domain": "time", "rank": 2, "patch": 12, "step": 6}),
        ("white", {"n_similar": 15, "n_iter": 2, "feedback": 0.3}),
        ("unshared", {"patch": 16, "step": 8, "strength": 1.2}),
    ],
)
def test_options_and_the_noise_of_the_fit_are_used(noise: str, options: dict) -> None:
    X = rhythms(9, 0.8)[1]
    denoiser = NonlocalDenoiser(noise=noise, **options).fit(X[:8])
    found = denoiser.transform(3.0 * X[8:])
    options = {"domain": "time-frequency", **options}
    want = denoise_nonlocal(3.0 * X[8], sigma=denoiser.noise_, **options).X
    np.testing.assert_array_equal(found[0], want)
    white = noise == "white"
    expected = noise_level(X[:8]) if white else noise_spectrum(X[:8], patch=16, step=8)
    np.testing.assert_array_equal(denoiser.noise_, expected)


def test_nonlocal_mistakes() -> None:
    X = rhythms(4, 0.8)[1]
    with pytest.raises(NotFittedError):
        NonlocalDenoiser().transform(X)
    for options, message in (
        ({"domain": "wavelet"}, "domain='wavelet'"),
        ({"noise": "unrepeated"}, "noise='unrepeated'"),
        ({"domain": "time", "noise": "unshared"}, "spectrum"),
    ):
        with pytest.raises(EEGTensorError, match=message):
            NonlocalDenoiser(**options).fit(X)
    denoiser = NonlocalDenoiser().fit(X)
    with pytest.raises(EEGTensorError, match="the fit saw 4"):
        denoiser.transform(X[:, :3])
