"""Alternating least squares for CP, on all cells or on the observed ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from eegtensor.geometry._batched_eigh import eigh
from eegtensor.tensor._missing import part_cells, row_parts, squared_error
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
    raised = V.clone()
    diagonal = raised.diagonal(dim1=-2, dim2=-1)
    level = ridge * diagonal.mean(dim=-1, keepdim=True)
    diagonal += level + torch.finfo(V.dtype).tiny
    right = M.mT if V.ndim == M.ndim else M[..., None]
    L, info = torch.linalg.cholesky_ex(raised)
    if bool((info > 0).any()):
        A = pseudo_inverse(raised) @ right
    else:
        A = torch.cholesky_solve(right, L)
    return A.mT if V.ndim == M.ndim else A[..., 0]


def pseudo_inverse(V: Tensor) -> Tensor:
    """Return the inverse of symmetric V (..., R, R) along what is not rounding."""
    values, vectors = eigh(V)
    size = values.abs()
    floor = V.shape[-1] * torch.finfo(V.dtype).eps * size.amax(dim=-1, keepdim=True)
    inverse = torch.where(size > floor, 1.0 / values, 0.0)
    return (vectors * inverse[..., None, :]) @ vectors.mT


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
    for n in range(X.ndim):
        V = normal_matrices(
            observed,
            lambda some: [U[:, i[some]] * U[:, j[some]] for U in factors],
            n,
            R,
        )
        # A row without one observed cell gets zeros: both of its sides are.
        A = solve(V, mttkrp(X, factors, n).double(), max(ridge, 1e-9))
        factors[n] = A.to(X.dtype)
    ones = torch.ones(R, dtype=X.dtype, device=X.device)

    def estimate(part: slice) -> Tensor:
        return sum_of_components(ones, [factors[0][part], *factors[1:]])

    return squared_error(X, observed, estimate) / total


def normal_matrices(
    observed: Tensor, pairs: Callable[[slice], list[Tensor]], mode: int, rank: int
) -> Tensor:
    """Return sums over each row's observed cells, (I_mode, R, R), float64.

    A few pairs and a part of the mask at a time: as numbers, all of the mask would
    take as much memory as the tensor, all pairs many times as much.

    Parameters
    ----------
    observed : Tensor of bool, shape (I_1, ..., I_N)
    pairs : callable
        ``slice of the pairs -> factors (I_n, pairs)``: products of two columns, in
        the order of ``torch.triu_indices``.
    mode, rank : int
    """
    shape = observed.shape
    parts = row_parts(shape)
    # Cells that one pair needs: the product of the other modes or, behind the first
    # one, what a part of the mask leaves when the modes behind this one are summed.
    each = math.prod(shape[1:])
    if mode > 0:
        last = mode == len(shape) - 1
        each = parts[0].stop * math.prod(shape[1 : mode if last else mode + 1])
    step = max(1, part_cells(shape) // each)
    i, j = torch.triu_indices(rank, rank, device=observed.device)
    flat = torch.zeros(shape[mode], len(i), dtype=torch.float64, device=observed.device)
    for part in parts:
        weight = None
        for at in range(0, len(i), step):
            some = slice(at, at + step)
            first, *others = pairs(some)
            weight = observed[part].to(first.dtype) if weight is None else weight
            rows = part if mode == 0 else slice(None)
            flat[rows, some] += mttkrp(weight, [first[part], *others], mode)
    V = flat.new_zeros(len(flat), rank, rank)
    V[:, i, j] = flat
    V[:, j, i] = flat
    return V


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
