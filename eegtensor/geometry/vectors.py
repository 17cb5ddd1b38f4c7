"""Symmetric matrices as vectors, with the Frobenius norm kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged, floating


def _triangle(n: int, like: Tensor, root: float) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = torch.triu_indices(n, n, device=like.device)
    # sqrt(2) in an integer dtype would be 1: `like` is floating.
    scale = torch.full((len(rows),), root, dtype=like.dtype, device=like.device)
    return rows, columns, torch.where(rows == columns, 1.0, scale)


@bridged
def upper_vector(X: Array) -> Array:
    """Return the upper triangle, off-diagonal entries times sqrt(2).

    Parameters
    ----------
    X : array or tensor, shape (..., n, n), symmetric

    Returns
    -------
    v : array or tensor, shape (..., n (n + 1) / 2)
        ``(v ** 2).sum(-1)`` is the squared Frobenius norm.
    """
    X = floating(X)
    n = X.shape[-1]
    rows, columns, scale = _triangle(n, X, math.sqrt(2.0))
    # Of torch's ways to pick entries this one takes a quarter of the others' time.
    flat = X.flatten(-2)
    return flat.gather(-1, (n * rows + columns).expand(*flat.shape[:-1], -1)) * scale


@bridged
def from_upper_vector(v: Array) -> Array:
    """Return the symmetric matrices of `upper_vector`, shape (..., n, n).

    Parameters
    ----------
    v : array or tensor, shape (..., n (n + 1) / 2)

    Raises
    ------
    EEGTensorError
        If no n gives vectors of that length.
    """
    v = floating(v)
    # The positive root of n (n + 1) / 2 = length.
    n = int((math.sqrt(8 * v.shape[-1] + 1) - 1) / 2)
    if n * (n + 1) // 2 != v.shape[-1]:
        fail(
            f"Vectors of length {v.shape[-1]} are no upper triangle",
            fix="give vectors of n (n + 1) / 2 entries, as upper_vector makes them",
        )
    rows, columns, scale = _triangle(n, v, math.sqrt(0.5))
    place = torch.empty(n, n, dtype=torch.int64, device=v.device)
    place[rows, columns] = torch.arange(len(rows), device=v.device)
    place[columns, rows] = place[rows, columns]
    return (v * scale)[..., place]
