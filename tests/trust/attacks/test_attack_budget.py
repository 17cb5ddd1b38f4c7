"""The record of an attack's size, in every unit the same."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.trust.attacks import measure


@pytest.fixture
def trials(rng):
    # Channels of different sizes, with offsets.
    X = rng.standard_normal((50, 4, 200)) * np.array([1, 5, 0.2, 30])[:, None]
    return 1e-5 * (X + np.array([0, 100, 3, -7])[:, None])


def test_sizes_are_in_standard_deviations_of_the_channel(trials, rng):
    s = trials.std(axis=(0, 2))[:, None]
    d = rng.standard_normal((50, 4, 200))
    found = measure(trials, trials + s * d, eps=1.0, norm="l2")
    np.testing.assert_allclose(found.linf, abs(d).max(axis=(1, 2)), rtol=1e-7)
    np.testing.assert_allclose(found.l2, (d**2).sum(axis=(1, 2)) ** 0.5, rtol=1e-7)
    assert found.eps == 1.0
    assert found.norm == "l2"


def test_noise_of_a_tenth_is_20_db(trials, rng):
    s = trials.std(axis=(0, 2))[:, None]
    sign = np.sign(rng.standard_normal((50, 4, 200)))
    found = measure(trials, trials + 0.1 * s * sign)
    # Of all trials together, but for the means over time that are not signal.
    assert found.mean_snr_db == pytest.approx(20.0, abs=0.05)
    signal = ((trials - trials.mean(2, keepdims=True)) / s) ** 2
    wanted = 10 * np.log10(signal.sum((1, 2)) / (0.01 * 800))
    np.testing.assert_allclose(found.snr_db, wanted, atol=1e-9)
    assert found.summary()["snr_db"] == found.mean_snr_db


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_volts_and_microvolts_are_the_same(trials, rng, dtype):
    moved = trials + 1e-6 * rng.standard_normal(trials.shape)
    a = measure(trials.astype(dtype), moved.astype(dtype))
    b = measure((1e6 * trials).astype(dtype), (1e6 * moved).astype(dtype))
    for name in ("linf", "l2", "snr_db"):
        tolerance = 1e-9 if dtype == "f8" else 2e-2
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=tolerance)


def test_nothing_changed_is_no_error_and_a_flat_channel_none_either(trials):
    trials[:, 2] = 0.0
    found = measure(trials, trials)
    assert (found.linf == 0).all()
    assert np.isinf(found.snr_db).all()
    assert np.isfinite(measure(trials, trials + 1e-9).l2).all()
    assert "dB" in str(found)


def test_other_shapes_are_refused(trials):
    with pytest.raises(EEGTensorError, match="shape"):
        measure(trials, trials[:5])
