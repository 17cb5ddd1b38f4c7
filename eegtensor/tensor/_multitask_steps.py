"""Exact steps of a multitask fit: for the directions, for the rows of a mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.tensor._margin import (
    Fitted,
    Groups,
    Loss,
    descend,
    dual_with_biases,
    ridge_with_biases,
    settle_biases,
    task_means,
)
from eegtensor.tensor._shapes import Random, as_random


class Problem(NamedTuple):
    """What no step changes."""

    X: Tensor
    primal: bool
    kernel: str
    levels: Tensor
    task: Tensor
    tasks: Tensor
    loss: Loss


def product_of_rows(rows: Sequence[Tensor], levels: Tensor, rank: int) -> Tensor:
    """Return u_t of each row of `levels` (m, D), shape (m, R)."""
    u = torch.ones(len(levels), rank, dtype=torch.float64, device=levels.device)
    for d, U in enumerate(rows):
        u = u * U[levels[:, d]]
    return u


def start_rows(levels: Tensor, R: int, random_state: Random, X: Tensor) -> list[Tensor]:
    """Return uniform numbers for each U^d."""
    random = as_random(random_state)
    rows = []
    for d in range(levels.shape[1]):
        shape = (int(levels[:, d].max()) + 1, R)
        if isinstance(random, torch.Generator):
            U = torch.rand(
                shape, generator=random, device=random.device, dtype=torch.float64
            )
        else:
            U = torch.from_numpy(random.uniform(size=shape))
        rows.append(U.to(X))
    return rows


def squared_norms(problem: Problem, theta: Tensor, Z: Tensor) -> Tensor:
    """Return the squared norm of each column of L, (R,)."""
    expanded = problem.kernel == "precomputed"
    return (theta * (Z if expanded else theta)).sum(dim=0).clamp_min(0.0)


def step_directions(
    problem: Problem, theta: Tensor, rows: list[Tensor], biases: Tensor
) -> tuple[Tensor, Tensor]:
    """Return L and the biases at their minimum, U fixed."""
    X, loss, task = problem.X, problem.loss, problem.task
    m, R = theta.shape
    u = product_of_rows(rows, problem.levels, R)
    zeros = torch.zeros_like(task)
    groups = Groups(1, zeros, torch.zeros_like(biases, dtype=torch.int64))

    def look(flat: Tensor, b: Tensor) -> Fitted:
        L = flat.view(m, R)
        Z = X @ L
        penalty = squared_norms(problem, L, Z).sum()[None]
        return Fitted(flat, b, (Z * u).sum(dim=1) + b[task], penalty)

    if problem.primal:
        G = (X[:, :, None] * u[:, None, :]).flatten(1)
        prior = X.new_zeros(1, m * R)

        def solve(w: Tensor, target: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return ridge_with_biases(G, target, w, task, groups, b, prior)

    else:
        K = (X if problem.kernel == "precomputed" else X @ X.mT) * (u @ u.mT)

        def solve(w: Tensor, target: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            a, b = dual_with_biases(K, target, w, task, b)
            L = a[:, None] * u
            L = L if problem.kernel == "precomputed" else X.mT @ L
            return L.reshape(1, -1), b

    start = look(theta.reshape(1, -1), biases)
    found = settle_biases(descend(solve, look, start, loss, groups), loss, task)
    return found.theta.view(m, R), found.biases


def step_rows(
    problem: Problem, Z: Tensor, rows: list[Tensor], d: int, biases: Tensor
) -> tuple[Tensor, Tensor]:
    """Return U^d and the biases at their minimum, all else fixed."""
    others = [U if k != d else torch.ones_like(U) for k, U in enumerate(rows)]
    H = Z * product_of_rows(others, problem.levels, Z.shape[1])
    groups = Groups(len(rows[d]), problem.levels[:, d], problem.tasks[:, d])
    prior = torch.zeros_like(rows[d])
    return fit_rows(H, problem.loss, groups, problem.task, prior, biases, rows[d])


def fit_rows(
    H: Tensor,
    loss: Loss,
    groups: Groups,
    task: Tensor,
    prior: Tensor,
    biases: Tensor,
    start: Tensor | None = None,
    *,
    free: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return rows, drawn to a prior, and biases at their minimum."""

    def look(U: Tensor, b: Tensor) -> Fitted:
        f = (H * U[groups.of_trial]).sum(dim=1) + b[task]
        return Fitted(U, b, f, (U - prior).square().sum(dim=1))

    def solve(w: Tensor, target: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return ridge_with_biases(H, target, w, task, groups, b, prior, free=free)

    first = look(prior if start is None else start, biases)
    found = descend(solve, look, first, loss, groups)
    if free:
        found = settle_biases(found, loss, task)
    return found.theta, found.biases


def balanced(
    problem: Problem, theta: Tensor, rows: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the same products with equal norms of each component's columns."""
    norms = [squared_norms(problem, theta, problem.X @ theta).sqrt()]
    norms += [U.norm(dim=0) for U in rows]
    stacked = torch.stack(norms)
    product = stacked.prod(dim=0)
    target = product ** (1.0 / len(norms))
    # A component one factor of which is zero is zero: let the others be, too.
    scale = torch.where(product > 0, target / stacked, 0.0)
    return theta * scale[0], [U * s for U, s in zip(rows, scale[1:], strict=True)]


def objective_of(
    problem: Problem, theta: Tensor, rows: list[Tensor], biases: Tensor
) -> float:
    """Return what every half step lowers."""
    Z = problem.X @ theta
    u = product_of_rows(rows, problem.levels, theta.shape[1])
    f = (Z * u).sum(dim=1) + biases[problem.task]
    active, target = problem.loss.active(f)
    errors = problem.loss.weights * torch.where(active, f - target, 0.0) ** 2
    penalty = squared_norms(problem, theta, Z).sum()
    for U in rows:
        penalty = penalty + U.square().sum()
    return float(0.5 * (penalty + errors.sum()))


def middle(
    problem: Problem, Z: Tensor, rows: list[Tensor], biases: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean over tasks of L' phi, mean and variance of f at task means."""
    n_tasks = len(biases)
    means = task_means(Z, problem.loss.weights, problem.task, n_tasks)
    values = (means * product_of_rows(rows, problem.tasks, Z.shape[1])).sum(1) + biases
    # A task that has one target alone says nothing of where a boundary lies.
    y = problem.loss.y
    largest = y.new_full((n_tasks,), -torch.inf)
    smallest = -largest
    largest = largest.scatter_reduce(0, problem.task, y, "amax")
    smallest = smallest.scatter_reduce(0, problem.task, y, "amin")
    present = y.new_zeros(n_tasks).index_add_(0, problem.task, problem.loss.weights)
    varied = (largest > smallest) & (present > 0)
    if not bool(varied.any()):
        varied = torch.ones_like(varied)
    values = values[varied]
    spread = values.var() if len(values) > 1 else values.new_zeros(())
    return means[varied].mean(dim=0), values.mean(), spread


def change(before: Tensor, after: Tensor) -> float:
    """Return the relative change."""
    size = float(before.norm())
    return float((after - before).norm()) / size if size > 0 else 0.0
