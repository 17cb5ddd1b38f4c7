"""Functions of symmetric matrices through one eigendecomposition.

The only place of the package that decomposes symmetric matrices. Thresholds
are relative to each matrix's largest eigenvalue, so that V^2 and uV^2 give the
same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail, listing


def symmetrize(X: NDArray) -> NDArray:
    """Return the symmetric part (X + X') / 2, shape (..., n, n)."""
    return 0.5 * (X + np.swapaxes(X, -1, -2))


def eigh(X: NDArray) -> tuple[NDArray, NDArray]:
    """Return eigenvalues (..., n), ascending, and eigenvectors (..., n, n)."""
    try:
        values, vectors = np.linalg.eigh(X)
    except np.linalg.LinAlgError as error:
        _refuse(X, error)
    # LAPACK answers NaN with an error but infinity with NaN, and no word.
    if not np.isfinite(values).all():
        _refuse(X)
    return values, vectors


def eigvalsh(X: NDArray) -> NDArray:
    """Return the eigenvalues alone, ascending, shape (..., n); 2-3x cheaper."""
    try:
        values = np.linalg.eigvalsh(X)
    except np.linalg.LinAlgError as error:
        _refuse(X, error)
    if not np.isfinite(values).all():
        _refuse(X)
    return values


def _refuse(X: NDArray, cause: Exception | None = None) -> NoReturn:
    bad = np.flatnonzero(~np.isfinite(X).all(axis=(-1, -2)))
    fail(
        f"Matrices {listing(bad)} hold NaN or infinity"
        if bad.size
        else "The eigenvalues of a matrix were not found",
        why="Without eigenvalues it has no logarithm, root or distance",
        fix="drop these trials",
        cause=cause,
    )


def from_eig(values: NDArray, vectors: NDArray) -> NDArray:
    """Return U diag(values) U', shape (..., n, n)."""
    return (vectors * values[..., np.newaxis, :]) @ np.swapaxes(vectors, -1, -2)


def positive(values: NDArray) -> NDArray:
    """Raise eigenvalues to at least n * machine epsilon of the largest one."""
    if not (values[..., -1] > 0).all():
        fail(
            "A matrix has no positive eigenvalue",
            why="It is no covariance matrix: zero (a constant trial) or negative",
            fix="drop constant trials and check where the matrices come from",
        )
    # Below that an eigenvalue is rounding of the largest, of either sign.
    floor = values.shape[-1] * np.finfo(values.dtype).eps * values[..., -1:]
    return np.maximum(values, floor)


def _spectral(X: NDArray, function: Callable[[NDArray], NDArray]) -> NDArray:
    values, vectors = eigh(X)
    return from_eig(function(positive(values)), vectors)


def logm(X: NDArray) -> NDArray:
    """Return the matrix logarithm of SPD matrices, shape (..., n, n)."""
    return _spectral(X, np.log)


def sqrtm(X: NDArray) -> NDArray:
    """Return the symmetric square root of SPD matrices, shape (..., n, n)."""
    return _spectral(X, np.sqrt)


def inv_sqrtm(X: NDArray) -> NDArray:
    """Return the inverse symmetric square root, shape (..., n, n)."""
    return _spectral(X, lambda values: 1.0 / np.sqrt(values))


def powm(X: NDArray, p: float | NDArray) -> NDArray:
    """Return X^p of SPD matrices, shape (..., n, n).

    Parameters
    ----------
    X : ndarray, shape (..., n, n)
    p : float | ndarray, shape (...)
        One power, or one for each matrix.
    """
    power = np.asarray(p)[..., np.newaxis]
    return _spectral(X, lambda values: values**power)


def expm(X: NDArray) -> NDArray:
    """Return the exponential of symmetric matrices, shape (..., n, n)."""
    values, vectors = eigh(X)
    return from_eig(np.exp(values), vectors)


def sqrtm_pair(X: NDArray) -> tuple[NDArray, NDArray]:
    """Return X^(1/2) and X^(-1/2), both (..., n, n), from one eigendecomposition."""
    values, vectors = eigh(X)
    root = np.sqrt(positive(values))
    return from_eig(root, vectors), from_eig(1.0 / root, vectors)


def congruence(W: NDArray, X: NDArray) -> NDArray:
    """Return the symmetric W X W', shape (..., n, n); W and X broadcast."""
    # eigh reads one triangle only: rounding must not differ between the two.
    return symmetrize(W @ X @ np.swapaxes(W, -1, -2))
