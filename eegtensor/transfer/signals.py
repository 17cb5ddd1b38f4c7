"""Alignment of signals: whiten every domain by the mean of its covariances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_option, check_signals
from eegtensor.features._means import segment_means
from eegtensor.features.covariance import split_bands
from eegtensor.geometry import covariances, geodesic, inv_sqrtm
from eegtensor.transfer._perdomain import PerDomain
from eegtensor.transfer.recenter import check_means, pooled_mean


class SignalAlignment(PerDomain):
    """Map each trial X to R_d^-1/2 X, R_d the mean covariance of its domain.

    Parameters
    ----------
    metric : "euclidean" | "affine-invariant"
        The arithmetic mean (Euclidean alignment) or the Riemannian one.
    n_bands : int
        Number of filter bands stacked on the channel axis; each is aligned on
        its own, so that bands do not mix.
    estimator : "scm" | "oas" | "lwf"
        Covariance of a trial; the published method takes X X' / n_times.
    unseen, prior_trials
        As in `Recenter`.

    References
    ----------
    H. He and D. Wu, "Transfer learning for brain-computer interfaces: a
    Euclidean space data alignment approach", IEEE Trans. Biomed. Eng., 2020,
    eq. 8-10.
    """

    def __init__(
        self,
        metric: str = "euclidean",
        n_bands: int = 1,
        estimator: str = "scm",
        unseen: str = "pooled",
        prior_trials: float = 5.0,
    ) -> None:
        self.metric = metric
        self.n_bands = n_bands
        self.estimator = estimator
        self.unseen = unseen
        self.prior_trials = prior_trials

    def _check(self, X: Any) -> NDArray:
        check_option("metric", self.metric, ("euclidean", "affine-invariant"))
        return check_signals(X)

    def _covariances(self, X: NDArray) -> NDArray:
        banded = split_bands(X, self.n_bands)
        # Some 64 MB in float64 at a time: X may be a memory map of all people.
        step = max(1, (1 << 23) // X[0].size)
        pieces = [banded[i : i + step] for i in range(0, len(X), step)]
        return np.concatenate([self._piece(piece) for piece in pieces])

    def _piece(self, banded: NDArray) -> NDArray:
        if self.estimator != "scm":
            return covariances(banded, estimator=self.estimator)
        # Eq. 8: not centred over time, unlike `covariances`.
        banded = banded.astype(np.float64)
        return banded @ np.swapaxes(banded, -1, -2) / banded.shape[-1]

    def _statistics(
        self, X: NDArray, codes: NDArray, n_domains: int, weights: NDArray | None
    ) -> NDArray:
        C = self._covariances(X)
        means = segment_means(C, codes, n_domains, metric=self.metric, weights=weights)
        check_means(means)
        return means

    def _pool(self, statistics: NDArray, counts: NDArray) -> NDArray:
        return pooled_mean(statistics, counts, self.metric)

    def _update(self, statistic: NDArray, x: NDArray, weight: float) -> NDArray:
        C = self._covariances(x[np.newaxis])[0]
        return geodesic(statistic, C, weight, metric=self.metric)

    def _apply(self, X: NDArray, statistics: NDArray, codes: NDArray) -> NDArray:
        used, position = np.unique(codes, return_inverse=True)
        # Found in float64; float32 trials stay float32, of which there are many.
        whiten = inv_sqrtm(statistics[used]).astype(X.dtype, copy=False)
        aligned = whiten[position.ravel()] @ split_bands(X, self.n_bands)
        return aligned.reshape(X.shape)


class EuclideanAlignment(SignalAlignment):
    """`SignalAlignment` by the arithmetic mean, under its published name."""

    def __init__(
        self,
        n_bands: int = 1,
        unseen: str = "pooled",
        prior_trials: float = 5.0,
    ) -> None:
        super().__init__("euclidean", n_bands, unseen=unseen, prior_trials=prior_trials)
