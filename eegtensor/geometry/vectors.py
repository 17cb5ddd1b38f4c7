"""Symmetric matrices as vectors, with the Frobenius norm kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    rows, columns = np.triu_indices(X.shape[-1])
    scale = np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(X.dtype)
    return X[..., rows, columns] * scale


def from_upper_vector(v: NDArray) -> NDArray:
    """Return the symmetric matrices of `upper_vector`, shape (..., n, n)."""
    n = int((np.sqrt(8 * v.shape[-1] + 1) - 1) / 2)
    rows, columns = np.triu_indices(n)
    scale = np.where(rows == columns, 1.0, np.sqrt(0.5)).astype(v.dtype)
    X = np.zeros((*v.shape[:-1], n, n), dtype=v.dtype)
    X[..., rows, columns] = v * scale
    X[..., columns, rows] = v * scale
    return X
