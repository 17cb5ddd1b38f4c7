"""Classifiers and regressions of many related tasks that share a few directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._margin import (
    LOSSES,
    Fitted,
    Groups,
    Loss,
    descend,
    dual_with_biases,
    ridge_with_biases,
    settle_biases,
    task_means,
)
from eegtensor.tensor._shapes import Random, as_random, check_rank

KERNELS = ("linear", "precomputed")


class Multitask(NamedTuple):
    """f(x) = <u_t, L' phi(x)> + b_t, u_t the Hadamard product of the task's rows.

    Attributes
    ----------
    directions : array, shape (n_features, R) or (n_trials, R)
        L, or its coefficients in the trials where the kernel was precomputed:
        L' phi(x) is ``X @ directions`` or ``K(x, trials) @ directions``.
    rows : tuple of array, shape (n_levels, R)
        U^d of each mode.
    biases : array, shape (n_tasks,)
    tasks : array of int, shape (n_tasks, D)
        Levels of the tasks that have trials, sorted.
    centre : array, shape (R,)
    offset : array, shape ()
        For a task without trials: f(x) = <u, L' phi(x) - centre> + offset, the
        tasks' mean of L' phi and of f at their means.
    offset_variance : array, shape ()
        Of f at the tasks' means, over tasks; 0 where there is one.
    error : array, shape ()
        Mean of e^2, weighted by c.
    objective : tuple of float
        After every half step, falling.
    n_iter : int
        Sweeps.
    converged : bool
    """

    directions: Array
    rows: tuple[Array, ...]
    biases: Array
    tasks: Array
    centre: Array
    offset: Array
    offset_variance: Array
    error: Array
    objective: tuple[float, ...]
    n_iter: int
    converged: bool


class _Problem(NamedTuple):
    """What no step changes."""

    X: Tensor
    primal: bool
    kernel: str
    levels: Tensor
    task: Tensor
    tasks: Tensor
    loss: Loss


@bridged
def multitask(
    X: Array,
    y: Array,
    levels: Array,
    rank: int = 2,
    *,
    kernel: str = "linear",
    loss: str = "squared",
    gamma: float = 1.0,
    epsilon: float = 0.1,
    weights: Array | None = None,
    solver: str = "auto",
    max_iter: int = 50,
    tol: float = 1e-3,
    random_state: Random = 0,
) -> Multitask:
    """Fit the tasks of a grid by alternating exact steps.

    Minimises 1/2 |L|^2 + 1/2 sum_d |U^d|^2 + gamma/2 sum_i c_i e_i^2 over L with the
    biases, then over each U^d with the biases. Between sweeps the columns of L and
    U^d get equal norms, which the product leaves open and which costs least.

    Parameters
    ----------
    X : array or tensor, shape (n_trials, n_features) or (n_trials, n_trials)
        Features, or the kernel matrix of the trials.
    y : array or tensor, shape (n_trials,)
        -1 and 1 for a classifier, numbers for a regression.
    levels : array or tensor of int, shape (n_trials, D)
        Level of each mode of the task grid, say subject and session, from 0 up.
        Combinations may lack; with D = 0 there is one task.
    rank : int
        Shared directions R.
    kernel : "linear" | "precomputed"
    loss : "squared" | "hinge" | "insensitive"
        e = y - f (a least-squares SVM), max(0, 1 - y f), or max(0, |y - f| - epsilon).
    gamma : float
        Weight of the loss.
    epsilon : float
    weights : array or tensor, shape (n_trials,) | None
        c, from 0 up; the row of a level without weight is zero.
    solver : "auto" | "primal" | "dual"
        Of the step for L: n_features R unknowns, or n_trials; the fewer.
    max_iter : int
    tol : float
        Relative change of all U^d in a sweep that ends the sweeps.
    random_state : int | numpy.random.Generator | torch.Generator | None
        U^d starts with uniform numbers.

    Returns
    -------
    Multitask

    Raises
    ------
    EEGTensorError
        If shapes do not fit, or values are not finite.

    References
    ----------
    J. Liu et al., "Tensorized LSSVMs for multitask regression", ICASSP, 2023, and
    "TSVM-MTL" of the same authors. Their second half step, a least-squares SVM
    with the same gamma, is the exact minimum over U^d, so the objective falls.
    """
    R = check_rank(rank)
    check_option("loss", loss, LOSSES)
    check_option("kernel", kernel, KERNELS)
    check_option("solver", solver, ("auto", "primal", "dual"))
    X, y, levels, weights = _checked(X, y, levels, weights, kernel, loss)
    if not gamma > 0 or not epsilon >= 0:
        fail(
            f"gamma={gamma!r}, epsilon={epsilon!r}",
            fix="give gamma above 0 and epsilon from 0 up",
        )
    D = levels.shape[1]
    if D == 0:
        # Columns of one task are copies of each other.
        R = 1
    small = kernel == "linear" and X.shape[1] * R <= len(X)
    primal = solver == "primal" or (solver == "auto" and small)
    if primal and kernel == "precomputed":
        fail("solver='primal' needs features", fix="set solver='auto'")
    if D:
        tasks, task = torch.unique(levels, dim=0, return_inverse=True)
    else:
        tasks, task = levels[:1], torch.zeros_like(y, dtype=torch.int64)
    problem = _Problem(
        X, primal, kernel, levels, task, tasks, Loss(loss, y, gamma * weights, epsilon)
    )
    rows = _start(levels, R, random_state, X)
    theta = X.new_zeros(X.shape[1], R)
    biases = X.new_zeros(len(tasks))
    objective: list[float] = []
    n_iter, converged = 0, D == 0
    while not converged and n_iter < max_iter:
        n_iter += 1
        before = list(rows)
        theta, biases = _step_directions(problem, theta, rows, biases)
        objective.append(_objective(problem, theta, rows, biases))
        Z = X @ theta
        for d in range(D):
            rows[d], biases = _step_rows(problem, Z, rows, d, biases)
            objective.append(_objective(problem, theta, rows, biases))
        theta, rows = _balanced(problem, theta, rows)
        objective.append(_objective(problem, theta, rows, biases))
        moved = sum(_change(a, b) for a, b in zip(before, rows, strict=True))
        converged = moved < tol
    theta, biases = _step_directions(problem, theta, rows, biases)
    objective.append(_objective(problem, theta, rows, biases))
    u = product_of_rows(rows, levels, R)
    f = ((X @ theta) * u).sum(dim=1) + biases[task]
    active, target = problem.loss.active(f)
    squares = torch.where(active, f - target, 0.0) ** 2
    return Multitask(
        theta,
        tuple(rows),
        biases,
        tasks,
        *_middle(problem, X @ theta, rows, biases),
        (weights * squares).sum() / weights.sum(),
        tuple(objective),
        n_iter,
        converged,
    )


def product_of_rows(rows: Sequence[Tensor], levels: Tensor, rank: int) -> Tensor:
    """Return u_t of each row of `levels` (m, D), shape (m, R)."""
    u = torch.ones(len(levels), rank, dtype=torch.float64, device=levels.device)
    for d, U in enumerate(rows):
        u = u * U[levels[:, d]]
    return u


@bridged
def few_shot_rows(
    H: Array,
    y: Array,
    group: Array,
    task: Array,
    prior: Array,
    *,
    loss: str = "squared",
    gamma: float = 1.0,
    epsilon: float = 0.1,
    weights: Array | None = None,
    free_biases: bool = True,
) -> tuple[Array, Array]:
    """Fit the rows of new levels of one mode, R numbers each, and their tasks' biases.

    The step for U^d with everything else as it is; a row is drawn to a prior, where
    `multitask` draws to zero.

    Parameters
    ----------
    H : array or tensor, shape (n_trials, R)
        L' phi(x) times the rows of the other modes.
    y : array or tensor, shape (n_trials,)
    group : array or tensor of int, shape (n_trials,)
        Which new level, from 0 up.
    task : array or tensor of int, shape (n_trials,)
        Which new task, from 0 up; a task is of one level.
    prior : array or tensor, shape (n_levels, R)
    loss, gamma, epsilon, weights
        As in `multitask`.
    free_biases : bool
        Whether tasks have biases; zero if not.

    Returns
    -------
    rows : array, shape (n_levels, R)
    biases : array, shape (n_tasks,)
    """
    check_option("loss", loss, LOSSES)
    weights = torch.ones_like(y, dtype=torch.float64) if weights is None else weights
    H, y = H.double(), y.double()
    n_tasks = int(task.max()) + 1
    of_task = torch.zeros(n_tasks, dtype=torch.int64, device=H.device)
    of_task[task] = group
    problem = Loss(loss, y, gamma * weights.double(), epsilon)
    groups = Groups(len(prior), group, of_task)
    biases = H.new_zeros(n_tasks)
    return _rows(H, problem, groups, task, prior, biases, free=free_biases)


def _checked(
    X: Any, y: Any, levels: Any, weights: Any, kernel: str, loss: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    square = X.ndim == 2 and X.shape[0] == X.shape[1]
    if X.ndim != 2 or 0 in X.shape or (kernel == "precomputed" and not square):
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give one row of features per trial, or a square kernel matrix",
        )
    n = len(X)
    if y.shape != (n,) or levels.ndim != 2 or len(levels) != n:
        fail(
            f"y has shape {tuple(y.shape)} and levels {tuple(levels.shape)} for {n} "
            "trials",
            fix="give one target and one row of levels per trial",
        )
    weights = torch.ones_like(y, dtype=torch.float64) if weights is None else weights
    X, y, weights = X.double(), y.double(), weights.to(X.device, torch.float64)
    finite = X.isfinite().all() & y.isfinite().all() & weights.isfinite().all()
    if not bool(finite) or weights.shape != (n,) or not bool((weights >= 0).all()):
        fail(
            "X, y or weights hold NaN, infinity or negative weights",
            fix="leave these trials out",
        )
    if loss == "hinge" and not bool((y.abs() == 1.0).all()):
        fail("The hinge loss needs y of -1 and 1", fix="code the classes so")
    levels = levels.to(X.device, torch.int64)
    if levels.numel() and int(levels.min()) < 0:
        fail("levels hold negative numbers", fix="count from 0 up")
    return X, y, levels, weights


def _start(levels: Tensor, R: int, random_state: Random, X: Tensor) -> list[Tensor]:
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


def _squared_norms(problem: _Problem, theta: Tensor, Z: Tensor) -> Tensor:
    """Return the squared norm of each column of L, (R,)."""
    expanded = problem.kernel == "precomputed"
    return (theta * (Z if expanded else theta)).sum(dim=0).clamp_min(0.0)


def _step_directions(
    problem: _Problem, theta: Tensor, rows: list[Tensor], biases: Tensor
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
        penalty = _squared_norms(problem, L, Z).sum()[None]
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


def _step_rows(
    problem: _Problem, Z: Tensor, rows: list[Tensor], d: int, biases: Tensor
) -> tuple[Tensor, Tensor]:
    """Return U^d and the biases at their minimum, all else fixed."""
    others = [U if k != d else torch.ones_like(U) for k, U in enumerate(rows)]
    H = Z * product_of_rows(others, problem.levels, Z.shape[1])
    groups = Groups(len(rows[d]), problem.levels[:, d], problem.tasks[:, d])
    prior = torch.zeros_like(rows[d])
    return _rows(H, problem.loss, groups, problem.task, prior, biases, rows[d])


def _rows(
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


def _balanced(
    problem: _Problem, theta: Tensor, rows: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the same products with equal norms of each component's columns."""
    norms = [_squared_norms(problem, theta, problem.X @ theta).sqrt()]
    norms += [U.norm(dim=0) for U in rows]
    stacked = torch.stack(norms)
    product = stacked.prod(dim=0)
    target = product ** (1.0 / len(norms))
    # A component one factor of which is zero is zero: let the others be, too.
    scale = torch.where(product > 0, target / stacked, 0.0)
    return theta * scale[0], [U * s for U, s in zip(rows, scale[1:], strict=True)]


def _objective(
    problem: _Problem, theta: Tensor, rows: list[Tensor], biases: Tensor
) -> float:
    Z = problem.X @ theta
    u = product_of_rows(rows, problem.levels, theta.shape[1])
    f = (Z * u).sum(dim=1) + biases[problem.task]
    active, target = problem.loss.active(f)
    errors = problem.loss.weights * torch.where(active, f - target, 0.0) ** 2
    penalty = _squared_norms(problem, theta, Z).sum()
    for U in rows:
        penalty = penalty + U.square().sum()
    return float(0.5 * (penalty + errors.sum()))


def _change(before: Tensor, after: Tensor) -> float:
    size = float(before.norm())
    return float((after - before).norm()) / size if size > 0 else 0.0


def _middle(
    problem: _Problem, Z: Tensor, rows: list[Tensor], biases: Tensor
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
