"""Covariances of channels beside their own past."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.features import AugmentedCovariances


def signals(n_channels=3, n_times=200, frequency=10.0, sfreq=100.0):
    rng = np.random.default_rng(0)
    t = np.arange(n_times) / sfreq
    phase = rng.uniform(0, 2 * np.pi, (6, n_channels, 1))
    noise = 1e-7 * rng.standard_normal((6, n_channels, n_times))
    return 1e-5 * np.sin(2 * np.pi * frequency * t + phase) + noise


def test_it_is_the_covariance_of_delayed_copies() -> None:
    X = signals()
    C = AugmentedCovariances(order=3, lag=4, estimator="scm").fit(X).transform(X)
    assert C.shape == (6, 9, 9)
    for trial, matrix in zip(X, C, strict=True):
        copies = np.concatenate([trial[:, s : s + 192] for s in (0, 4, 8)])
        wanted = np.cov(copies, bias=True)
        # Whatever the divisor: it is one factor of all.
        factor = matrix[0, 0] / wanted[0, 0]
        assert 0.99 < factor < 1.01
        np.testing.assert_allclose(matrix, factor * wanted, atol=1e-12 * wanted.max())


@pytest.mark.parametrize(("frequency", "lag"), [(10.0, 2), (5.0, 5), (12.5, 2)])
def test_the_lag_is_a_quarter_of_a_period(frequency, lag) -> None:
    found = AugmentedCovariances().fit(signals(frequency=frequency)).lag_
    assert abs(found - lag) <= 1
    assert found == AugmentedCovariances().fit(1e6 * signals(frequency=frequency)).lag_


def test_a_loud_trial_or_an_offset_moves_no_lag() -> None:
    X = signals(frequency=10.0)
    lag = AugmentedCovariances().fit(X).lag_
    assert AugmentedCovariances().fit(X + 1e-3).lag_ == lag
    loud = np.concatenate([X, 1e3 * signals(frequency=2.5)[:1]])
    assert AugmentedCovariances().fit(loud).lag_ <= lag + 1


def test_size_and_length_lower_what_was_not_asked_for() -> None:
    assert AugmentedCovariances(max_size=8).fit(signals()).order_ == 2
    assert AugmentedCovariances(max_size=2).fit(signals()).order_ == 1
    short = signals(n_times=20, frequency=2.0)
    assert AugmentedCovariances().fit(short).lag_ == 3
    with pytest.raises(EEGTensorError, match="less than half"):
        AugmentedCovariances(lag=8).fit(short)
    with pytest.raises(EEGTensorError, match="order=0"):
        AugmentedCovariances(order=0).fit(short)
    fitted = AugmentedCovariances(order=2, lag=8).fit(short)
    with pytest.raises(EEGTensorError, match="same channels"):
        fitted.transform(short[:, :2])
    with pytest.raises(EEGTensorError, match="same window"):
        fitted.transform(short[:, :, :9])


def test_many_trials_are_made_piece_by_piece() -> None:
    X = np.tile(signals(n_channels=8, n_times=2000), (120, 1, 1))
    C = AugmentedCovariances().fit(X).transform(X)
    assert len(C) == 720
    np.testing.assert_allclose(C[:6], C[-6:], rtol=1e-12)
