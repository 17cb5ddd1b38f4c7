"""Core consistency: whether components are trilinear, or share out what is not."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import normal_matrix, solve
from eegtensor.tensor._shapes import as_tensor
from eegtensor.tensor.kernels import mttkrp, project, squared_norm

# Largest core, in cells, that is fitted to observed cells alone.
_LARGEST_CORE = 3000


@bridged
def core_consistency(X: Array, model: Any, *, mask: Array | None = None) -> float:
    """Return how near to superdiagonal the core is that fits best, in percent.

    ``100 (1 - ||G - I||^2 / R)``, G the least-squares core for the model's factors.
    100 for a valid CP model; far below 80, or negative, where components only share
    out what is not of that form. A component that fits noise can pass:
    `crossed_consistency` finds those too.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N)
        NaN are missing cells.
    model : CP
        Fitted to X.
    mask : array of bool, shape as X | None
        True for observed cells. The core is fitted to them alone up to 3000 cells
        of core (rank 14 for three modes); beyond, the model fills in the rest.

    Returns
    -------
    percent : float

    References
    ----------
    R. Bro and H. A. L. Kiers, "A new efficient method for determining the number
    of components in PARAFAC models", J. Chemometrics, 2003.
    """
    X, observed, _ = as_tensor(X, mask)
    factors = [torch.as_tensor(U, device=X.device).double() for U in model.factors]
    if tuple(len(U) for U in factors) != tuple(X.shape):
        fail(
            f"X has shape {tuple(X.shape)}, the model {tuple(len(U) for U in factors)}",
            fix="give the tensor that the model was fitted to",
        )
    weights = torch.as_tensor(model.weights, device=X.device).double()
    R = len(weights)
    if observed is not None and R**X.ndim > _LARGEST_CORE:
        estimate = torch.as_tensor(model.reconstruct(), device=X.device, dtype=X.dtype)
        X, observed = torch.where(observed, X, estimate), None
    G = _core(X, observed, factors).movedim(0, -1)
    G = torch.where(weights > 0, G / weights, 0.0)
    diagonal = (torch.arange(R, device=X.device),) * X.ndim
    distance = squared_norm(G) - 2.0 * float(G[diagonal].sum()) + R
    return 100.0 * (1.0 - distance / R)


def _core(X: Tensor, observed: Tensor | None, factors: list[Tensor]) -> Tensor:
    """Return the core (R, ..., R) of least squares for given factors, float64."""
    if observed is None:
        # Small pseudo-inverses in place of that of their Kronecker product.
        inverses = [torch.linalg.pinv(U).mT.to(X.dtype).contiguous() for U in factors]
        return project(X, inverses, range(X.ndim)).double()
    R, N = factors[0].shape[1], X.ndim
    pairs = [(U[:, :, None] * U[:, None, :]).flatten(1) for U in factors]
    V = project(observed.double(), pairs, range(N)).reshape((R,) * (2 * N))
    V = V.permute(*range(0, 2 * N, 2), *range(1, 2 * N, 2)).reshape(R**N, R**N)
    right = project(X.double(), factors, range(N)).reshape(1, R**N)
    return solve(V, right, 1e-12).reshape((R,) * N)


def crossed_consistency(
    X: Tensor,
    observed: Tensor | None,
    models: Sequence[Any],
    halves: Sequence[Tensor],
) -> float:
    """Return the core consistency of each half's components on the other half.

    The first mode's factor is refitted. A component that fits one half's noise has
    next to nothing in the other, and its core explodes.

    Parameters
    ----------
    X : Tensor
        Zero where missing.
    observed : Tensor of bool | None
    models : sequence of CP
        Of the halves.
    halves : sequence of Tensor
        Numbers along the first mode.

    Returns
    -------
    percent : float
        Mean of the two.
    """
    found = []
    for model, other in zip(models, reversed(halves), strict=True):
        other = other.to(X.device)
        Y, seen = X[other], None if observed is None else observed[other]
        factors = [torch.as_tensor(U).to(X.device).double() for U in model.factors]
        A = first_factor(Y, seen, factors)
        norms = A.norm(dim=0)
        unit = A / torch.where(norms > 0, norms, 1.0)
        moved = model._replace(weights=norms, factors=(unit, *factors[1:]))
        found.append(core_consistency(Y, moved, mask=seen))
    return statistics.fmean(found)


def first_factor(
    X: Tensor, observed: Tensor | None, factors: Sequence[Tensor]
) -> Tensor:
    """Return the first mode's factor of least squares for the others, float64.

    Parameters
    ----------
    X : Tensor, shape (I_1, ..., I_N)
        Zero where missing.
    observed : Tensor of bool | None
    factors : sequence of Tensor, shape (I_n, R)
        The first is not used.
    """
    factors = [U.double() for U in factors]
    M = mttkrp(X, [U.to(X.dtype) for U in factors], 0).double()
    if observed is None:
        return solve(normal_matrix([U.mT @ U for U in factors], 0), M, 1e-12)
    R = factors[1].shape[1]
    pairs = [(U[:, :, None] * U[:, None, :]).flatten(1) for U in factors]
    flat = mttkrp(observed.to(X.dtype), [U.to(X.dtype) for U in pairs], 0).double()
    return solve(flat.reshape(-1, R, R), M, 1e-12)
