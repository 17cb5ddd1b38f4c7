"""Classifiers and regressions of many related tasks that share a few directions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_number, check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._margin import LOSSES, Groups, Loss
from eegtensor.tensor._multitask_steps import (
    Problem,
    balanced,
    change,
    fit_rows,
    middle,
    objective_of,
    product_of_rows,
    start_rows,
    step_directions,
    step_rows,
)
from eegtensor.tensor._shapes import Random, check_rank, check_sweeps

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
    check_number("gamma", gamma, above=0.0)
    check_number("epsilon", epsilon, least=0.0)
    check_sweeps(max_iter, tol)
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
    problem = Problem(
        X, primal, kernel, levels, task, tasks, Loss(loss, y, gamma * weights, epsilon)
    )
    rows = start_rows(levels, R, random_state, X)
    theta = X.new_zeros(X.shape[1], R)
    biases = X.new_zeros(len(tasks))
    objective: list[float] = []
    n_iter, converged = 0, D == 0
    while not converged and n_iter < max_iter:
        n_iter += 1
        before = list(rows)
        theta, biases = step_directions(problem, theta, rows, biases)
        objective.append(objective_of(problem, theta, rows, biases))
        Z = X @ theta
        for d in range(D):
            rows[d], biases = step_rows(problem, Z, rows, d, biases)
            objective.append(objective_of(problem, theta, rows, biases))
        theta, rows = balanced(problem, theta, rows)
        objective.append(objective_of(problem, theta, rows, biases))
        moved = sum(change(a, b) for a, b in zip(before, rows, strict=True))
        converged = moved < tol
    theta, biases = step_directions(problem, theta, rows, biases)
    objective.append(objective_of(problem, theta, rows, biases))
    u = product_of_rows(rows, levels, R)
    f = ((X @ theta) * u).sum(dim=1) + biases[task]
    active, target = problem.loss.active(f)
    squares = torch.where(active, f - target, 0.0) ** 2
    return Multitask(
        theta,
        tuple(rows),
        biases,
        tasks,
        *middle(problem, X @ theta, rows, biases),
        (weights * squares).sum() / weights.sum(),
        tuple(objective),
        n_iter,
        converged,
    )


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
    check_number("gamma", gamma, above=0.0)
    check_number("epsilon", epsilon, least=0.0)
    weights = _weights(weights, y)
    H, y = H.double(), y.double()
    n_tasks = int(task.max()) + 1
    of_task = torch.zeros(n_tasks, dtype=torch.int64, device=H.device)
    of_task[task] = group
    problem = Loss(loss, y, gamma * weights, epsilon)
    groups = Groups(len(prior), group, of_task)
    biases = H.new_zeros(n_tasks)
    return fit_rows(H, problem, groups, task, prior, biases, free=free_biases)


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
    for name, given in (("y", y), ("levels", levels)):
        if not isinstance(given, Tensor):
            fail(f"{name} is {type(given).__name__}", fix="give an array of numbers")
    if levels.is_floating_point():
        fail(f"levels has dtype {levels.dtype}", fix="give whole numbers from 0 up")
    if y.shape != (n,) or levels.ndim != 2 or len(levels) != n:
        fail(
            f"y has shape {tuple(y.shape)} and levels {tuple(levels.shape)} for {n} "
            "trials",
            fix="give one target and one row of levels per trial",
        )
    weights = _weights(weights, y)
    X, y = X.double(), y.double()
    if not bool(X.isfinite().all() & y.isfinite().all()):
        fail("X or y hold NaN or infinity", fix="leave these trials out")
    if not bool(weights.any()):
        fail("weights are zero for all trials", fix="give some trials a weight")
    if loss == "hinge" and not bool((y.abs() == 1.0).all()):
        fail("The hinge loss needs y of -1 and 1", fix="code the classes so")
    levels = levels.to(X.device, torch.int64)
    if levels.numel() and int(levels.min()) < 0:
        fail("levels hold negative numbers", fix="count from 0 up")
    return X, y, levels, weights


def _weights(weights: Any, y: Tensor) -> Tensor:
    """Return c of each trial, ones for None, or raise."""
    if weights is None:
        return torch.ones_like(y, dtype=torch.float64)
    if not isinstance(weights, Tensor) or weights.shape != y.shape:
        fail(
            f"weights has shape {tuple(np.shape(weights))} for {len(y)} trials",
            fix="give an array of one number per trial",
        )
    weights = weights.to(y.device, torch.float64)
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        fail("weights are negative or not finite", fix="give numbers from 0 up")
    return weights
