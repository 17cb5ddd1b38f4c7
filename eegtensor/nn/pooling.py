"""Covariance of signals as a layer."""

from __future__ import annotations

from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.geometry._bridge import floating
from eegtensor.geometry.covariance import ESTIMATORS, covariances
from eegtensor.nn._precision import (
    check_finite_trials,
    check_trial_shape,
    full_precision,
)


class CovariancePool(nn.Module):
    """Covariance over the last axis, (..., n, n_times) to (..., n, n).

    Parameters
    ----------
    estimator : str
        One of `eegtensor.geometry.covariance.ESTIMATORS`. ``"scm"``, as
        published for TSMNet, centres each channel and divides by n_times, with
        no shrinkage.
    """

    def __init__(self, estimator: str = "scm") -> None:
        super().__init__()
        self.estimator = check_option("estimator", estimator, ESTIMATORS)

    def forward(self, X: Tensor) -> Tensor:
        """Return covariances in the dtype of X, at least float32; sums are in float64.

        Parameters
        ----------
        X : Tensor, shape (..., n, n_times)
        """
        if X.ndim < 2:
            fail(
                f"X has shape {tuple(X.shape)}",
                fix="give signals of shape (..., n_channels, n_times)",
            )
        with full_precision(X):
            C: Tensor = covariances(floating(X), estimator=self.estimator)
        return C

    def extra_repr(self) -> str:
        """Return the estimator, for printing."""
        return f"{self.estimator!r}"


class CovarianceFront(nn.Module):
    """Covariances of frequency bands and time windows of trials.

    Parameters
    ----------
    n_chans : int
        Channels of x, those of all bands together.
    n_times : int
    n_bands : int
        Bands that x holds one after the other on the channel axis, as
        `eegtensor.read_trials` with ``bands`` stacks them.
    n_windows : int
        Equal windows that a trial is cut into; samples left over are its last.
    estimator : str
        As in `CovariancePool`.
    """

    def __init__(
        self,
        n_chans: int,
        n_times: int,
        *,
        n_bands: int = 1,
        n_windows: int = 1,
        estimator: str = "scm",
    ) -> None:
        super().__init__()
        if n_bands < 1 or n_chans < 1 or n_chans % n_bands:
            fail(
                f"{n_chans} channels do not hold {n_bands} bands",
                why="Bands stand one after the other on the channel axis",
                fix="give n_chans = n_bands * (channels of one band)",
            )
        if not 1 <= n_windows <= n_times:
            fail(
                f"{n_windows} windows of {n_times} samples",
                fix=f"choose n_windows between 1 and {n_times}",
            )
        self.n_chans, self.n_times = n_chans, n_times
        self.n_bands, self.n_windows = n_bands, n_windows
        self.size = n_chans // n_bands
        self.pool = CovariancePool(estimator)

    @property
    def n_statistics(self) -> int:
        """Length of one trial's statistics."""
        return self.n_bands * self.n_windows * self.size**2

    def statistics(self, x: Tensor) -> Tensor:
        """Return the covariances of trials as rows, (batch, n_statistics).

        Computed once a trial, they stand for it: nothing before them is learned.

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times) or (batch, n_bands, size, n_times)
        """
        return self(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return covariances, (batch, n_bands, n_windows, size, size), float64.

        Parameters
        ----------
        x : Tensor
            Trials as for `statistics`, or their statistics.
        """
        slots = (self.n_bands, self.n_windows, self.size)
        if x.ndim == 2 and x.shape[1] == self.n_statistics:
            return x.view(-1, *slots, self.size)
        if x.ndim == 4 and x.shape[1:3] == (self.n_bands, self.size):
            # Bands with an axis of their own.
            x = x.flatten(1, 2)
        check_trial_shape(x, self.n_chans, self.n_times)
        check_finite_trials(x)
        length = self.n_times // self.n_windows
        x = x[..., : length * self.n_windows]
        x = x.reshape(-1, self.n_bands, self.size, self.n_windows, length)
        # Small eigenvalues of many channels need more digits than float32 has.
        S: Tensor = self.pool(x.transpose(2, 3).double())
        return S

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return (
            f"{self.n_chans}, {self.n_times}, n_bands={self.n_bands}, "
            f"n_windows={self.n_windows}"
        )
