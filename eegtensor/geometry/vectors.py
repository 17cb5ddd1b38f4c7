"""Symmetric matrices as vectors, with the Frobenius norm kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail


def upper_vector(X: NDArray) -> NDArray:
    """Return the upper triangle, off-diagonal entries times sqrt(2).

    Parameters
    ----------
    X : ndarray, shape (..., n, n), symmetric

    Returns
    -------
    v : ndarray, shape (..., n (n + 1) / 2)
        ``(v ** 2).sum(-1)`` is the squared Frobenius norm.
    """
    X = _floating(X)
    rows, columns = np.triu_indices(X.shape[-1])
    scale = np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(X.dtype)
    return X[..., rows, columns] * scale


def from_upper_vector(v: NDArray) -> NDArray:
    """Return the symmetric matrices of `upper_vector`, shape (..., n, n).

    Parameters
    ----------
    v : ndarray, shape (..., n (n + 1) / 2)

    Raises
    ------
    EEGTensorError
        If no n gives vectors of that length.
    """
    v = _floating(v)
    # The positive root of n (n + 1) / 2 = length.
    n = int((np.sqrt(8 * v.shape[-1] + 1) - 1) / 2)
    if n * (n + 1) // 2 != v.shape[-1]:
        fail(
            f"Vectors of length {v.shape[-1]} are no upper triangle",
            fix="give vectors of n (n + 1) / 2 entries, as upper_vector makes them",
        )
    rows, columns = np.triu_indices(n)
    scale = np.where(rows == columns, 1.0, np.sqrt(0.5)).astype(v.dtype)
    X = np.zeros((*v.shape[:-1], n, n), dtype=v.dtype)
    X[..., rows, columns] = v * scale
    X[..., columns, rows] = v * scale
    return X


def _floating(X: NDArray) -> NDArray:
    # sqrt(2) in an integer dtype would be 1.
    return X if X.dtype.kind == "f" else X.astype(np.float64)
