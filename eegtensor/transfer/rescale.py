"""Rescaling: every domain's dispersion about the identity becomes one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor.features._base import check_matrices
from eegtensor.geometry import logm, powm
from eegtensor.transfer._perdomain import PerDomain


class Rescale(PerDomain):
    """Map each matrix X to X^(1/sqrt(v_d)), v_d its domain's dispersion.

    v_d is the mean squared affine-invariant distance of the domain's matrices
    to the identity, so the matrices must have been recentred. A domain without
    dispersion (a single trial, recentred) is left as it is.

    Parameters
    ----------
    unseen, prior_trials
        As in `Recenter`; the sources' common dispersion is the weighted mean.

    References
    ----------
    P. L. C. Rodrigues et al., "Riemannian Procrustes analysis: transfer
    learning for brain-computer interfaces", IEEE Trans. Biomed. Eng., 2019.
    """

    def __init__(self, unseen: str = "pooled", prior_trials: float = 5.0) -> None:
        self.unseen = unseen
        self.prior_trials = prior_trials

    def _check(self, X: Any) -> NDArray:
        return check_matrices(X, ndim=(3, 4))

    def _statistics(
        self, X: NDArray, codes: NDArray, n_domains: int, weights: NDArray | None
    ) -> NDArray:
        # About the identity, not the mean: Recenter has moved one to the other.
        w = np.ones(len(X)) if weights is None else weights
        squared = _squared_norm(X)
        flat = squared.reshape(len(X), -1)
        sums = np.stack(
            [
                np.bincount(codes, w * flat[:, b], n_domains)
                for b in range(flat.shape[1])
            ],
            axis=1,
        )
        totals = np.bincount(codes, w, n_domains)
        return (sums / totals[:, np.newaxis]).reshape(n_domains, *squared.shape[1:])

    def _pool(self, statistics: NDArray, counts: NDArray) -> NDArray:
        return np.asarray(np.average(statistics, axis=0, weights=counts))

    def _update(self, statistic: NDArray, x: NDArray, weight: float) -> NDArray:
        return (1.0 - weight) * statistic + weight * _squared_norm(x[np.newaxis])[0]

    def _apply(self, X: NDArray, statistics: NDArray, codes: NDArray) -> NDArray:
        # Matrices within 1e-6 of the identity are the identity and rounding, which
        # would be blown up to dispersion one.
        v = np.where(statistics > 1e-12, statistics, 1.0)
        return powm(X, 1.0 / np.sqrt(v[codes]))


def _squared_norm(X: NDArray) -> NDArray:
    """Return the squared distance to the identity, shape (n_trials[, n_bands])."""
    return (logm(X) ** 2).sum(axis=(-1, -2))
