"""Random tangents whose size is relative to the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eegtensor.training.space import ParamSpace, Tangent


@torch.no_grad()
def relative_noise(
    space: ParamSpace,
    sigma: float,
    generator: torch.Generator | None,
    damping: Mapping[str, Tensor] | None = None,
) -> Tangent:
    """Return normal tangents of about `sigma` times the size of the weights.

    Rows of an array (filters) get N(0, (sigma ||row||)^2), vectors
    N(0, (sigma ||w||)^2), leaves on manifolds of n x k matrices an isotropic
    tangent times sigma / sqrt(n), of length about sigma sqrt(k).

    Parameters
    ----------
    space : ParamSpace
    sigma : float
    generator : torch.Generator | None
    damping : mapping of Tensor | None
        What the noise of each leaf is divided by, such that it broadcasts.
    """
    noise = {}
    for name, p in space.points().items():
        adapter = space.adapters[name]
        eps = adapter.random_tangent(p, generator)
        eps = eps * (
            sigma * _size(p)
            if adapter.name == "euclidean"
            else sigma / p.shape[-2] ** 0.5
        )
        noise[name] = eps if damping is None else eps / damping[name]
    return noise


def _size(p: Tensor) -> Tensor:
    if p.ndim < 2:
        return torch.linalg.vector_norm(p)
    rows = torch.linalg.vector_norm(p.flatten(1), dim=1)
    return rows.reshape(-1, *[1] * (p.ndim - 1))


@torch.no_grad()
def squares(space: ParamSpace, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return squared gradients, summed over filters, of leaves on manifolds over all.

    Vectors keep one number an entry; the shapes broadcast with the leaves'.
    """
    found = {}
    for name, p in space.points().items():
        adapter, g = space.adapters[name], gradients[name]
        if adapter.name != "euclidean":
            u = adapter.rgrad(p, g)
            found[name] = adapter.inner(p, u, u)
        elif p.ndim < 2:
            found[name] = g.square()
        else:
            rows = g.flatten(1).square().sum(dim=1)
            found[name] = rows.reshape(-1, *[1] * (p.ndim - 1))
    return found
