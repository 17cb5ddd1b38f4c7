"""Recentring: every domain's Riemannian mean is moved to the identity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.features._base import check_matrices
from eegtensor.features._means import segment_means
from eegtensor.geometry import congruence, frechet_mean, geodesic, inv_sqrtm, rank
from eegtensor.transfer._perdomain import PerDomain


class Recenter(PerDomain):
    """Map each matrix X to M_d^-1/2 X M_d^-1/2, M_d the mean of its domain.

    Parameters
    ----------
    metric : str
        Metric of the mean, any of `eegtensor.geometry.distance`.
    unseen : "pooled" | "adapt" | "raise"
        What `transform` does with a domain it has no mean for: use the mean of
        the sources' means, the mean of the given batch, or raise.
    prior_trials : float
        How many trials the sources' mean counts for when `partial_adapt` meets
        a new domain; afterwards M <- M #_(1/(prior + k)) X_k.

    Notes
    -----
    The domain's mean is unweighted by class. Where a target's classes are
    unbalanced the origin is pulled to the frequent class: see
    `BalancedRecenter`.

    References
    ----------
    P. Zanini et al., "Transfer learning: a Riemannian geometry framework with
    applications to brain-computer interfaces", IEEE Trans. Biomed. Eng., 2018.
    """

    def __init__(
        self,
        metric: str = "affine-invariant",
        unseen: str = "pooled",
        prior_trials: float = 5.0,
    ) -> None:
        self.metric = metric
        self.unseen = unseen
        self.prior_trials = prior_trials

    def _check(self, X: Any) -> NDArray:
        return check_matrices(X, ndim=(3, 4))

    def _statistics(
        self, X: NDArray, codes: NDArray, n_domains: int, weights: NDArray | None
    ) -> NDArray:
        # From memory in cross-validation: a person is a source in every fold but one.
        means = segment_means(X, codes, n_domains, metric=self.metric, weights=weights)
        check_means(means)
        return means

    def _pool(self, statistics: NDArray, counts: NDArray) -> NDArray:
        return pooled_mean(statistics, counts, self.metric)

    def _update(self, statistic: NDArray, x: NDArray, weight: float) -> NDArray:
        return geodesic(statistic, x, weight, metric=self.metric)

    def _apply(self, X: NDArray, statistics: NDArray, codes: NDArray) -> NDArray:
        # One inverse root per domain, not per trial.
        used, position = np.unique(codes, return_inverse=True)
        return congruence(inv_sqrtm(statistics[used])[position.ravel()], X)


def pooled_mean(means: NDArray, counts: NDArray, metric: str) -> NDArray:
    """Return the mean of domain means weighted by their trials, per band."""
    if means.ndim == 4:
        bands = [
            frechet_mean(means[:, b], metric=metric, weights=counts)
            for b in range(means.shape[1])
        ]
        return np.stack(bands)
    return frechet_mean(means, metric=metric, weights=counts)


def check_means(means: NDArray) -> None:
    """Raise if a domain's mean is singular, naming rank and likely cause."""
    n = means.shape[-1]
    ranks = rank(means).reshape(len(means), -1).min(axis=1)
    if (ranks < n).any():
        worst = int(ranks.min())
        fail(
            f"The mean covariance of a domain has rank {worst} of {n}",
            why="It cannot be moved to the identity. Likely cause: an average "
            "reference, ICA, interpolated channels or too few samples",
            fix="use Covariances(estimator='oas') or 'lwf', or drop channels",
        )
