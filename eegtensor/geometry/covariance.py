"""Covariance estimators of many trials in one batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_option
from eegtensor.geometry.spectral import eigvalsh

ESTIMATORS = ("oas", "lwf", "scm")


def covariances(X: NDArray, *, estimator: str = "oas") -> NDArray:
    """Return one covariance matrix per trial, channels centred over time.

    Parameters
    ----------
    X : ndarray, shape (..., n_channels, n_times), volts
    estimator : "oas" | "lwf" | "scm"
        Oracle approximating shrinkage (Chen et al. 2010), Ledoit-Wolf (2004),
        or the sample covariance divided by n_times.

    Returns
    -------
    C : ndarray, shape (..., n_channels, n_channels), float64, volts squared

    Raises
    ------
    EEGTensorError
        If the estimator is not known.

    References
    ----------
    Y. Chen et al., "Shrinkage algorithms for MMSE covariance estimation", IEEE
    Trans. Signal Process., 2010, eq. 23. O. Ledoit, M. Wolf, "A well-conditioned
    estimator for large-dimensional covariance matrices", J. Multivar. Anal.,
    2004. Both as scikit-learn computes them.
    """
    check_option("estimator", estimator, ESTIMATORS)
    return _ESTIMATORS[estimator](np.asarray(X, dtype=np.float64))


def _centred(X: NDArray) -> NDArray:
    return X - X.mean(axis=-1, keepdims=True)


def _scm(X: NDArray) -> NDArray:
    Z = _centred(X)
    return Z @ np.swapaxes(Z, -1, -2) / X.shape[-1]


def _shrink(C: NDArray, shrinkage: NDArray) -> NDArray:
    n = C.shape[-1]
    mu = np.trace(C, axis1=-2, axis2=-1) / n
    out = (1.0 - shrinkage)[..., np.newaxis, np.newaxis] * C
    diagonal = np.arange(n)
    out[..., diagonal, diagonal] += (shrinkage * mu)[..., np.newaxis]
    return out


def _oas(X: NDArray) -> NDArray:
    C = _scm(X)
    n, n_times = C.shape[-1], X.shape[-1]
    mu = np.trace(C, axis1=-2, axis2=-1) / n
    alpha = (C**2).mean(axis=(-1, -2))
    # Eq. 23 without its terms in 2 / n, as scikit-learn has it.
    numerator = alpha + mu**2
    denominator = (n_times + 1.0) * (alpha - mu**2 / n)
    # C = mu I, also of one channel or of a constant trial: nothing left to shrink.
    safe = np.where(denominator > 0, denominator, 1.0)
    shrinkage = np.where(denominator > 0, np.minimum(numerator / safe, 1.0), 1.0)
    return _shrink(C, shrinkage)


def _lwf(X: NDArray) -> NDArray:
    Z = _centred(X)
    n, n_times = Z.shape[-2], Z.shape[-1]
    C = Z @ np.swapaxes(Z, -1, -2) / n_times
    mu = np.trace(C, axis1=-2, axis2=-1) / n
    # The mean over time of ||z z'||^2, without forming a matrix for each sample.
    squares = (Z**2).sum(axis=-2)
    fourth = (squares**2).sum(axis=-1) / n_times
    norm = (C**2).sum(axis=(-1, -2))
    beta = (fourth - norm) / (n * n_times)
    delta = (norm - n * mu**2) / n
    beta = np.minimum(beta, delta)
    shrinkage = np.where(beta > 0, beta / np.where(delta > 0, delta, 1.0), 0.0)
    return _shrink(C, shrinkage)


_ESTIMATORS: dict[str, Callable[[NDArray], NDArray]] = {
    "oas": _oas,
    "lwf": _lwf,
    "scm": _scm,
}


def rank(C: NDArray) -> NDArray:
    """Return the numerical rank of symmetric matrices, shape (...).

    An eigenvalue counts when it exceeds n * 1e-12 of the largest: what average
    referencing, ICA or interpolation in floating point leave behind is below.
    """
    values = eigvalsh(C)
    floor = values.shape[-1] * 1e-12 * np.abs(values).max(axis=-1, keepdims=True)
    return (values > floor).sum(axis=-1)
