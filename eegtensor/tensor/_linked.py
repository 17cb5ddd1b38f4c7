"""Sweeps of linked CP: several tensors, some columns of some factors in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from eegtensor.tensor._alternate import balance_columns, normal_matrix, solve
from eegtensor.tensor._missing import Estimate
from eegtensor.tensor._momentum import Step
from eegtensor.tensor._shapes import normal
from eegtensor.tensor.cp import canonical, cp
from eegtensor.tensor.kernels import mttkrp, squared_norm, sum_of_components


def by_person(state: list[Tensor], N: int) -> list[list[Tensor]]:
    return [state[at : at + N] for at in range(0, len(state), N)]


def rebuild(factors: Sequence[Tensor]) -> Tensor:
    return sum_of_components(torch.ones_like(factors[0][0]), factors)


def first_state(
    cores: list[Tensor],
    modes: Sequence[int],
    rank: int,
    common: int,
    start: int,
    random: Any,
) -> list[Tensor]:
    together = {
        n: _first(cores[0].shape[n], rank, start, random).to(cores[0]) for n in modes
    }
    state = []
    for Y in cores:
        for n, size in enumerate(Y.shape):
            U = _first(size, rank, start, random).to(Y)
            if n in together:
                # The common part is the same in everybody, the rest is drawn anew.
                rest = normal((size, rank - common), random).to(Y)
                U = torch.cat([together[n][:, :common], rest], dim=1)
            state.append(U)
    return state


def matched_state(
    cores: list[Tensor], modes: Sequence[int], rank: int, common: int, random: Any
) -> list[Tensor]:
    """Return a start from everybody's own CP: what is most alike is in common."""
    models = []
    for Y in cores:
        found = cp(Y, rank, compress=None, max_iter=30, random_state=random)
        models.append([found.factors[0] * found.weights, *found.factors[1:]])
    alike = torch.zeros(rank, dtype=torch.float64, device=cores[0].device)
    orders = []
    for factors in models:
        cosines = torch.ones(rank, rank, dtype=torch.float64, device=alike.device)
        for n in modes:
            unit = [
                torch.nn.functional.normalize(U[n], dim=0) for U in (models[0], factors)
            ]
            cosines = cosines * (unit[0].mT @ unit[1])
        pairs = linear_sum_assignment(cosines.abs().cpu().numpy(), maximize=True)[1]
        orders.append(torch.from_numpy(pairs).to(alike.device))
        alike += cosines.abs().gather(1, orders[-1][:, None])[:, 0]
    best = alike.argsort(descending=True, stable=True)
    state = []
    for factors, order in zip(models, orders, strict=True):
        for n, U in enumerate(factors):
            V = U[:, order[best]]
            if n in modes:
                V = torch.cat([models[0][n][:, best[:common]], V[:, common:]], dim=1)
            state.append(V)
    return state


def _first(size: int, rank: int, start: int, random: Any) -> Tensor:
    if start > 0:
        return normal((size, rank), random)
    eye = torch.eye(size, rank, dtype=torch.float64)
    if rank > size:
        eye[:, size:] = normal((size, rank - size), random)
    return eye


def linked_step(
    parts: Sequence[Tensor],
    modes: Sequence[int],
    own: Sequence[int],
    common: int,
    ridge: float,
) -> Step:
    """Return one sweep over all modes and people."""
    N = parts[0].ndim
    total = sum(squared_norm(X) for X in parts)

    def step(state: list[Tensor]) -> tuple[list[Tensor], float]:
        if total == 0.0:
            return [torch.zeros_like(U) for U in state], 0.0
        factors = _balanced(by_person(state, N), modes, own, common)
        grams = [[U.double().mT @ U.double() for U in person] for person in factors]
        # Own modes last: their least squares give the error.
        for n in [*modes, *own]:
            M = [mttkrp(X, U, n).double() for X, U in zip(parts, factors, strict=True)]
            V = [normal_matrix(G, n) for G in grams]
            if n in modes:
                update = _joint(V, M, common, ridge)
            else:
                update = [solve(v, m, ridge) for v, m in zip(V, M, strict=True)]
            for s, U in enumerate(update):
                factors[s][n] = U.to(parts[s].dtype)
                grams[s][n] = U.mT @ U
        lost = total
        for m, v, U in zip(M, V, update, strict=True):
            lost += float((U * (U @ v - 2.0 * m)).sum())
        return [U for person in factors for U in person], max(lost, 0.0) / total

    return step


def _joint(
    V: Sequence[Tensor], M: Sequence[Tensor], common: int, ridge: float
) -> list[Tensor]:
    """Return the factors of a shared mode: equal first columns, free other ones.

    The free columns are eliminated from everybody's normal equations; what is left
    adds up to those of the common ones.
    """
    L, R = common, len(V[0])
    if L == R:
        joint = solve(sum(V[1:], V[0]), sum(M[1:], M[0]), ridge)
        return [joint] * len(V)
    left, right = torch.zeros_like(V[0][:L, :L]), torch.zeros_like(M[0][:, :L])
    for v, m in zip(V, M, strict=True):
        K = solve(v[L:, L:], v[:L, L:], ridge)
        left = left + v[:L, :L] - K @ v[L:, :L]
        right = right + m[:, :L] - m[:, L:] @ K.mT
    shared = solve(0.5 * (left + left.mT), right, ridge)
    return [
        torch.cat(
            [shared, solve(v[L:, L:], m[:, L:] - shared @ v[:L, L:], ridge)], dim=1
        )
        for v, m in zip(V, M, strict=True)
    ]


def _balanced(
    people: list[list[Tensor]], modes: Sequence[int], own: Sequence[int], common: int
) -> list[list[Tensor]]:
    """Return the same models with columns in common of norm one where shared."""
    out = []
    for factors in people:
        apart = [U[:, common:] for U in factors]
        balance_columns(apart)
        ours = [U[:, :common] for U in factors]
        for n in modes:
            size = ours[n].norm(dim=0)
            ours[n] = ours[n] / torch.where(size > 0, size, 1.0)
            ours[own[0]] = ours[own[0]] * size
        # Several own modes share the size among themselves.
        free = [ours[n] for n in own]
        balance_columns(free)
        for n, U in zip(own, free, strict=True):
            ours[n] = U
        out.append([torch.cat(pair, dim=1) for pair in zip(ours, apart, strict=True)])
    return out


def estimate(models: list[list[Tensor]]) -> Estimate:
    """Return what gives a part of a person's tensor, as the model has it."""
    return lambda s, part: rebuild([models[s][0][part], *models[s][1:]])


def signed(
    factors: list[Tensor], carrier: int, keep_order: bool
) -> tuple[Tensor, list[Tensor]]:
    """Return weights and unit factors as `canonical`, with signs in one mode."""
    turned = [factors[carrier], *factors[:carrier], *factors[carrier + 1 :]]
    weights, unit = canonical(turned)
    if keep_order:
        size = torch.stack([U.double().norm(dim=0) for U in turned]).prod(dim=0)
        back = size.argsort(descending=True, stable=True).argsort()
        weights, unit = weights[back], [U[:, back] for U in unit]
    first = unit.pop(0)
    unit.insert(carrier, first)
    return weights, unit
