"""New slices in the terms of a block term model."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import solve
from eegtensor.tensor._shapes import as_tensor
from eegtensor.tensor.blockterm import BlockTerm, slice_axis


@bridged
def block_term_project(
    model: BlockTerm, X: Array, *, mask: Array | None = None
) -> Array:
    """Return the scores of new slices for fixed maps, by least squares.

    Parameters
    ----------
    model : BlockTerm
    X : array or tensor
        As the tensor fitted, but of any size along ``model.vector_mode``; NaN are
        missing cells.
    mask : array of bool, shape as X | None

    Returns
    -------
    scores : array, shape (K, R)
        For maps of norm one: ``model.c * model.weights`` of the slices fitted.
    """
    X, observed, _ = as_tensor(X, mask, ndim=3)
    axis = slice_axis(X, model.vector_mode)
    maps = torch.as_tensor(model.maps, dtype=torch.float64, device=X.device)
    Y = X.movedim(axis, 0)
    if Y.shape[1:] != maps.shape[1:]:
        fail(
            f"Slices have shape {tuple(Y.shape[1:])}, the model's maps "
            f"{tuple(maps.shape[1:])}",
            fix="give slices with the axes of those that it was fitted to",
        )
    maps = maps.flatten(1)
    right = Y.flatten(1).double() @ maps.mT
    seen = None if observed is None else observed.movedim(axis, 0).flatten(1)
    return solve(_normals(maps, seen), right, 1e-12).to(X.dtype)


def _normals(maps: Tensor, seen: Tensor | None) -> Tensor:
    """Return inner products of maps, over each slice's own cells if some miss."""
    if seen is None:
        return maps @ maps.mT
    R = len(maps)
    i, j = torch.triu_indices(R, R, device=maps.device)
    flat = seen.double() @ (maps[i] * maps[j]).mT
    V = torch.zeros(len(seen), R, R, dtype=flat.dtype, device=flat.device)
    V[:, i, j] = flat
    V[:, j, i] = flat
    return V
