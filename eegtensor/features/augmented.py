"""Covariance matrices of signals side by side with their own past."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor import geometry
from eegtensor._check import check_option, check_signals, fail
from eegtensor.features._base import DomainTransformer, check_fitted
from eegtensor.features._spectrum import mean_power, pieces
from eegtensor.geometry.covariance import ESTIMATORS


class AugmentedCovariances(DomainTransformer):
    """One covariance matrix per trial of channels and delayed copies of them.

    Delays let a matrix hold how a channel's signal goes on in time, its spectrum,
    beside what channels share.

    Parameters
    ----------
    order : int
        Copies of each channel, the undelayed one among them.
    lag : int | None
        Samples from copy to copy; None: a quarter of the period of the mean
        frequency of the source trials, where a copy tells most that is new, or less,
        so that copies are no shorter than half a trial.
    estimator : "oas" | "lwf" | "scm"
        As in `Covariances`.
    max_size : int | None
        The order is lowered until matrices are no larger than this, whose time
        grows with the cube of it.

    Attributes
    ----------
    order_, lag_ : int

    References
    ----------
    I. Carrara and T. Papadopoulo, "Classification of BCI-EEG based on the augmented
    covariance matrix", IEEE Trans. Biomed. Eng., 2024 (eq. 7 and 8; order and lag
    are searched there).
    """

    def __init__(
        self,
        order: int = 4,
        lag: int | None = None,
        estimator: str = "oas",
        max_size: int | None = None,
    ) -> None:
        self.order = order
        self.lag = lag
        self.estimator = estimator
        self.max_size = max_size

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Find the lag from the trials' spectrum, if none was given.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts

        Raises
        ------
        EEGTensorError
            If an option is out of range or trials are too short for the delays.
        """
        check_option("estimator", self.estimator, ESTIMATORS)
        for name in ("order", "lag", "max_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                fail(f"{name}={value}", fix="give at least 1")
        X = check_signals(X)
        n_channels, n_times = X.shape[1:]
        self.order_ = self.order
        if self.max_size is not None:
            self.order_ = max(1, min(self.order, self.max_size // n_channels))
        longest = n_times // 2 // max(1, self.order_ - 1)
        self.lag_ = self.lag or max(1, min(_quarter_period(X), longest))
        if self.lag_ > longest:
            fail(
                f"{self.order_} copies {self.lag_} samples apart leave less than half "
                f"of {n_times} samples",
                fix="give a lower order or lag, or longer trials",
            )
        self.n_features_in_ = n_channels
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return covariances of the copies, stacked copy after copy.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts

        Returns
        -------
        C : ndarray, shape (n_trials, order * n_channels, order * n_channels), \
            float64, volts squared
        """
        check_fitted(self, "lag_")
        X = check_signals(X)
        if X.shape[1] != self.n_features_in_:
            fail(
                f"X has {X.shape[1]} channels, fit saw {self.n_features_in_}",
                fix="use the same channels as in fit",
            )
        length = X.shape[2] - self.lag_ * (self.order_ - 1)
        if length < 2:
            fail(
                f"Trials of {X.shape[2]} samples hold no {self.order_} copies "
                f"{self.lag_} samples apart",
                fix="use the same window as in fit",
            )
        starts = self.lag_ * np.arange(self.order_)
        matrices = []
        for part in pieces(X, (1 << 23) // self.order_):
            copies = np.concatenate([part[:, :, s : s + length] for s in starts], 1)
            matrices.append(geometry.covariances(copies, estimator=self.estimator))
        return np.concatenate(matrices)


def _quarter_period(X: NDArray) -> int:
    """Return a quarter of the period of the mean frequency, in samples."""
    power = mean_power(X)
    if not power.any():
        return 1
    cycles = np.arange(len(power)) @ power / power.sum() / X.shape[2]
    return max(1, round(0.25 / cycles))
