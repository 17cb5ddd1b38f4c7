"""Covariances of narrow bands: which bands, what is in them, what does not matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt
from sklearn.covariance import OAS

from eegtensor import EEGTensorError
from eegtensor.features import SpectralCovariances
from eegtensor.geometry.covariance import shrink_oas


def noise(n_trials=12, n_channels=4, n_times=400, band=(0.16, 0.48), seed=0):
    """White noise between two shares of the Nyquist frequency."""
    X = np.random.default_rng(seed).standard_normal((n_trials, n_channels, n_times))
    return sosfiltfilt(butter(6, band, "band", output="sos"), X)


def test_bands_cover_what_a_filter_left() -> None:
    bank = SpectralCovariances(8).fit(noise())
    low, high = bank.bands_[0, 0] / 200, bank.bands_[-1, 1] / 200
    assert 0.10 < low <= 0.16 and 0.48 <= high < 0.56
    assert len(bank.bands_) == 8
    assert (bank.bands_[1:, 0] == bank.bands_[:-1, 1]).all()


def test_a_matrix_is_the_cross_spectrum_of_its_band() -> None:
    X = noise()
    bank = SpectralCovariances(5).fit(X)
    C = bank.transform(X)
    # By filters: the trial with everything else taken out of its transform.
    taper = np.hanning(X.shape[2])
    F = np.fft.rfft((X - X.mean(axis=2, keepdims=True)) * taper)
    for band, (low, high) in enumerate(bank.bands_):
        kept = np.zeros_like(F)
        kept[..., low:high] = F[..., low:high]
        x = np.fft.irfft(kept, n=X.shape[2])
        S = x @ x.swapaxes(1, 2) * X.shape[2] / 2 / (high - low)
        wanted = shrink_oas(S, 2 * (high - low))
        np.testing.assert_allclose(C[:, band], wanted, rtol=1e-9)
    assert np.linalg.eigvalsh(C).min() > 0


def test_shrinkage_is_that_of_scikit_learn() -> None:
    x = np.random.default_rng(1).standard_normal((5, 60))
    wanted = OAS(assume_centered=True).fit(x.T).covariance_
    np.testing.assert_allclose(shrink_oas(x @ x.T / 60, 60), wanted, rtol=1e-12)


def test_a_tone_is_in_its_band_alone() -> None:
    X = 1e-3 * noise(band=(0.05, 0.9))
    t = np.arange(400)
    X[:, 2] += np.sin(2 * np.pi * 0.2 * t)
    bank = SpectralCovariances(6).fit(X)
    power = bank.transform(X)[:, :, 2, 2].mean(axis=0)
    (loud,) = np.flatnonzero(power > 10 * np.median(power))
    assert bank.bands_[loud, 0] <= 80 < bank.bands_[loud, 1]


def test_units_order_and_single_trials_do_not_matter() -> None:
    X = noise()
    bank = SpectralCovariances(4).fit(X)
    micro = SpectralCovariances(4).fit(1e6 * X)
    np.testing.assert_array_equal(bank.bands_, micro.bands_)
    np.testing.assert_allclose(micro.transform(1e6 * X), 1e12 * bank.transform(X))
    np.testing.assert_allclose(bank.transform(X[3:4])[0], bank.transform(X)[3])


def test_short_trials_have_fewer_bands() -> None:
    X = np.random.default_rng(0).standard_normal((5, 3, 20))
    assert 1 <= len(SpectralCovariances(16).fit(X).bands_) <= 5


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (np.ones((2, 3, 4)), {}, "4 samples"),
        (noise(), {"n_bands": 0}, "n_bands=0"),
    ],
)
def test_mistakes(X, options, message) -> None:
    with pytest.raises(EEGTensorError, match=message):
        SpectralCovariances(**options).fit(X)


def test_other_trials_than_in_fit_are_refused() -> None:
    bank = SpectralCovariances(4).fit(noise())
    with pytest.raises(EEGTensorError, match="fit saw 4 x 400"):
        bank.transform(noise(n_times=300))
