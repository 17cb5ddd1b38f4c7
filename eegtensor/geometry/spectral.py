"""Functions of symmetric matrices through one eigendecomposition.

The only place of the package that decomposes symmetric matrices. Thresholds
are relative to each matrix's largest eigenvalue, so that V^2 and uV^2 give the
same result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail, listing


def symmetrize(X: NDArray) -> NDArray:
    """Return the symmetric part (X + X') / 2, shape (..., n, n)."""
    return 0.5 * (X + np.swapaxes(X, -1, -2))


def eigh(X: NDArray) -> tuple[NDArray, NDArray]:
    """Return eigenvalues (..., n), ascending, and eigenvectors (..., n, n)."""
    try:
        return np.linalg.eigh(X)
    except np.linalg.LinAlgError as error:
        finite = np.isfinite(X).all(axis=(-1, -2))
        fail(
            f"Matrices {listing(np.flatnonzero(~finite))} hold NaN or infinity",
            why="They have no eigenvalues",
            fix="drop these trials",
            cause=error,
        )


def eigvalsh(X: NDArray) -> NDArray:
    """Return the eigenvalues alone, ascending, shape (..., n); 2-3x cheaper."""
    return np.linalg.eigvalsh(X)


def from_eig(values: NDArray, vectors: NDArray) -> NDArray:
    """Return U diag(values) U', shape (..., n, n)."""
    return (vectors * values[..., np.newaxis, :]) @ np.swapaxes(vectors, -1, -2)


def positive(values: NDArray) -> NDArray:
    """Raise eigenvalues to at least n * machine epsilon of the largest one."""
    floor = values.shape[-1] * np.finfo(values.dtype).eps * values[..., -1:]
    tiny = np.finfo(values.dtype).tiny
    return np.maximum(values, np.maximum(floor, tiny))


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
    """Return X^(1/2) and X^(-1/2) from one eigendecomposition."""
    values, vectors = eigh(X)
    root = np.sqrt(positive(values))
    return from_eig(root, vectors), from_eig(1.0 / root, vectors)


def congruence(W: NDArray, X: NDArray) -> NDArray:
    """Return the symmetric W X W', shape (..., n, n); W and X broadcast."""
    return symmetrize(W @ X @ np.swapaxes(W, -1, -2))
