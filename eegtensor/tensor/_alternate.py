"""Alternating least squares for CP, on all cells or on the observed ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eegtensor.tensor._missing import squared_error
from eegtensor.tensor._momentum import settle
from eegtensor.tensor.kernels import (
    mttkrp,
    sum_of_components,
    sweep_modes,
)


def alternate(
    X: Tensor,
    factors: list[Tensor],
    total: float,
    ridge: float,
    max_iter: int,
    tol: float,
    *,
    observed: Tensor | None = None,
    error: float = math.inf,
) -> tuple[float, int]:
    """Update factors in place until the error settles.

    Parameters
    ----------
    X : Tensor, shape (I_1, ..., I_N)
        Zero where missing.
    factors : list of Tensor, shape (I_n, R)
    total : float
        Squared norm of X.
    ridge, max_iter, tol
        As in `cp`.
    observed : Tensor of bool | None
    error : float
        Squared relative error of the factors given, where it is known.

    Returns
    -------
    error : float
        Squared relative error.
    n_iter : int
    """
    if total == 0.0:
        for U in factors:
            U.zero_()
        return 0.0, 0

    def step(before: list[Tensor]) -> tuple[list[Tensor], float]:
        after = list(before)
        if observed is None:
            return after, _sweep(X, after, total, ridge)
        return after, _masked_sweep(X, observed, after, total, ridge)

    state, error, n_iter = settle(
        step, list(factors), max_iter=max_iter, tol=tol, error=error
    )
    factors[:] = state
    return error, n_iter


def normal_matrix(grams: list[Tensor], skip: int) -> Tensor:
    """Return the Hadamard product of all Grams but one, (R, R)."""
    V = torch.ones_like(grams[0])
    for n, G in enumerate(grams):
        if n != skip:
            V = V * G
    return V


def solve(V: Tensor, M: Tensor, ridge: float) -> Tensor:
    """Return the A (I, R) with A (V + mu I) = M, mu relative to V; V may be singular.

    Parameters
    ----------
    V : Tensor, shape (R, R) or (I, R, R), float64
    M : Tensor, shape (I, R), float64
        With one axis more, (S, I, R), there is one V for each of S problems.
    """
    R = V.shape[-1]
    level = V.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    tiny = torch.finfo(V.dtype).tiny
    eye = torch.eye(R, dtype=V.dtype, device=V.device)
    raised = V + (ridge * level + tiny) * eye
    right = M.mT if V.ndim == M.ndim else M[..., None]
    L, info = torch.linalg.cholesky_ex(raised)
    if bool((info > 0).any()):
        A = torch.linalg.pinv(raised, hermitian=True) @ right
    else:
        A = torch.cholesky_solve(right, L)
    return A.mT if V.ndim == M.ndim else A[..., 0]


def _sweep(X: Tensor, factors: list[Tensor], total: float, ridge: float) -> float:
    balance_columns(factors)
    grams = [U.double().mT @ U.double() for U in factors]
    last = {}

    def update(n: int, M: Tensor) -> Tensor:
        M = M.double()
        A = solve(normal_matrix(grams, n), M, ridge)
        grams[n] = A.mT @ A
        last["inner"] = (M * A).sum()
        return A.to(X.dtype)

    sweep_modes(X, factors, update)
    modelled = normal_matrix(grams, -1).sum()
    error = (total - 2.0 * last["inner"] + modelled) / total
    return max(float(error), 0.0)


def _masked_sweep(
    X: Tensor, observed: Tensor, factors: list[Tensor], total: float, ridge: float
) -> float:
    """One sweep of least squares over the observed cells, row by row.

    The normal matrix of row i sums h h' over its observed cells, h the row of the
    Khatri-Rao product: an MTTKRP of the mask with all products of two columns.
    """
    balance_columns(factors)
    R = factors[0].shape[1]
    i, j = torch.triu_indices(R, R, device=X.device)
    weight = observed.to(X.dtype)
    for n in range(X.ndim):
        flat = _pair_sums(weight, factors, n, i, j)
        V = torch.zeros(len(flat), R, R, dtype=torch.float64, device=X.device)
        V[:, i, j] = flat
        V[:, j, i] = flat
        # A row without one observed cell gets zeros: both of its sides are.
        A = solve(V, mttkrp(X, factors, n).double(), max(ridge, 1e-9))
        factors[n] = A.to(X.dtype)
    ones = torch.ones(R, dtype=X.dtype, device=X.device)

    def estimate(part: slice) -> Tensor:
        return sum_of_components(ones, [factors[0][part], *factors[1:]])

    return squared_error(X, observed, estimate) / total


def _pair_sums(
    weight: Tensor, factors: list[Tensor], mode: int, i: Tensor, j: Tensor
) -> Tensor:
    """Return the MTTKRP of the mask with products of columns i and j, float64.

    A few pairs at a time: all of them would take many times the tensor's memory.
    """
    shape = weight.shape
    inner = 0 < mode < len(shape) - 1
    # A pair takes one part in so many of the tensor.
    share = math.prod(shape[mode + 1 :]) if inner else shape[mode]
    step = max(1, share // 2)
    sums = []
    for at in range(0, len(i), step):
        a, b = i[at : at + step], j[at : at + step]
        sums.append(mttkrp(weight, [U[:, a] * U[:, b] for U in factors], mode))
    return torch.cat(sums, dim=1).double()


def balance_columns(factors: list[Tensor]) -> None:
    """Give every factor of a component the same norm: the ridge treats them alike."""
    norms = torch.stack([U.double().norm(dim=0) for U in factors])
    product = norms.prod(dim=0)
    target = product ** (1.0 / len(factors))
    scale = torch.where(norms > 0, target / norms.clamp_min(1e-300), 1.0)
    # A component that is zero stays so.
    scale = torch.where(product > 0, scale, 1.0)
    for n, U in enumerate(factors):
        factors[n] = U * scale[n].to(U.dtype)
