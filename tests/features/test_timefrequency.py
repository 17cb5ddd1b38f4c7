"""Time-frequency power against MNE's own and known waves."""

from __future__ import annotations

import numpy as np
import pytest
from mne.time_frequency import tfr_array_morlet

from eegtensor import EEGTensorError
from eegtensor.features import TimeFrequencyTensor


@pytest.fixture
def wave() -> np.ndarray:
    """20 Hz in the first channel's second half; noise in the second channel."""
    t = np.arange(256) / 128.0
    rng = np.random.default_rng(0)
    X = 1e-7 * rng.standard_normal((3, 2, 256))
    X[:, 0] += 1e-5 * np.where(t >= 1.0, np.sin(2 * np.pi * 20 * t), 0.0)
    return X


@pytest.mark.parametrize("method", ["morlet", "multitaper"])
def test_power_is_where_the_wave_is(method: str, wave) -> None:
    front = TimeFrequencyTensor(sfreq=128, method=method, n_bins=8).fit(wave)
    P = front.transform(wave)
    assert P.shape == (3, 2, 16, 8)
    f, t = np.unravel_index(P[0, 0].argmax(), P[0, 0].shape)
    assert abs(front.freqs_[f] - 20) < 2
    assert front.times_[t] > 1.0
    assert P[0, 0].max() > P[0, 1].max() + 5
    np.testing.assert_array_equal(np.diff(np.log(front.freqs_)).round(9).std(), 0.0)


def test_bins_average_mnes_power(wave) -> None:
    front = TimeFrequencyTensor(128.0, 8, 30, 5, 4, n_cycles=5, log=False).fit(wave)
    centred = wave - wave.mean(axis=-1, keepdims=True)
    theirs = tfr_array_morlet(
        centred, 128.0, np.geomspace(8, 30, 5), n_cycles=5, output="power"
    )
    wanted = theirs.reshape(3, 2, 5, 4, 64).mean(axis=-1)
    np.testing.assert_allclose(front.transform(wave), wanted, rtol=1e-10)
    logs = TimeFrequencyTensor(128.0, 8, 30, 5, 4, n_cycles=5).fit(wave)
    np.testing.assert_allclose(logs.transform(wave), np.log(wanted), rtol=1e-10)


def test_trials_in_pieces(wave, monkeypatch) -> None:
    whole = TimeFrequencyTensor(128.0).fit(wave).transform(wave)
    monkeypatch.setattr("eegtensor.features.timefrequency._CELLS", 1)
    np.testing.assert_array_equal(TimeFrequencyTensor(128.0).transform(wave), whole)


def test_short_trials_get_short_wavelets() -> None:
    X = np.random.default_rng(0).standard_normal((2, 1, 40))
    for method in ("morlet", "multitaper"):
        front = TimeFrequencyTensor(128.0, method=method, n_bins=4).fit(X)
        assert np.isfinite(front.transform(X)).all()
        assert (front.n_cycles_ < front.freqs_).any()


def test_what_cannot_be_done_says_so(wave) -> None:
    with pytest.raises(EEGTensorError, match="half the rate"):
        TimeFrequencyTensor(128.0, fmax=64.0).fit(wave)
    with pytest.raises(EEGTensorError, match="no more bins than samples"):
        TimeFrequencyTensor(128.0, n_bins=257).fit(wave)
    with pytest.raises(EEGTensorError, match="fit saw 256"):
        TimeFrequencyTensor(128.0).fit(wave).transform(wave[..., :200])
    # The mean of equal numbers is another number, by rounding.
    for level in (3.0, 0.1, -3.7e-5):
        wave[1, 1] = level
        with pytest.raises(EEGTensorError, match="Channel 1 of trial 1 has no power"):
            TimeFrequencyTensor(128.0).fit_transform(wave)
    assert np.isfinite(TimeFrequencyTensor(128.0, log=False).fit_transform(wave)).all()
