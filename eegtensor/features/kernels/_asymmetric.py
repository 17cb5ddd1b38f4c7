"""Least squares with a kernel that is not symmetric."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning, lu_factor, lu_solve
from scipy.linalg.lapack import get_lapack_funcs

from eegtensor._check import check_number, fail


class AsymmetricSolution(NamedTuple):
    """Weights and biases of the two decision functions.

    Attributes
    ----------
    source : ndarray, shape (n_trials, n_targets)
        Weights b of f_s(x) = K(x, train) b + b_s.
    target : ndarray, shape (n_trials, n_targets)
        Weights a of f_t(x) = K(train, x)' a + b_t.
    source_bias, target_bias : ndarray, shape (n_targets,)
    """

    source: NDArray
    target: NDArray
    source_bias: NDArray
    target_bias: NDArray


def solve_asymmetric(K: NDArray, T: NDArray, *, gamma: float) -> AsymmetricSolution:
    """Return the stationary point of least squares with two feature maps.

    With the multipliers times their labels, a and b, the published system
    holds K alone, so that all one-against-rest problems share a factorisation::

        1'a = 0,  1'b = 0,  b_s 1 + a / gamma + K b = t,  b_t 1 + K'a + b / gamma = t

    Parameters
    ----------
    K : ndarray, shape (n_trials, n_trials)
        K[i, j] = K(x_i, x_j).
    T : ndarray, shape (n_trials, n_targets)
        Plus and minus one, or numbers.
    gamma : float
        Weight of the errors.

    Returns
    -------
    AsymmetricSolution

    Raises
    ------
    EEGTensorError
        If the kernel is not square and finite.

    References
    ----------
    M. He et al., "Learning with asymmetric kernels: least squares and feature
    interpretation", IEEE TPAMI, 2023.
    """
    gamma = check_number("gamma", gamma, above=0.0)
    n = len(K)
    if K.shape != (n, n) or not np.isfinite(K).all():
        fail(
            f"The kernel has shape {K.shape}, or values that are not finite",
            fix="give finite K of shape (n_trials, n_trials)",
        )
    ones, zeros, eye = np.ones((n, 1)), np.zeros((n, 1)), np.eye(n)
    none, flat = np.zeros((1, n)), np.zeros((1, 1))
    M = np.block(
        [
            [flat, flat, ones.T, none],
            [flat, flat, none, ones.T],
            [ones, zeros, eye / gamma, K],
            [zeros, ones, K.T, eye / gamma],
        ]
    )
    rhs = np.concatenate([np.zeros((2, T.shape[1])), T, T])
    found = _solve(M, rhs)
    return AsymmetricSolution(found[2 + n :], found[2 : 2 + n], found[0], found[1])


def _solve(M: NDArray, rhs: NDArray) -> NDArray:
    with warnings.catch_warnings():
        # What follows is for the singular case.
        warnings.simplefilter("ignore", LinAlgWarning)
        factors = lu_factor(M, check_finite=False)
    (gecon,) = get_lapack_funcs(("gecon",), (M,))
    rcond, _ = gecon(factors[0], np.abs(M).sum(axis=0).max())
    if rcond < 1e-16:
        # The published way out: normal equations with a ridge of one.
        normal = M.T @ M + np.eye(len(M))
        solved: NDArray = np.linalg.solve(normal, M.T @ rhs)
        return solved
    solved = lu_solve(factors, rhs, check_finite=False)
    return solved
