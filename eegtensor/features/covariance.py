"""Covariance matrices of trials, of filter banks too."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor import geometry
from eegtensor._check import check_option, check_signals, fail, listing
from eegtensor.features._base import DomainTransformer
from eegtensor.geometry.covariance import ESTIMATORS


def split_bands(X: NDArray, n_bands: int) -> NDArray:
    """Return a view of band-major stacked channels, one axis per band.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_bands * n_channels, n_times)
    n_bands : int

    Returns
    -------
    X : ndarray, shape (n_trials, n_bands, n_channels, n_times)
    """
    if n_bands < 1 or X.shape[1] % n_bands:
        fail(
            f"{X.shape[1]} channels cannot be {n_bands} bands of equal size",
            fix="give n_bands as the number of bands read with bands=...",
        )
    return X.reshape(len(X), n_bands, X.shape[1] // n_bands, X.shape[2])


class Covariances(DomainTransformer):
    """One covariance matrix per trial.

    Parameters
    ----------
    estimator : "oas" | "lwf" | "scm"
        Shrinkage is the default: a sample covariance is singular after an
        average reference, ICA or interpolation, or with few samples.
    n_bands : int
        Number of filter bands stacked on the channel axis.
    bands : "stack" | "blocks" | "separate"
        What a filter bank becomes: one matrix over all stacked channels
        (between-band covariance kept), the same with the blocks between bands
        set to zero, or one matrix per band, shape (n_trials, n_bands, n, n).
    """

    trialwise = True

    def __init__(
        self, estimator: str = "oas", n_bands: int = 1, bands: str = "stack"
    ) -> None:
        self.estimator = estimator
        self.n_bands = n_bands
        self.bands = bands

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Covariances:
        """Check the parameters; nothing is learned."""
        check_option("estimator", self.estimator, ESTIMATORS)
        check_option("bands", self.bands, ("stack", "blocks", "separate"))
        self.n_features_in_ = check_signals(X, finite=False).shape[1]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return covariances of signals.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts

        Returns
        -------
        C : ndarray, shape (n_trials, [n_bands,] n, n), float64, volts squared

        Raises
        ------
        EEGTensorError
            If a matrix is rank deficient; the message names its rank and the
            likely cause.
        """
        signals = check_signals(X)
        if self.bands == "stack" or self.n_bands == 1:
            C = _in_pieces(signals, self.estimator)
            if self.bands == "separate":
                C = C[:, np.newaxis]
        else:
            banded = split_bands(signals, self.n_bands)
            C = _in_pieces(banded, self.estimator)
            if self.bands == "blocks":
                C = _block_diagonal(C)
        check_full_rank(C, signals, shrunk=self.estimator != "scm")
        return C


def _in_pieces(X: NDArray, estimator: str) -> NDArray:
    """Bound the float64 copies that the estimators make to some 64 MB each."""
    # Trials of a store arrive as a memory map, read here piece by piece.
    step = max(1, (1 << 23) // X[0].size)
    pieces = [
        geometry.covariances(X[i : i + step], estimator=estimator)
        for i in range(0, len(X), step)
    ]
    return np.concatenate(pieces)


def _block_diagonal(C: NDArray) -> NDArray:
    n_trials, n_bands, n, _ = C.shape
    out = np.zeros((n_trials, n_bands, n, n_bands, n), dtype=C.dtype)
    band = np.arange(n_bands)
    out[:, band, :, band, :] = np.moveaxis(C, 1, 0)
    return out.reshape(n_trials, n_bands * n, n_bands * n)


def check_full_rank(C: NDArray, X: NDArray, *, shrunk: bool) -> None:
    """Raise if a trial's matrix is rank deficient, with its rank and likely cause.

    Parameters
    ----------
    C : ndarray, shape (n_trials, ..., n, n)
    X : ndarray, shape (n_trials, n_channels, n_times)
        The signals behind the matrices.
    shrunk : bool
        Whether shrinkage has made every matrix of a non-zero trial definite.
    """
    n, n_times = C.shape[-1], X.shape[-1]
    if shrunk:
        traces = np.trace(C, axis1=-2, axis2=-1).reshape(len(C), -1)
        # A constant trial less its mean is rounding, not always exactly 0. One
        # sample tells how large that may be without a pass over the signals.
        first = X[:, :, 0].astype(np.float64).reshape(len(C), traces.shape[1], -1)
        rounding = 1e-28 * (first**2).sum(axis=2)
        ranks = np.where((traces > rounding).all(axis=1), n, 0)
    else:
        ranks = geometry.rank(C).reshape(len(C), -1).min(axis=1)
    bad = np.flatnonzero(ranks < n)
    if not bad.size:
        return
    worst = int(ranks[bad].min())
    if worst == 0:
        cause = "the trial is constant: a flat or disconnected recording"
        fix = "drop these trials, or read with on_bad='drop'"
    elif n_times - 1 < n:
        cause = f"{n_times} samples cannot fill {n} channels: too few samples"
        fix = "use longer windows, fewer channels, or estimator='oas'"
    elif worst == n - 1:
        cause = "an average reference, one ICA component removed, one interpolated "
        cause += "or one duplicated channel"
        fix = "use estimator='oas' or 'lwf', or drop one channel"
    else:
        cause = "ICA components removed, interpolated or duplicated channels"
        fix = "use estimator='oas' or 'lwf', or drop the redundant channels"
    fail(
        f"The covariance of {len(bad)} of {len(C)} trials is rank deficient "
        f"(rank {worst} of {n}; trials {listing(bad)})",
        why=f"A singular matrix has no logarithm. Likely cause: {cause}",
        fix=fix,
    )
