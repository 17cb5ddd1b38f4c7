"""Kernels K(x, z) that differ from K(z, x)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from eegtensor.features._base import check_matrices


def neighbour_kernel(
    A: NDArray, B: NDArray, among: NDArray, *, gamma: float, tails: str = "gaussian"
) -> NDArray:
    """Return how much of a trial's similarity to training trials falls on another.

    K(a, b) = n s(a, b) / sum_t s(a, t) over n training trials t, s(a, b) =
    exp(-gamma |a - b|^2) or 1 / (1 + gamma |a - b|^2): the conditional probabilities
    of (t-)SNE, times n, so that rows of the training set average one whatever n is.

    Parameters
    ----------
    A : ndarray, shape (n, n_features)
    B : ndarray, shape (m, n_features)
    among : ndarray, shape (n_train, n_features)
    gamma : float
        Per squared unit of the features.
    tails : "gaussian" | "student"

    Returns
    -------
    K : ndarray, shape (n, m)

    References
    ----------
    M. He et al., "Learning with asymmetric kernels: least squares and feature
    interpretation", IEEE TPAMI, 2023.
    """

    def logs(d: NDArray) -> NDArray:
        found: NDArray = -gamma * d if tails == "gaussian" else -np.log1p(gamma * d)
        return found

    # A trial far from all others keeps its ranking: sums of logarithms do not vanish.
    total = logsumexp(logs(cdist(A, among, "sqeuclidean")), axis=1)
    own: NDArray = logs(cdist(A, B, "sqeuclidean")) - total[:, None]
    return len(among) * np.exp(own)


def divergence(A: NDArray, B: NDArray) -> NDArray:
    """Return Kullback-Leibler divergences of Gaussians of zero mean, in nats.

    D(a || b) = (tr(b^-1 a) - log det(b^-1 a) - n_channels) / 2.

    Parameters
    ----------
    A : ndarray, shape (n, n_channels, n_channels)
        Covariance matrices.
    B : ndarray, shape (m, n_channels, n_channels)

    Returns
    -------
    D : ndarray, shape (n, m)

    Raises
    ------
    EEGTensorError
        If matrices are not symmetric and finite.
    """
    A, B = check_matrices(A, name="A"), check_matrices(B, name="B")
    c = A.shape[-1]
    eye = np.eye(c)
    inverse = np.stack([cho_solve(cho_factor(b, lower=True), eye) for b in B])
    traces = A.reshape(len(A), -1) @ inverse.reshape(len(B), -1).T
    log_a, log_b = np.linalg.slogdet(A)[1], np.linalg.slogdet(B)[1]
    found: NDArray = 0.5 * (traces - log_a[:, None] + log_b - c)
    # Rounding: a divergence is never negative.
    return np.maximum(found, 0.0)
