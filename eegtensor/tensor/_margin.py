"""Squared losses with a margin, minimised by Newton steps that never go uphill."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LOSSES = ("squared", "hinge", "insensitive")
# A step that is halved so often moves nothing any more.
HALVINGS = 30


class Fitted(NamedTuple):
    """Parameters of one or several independent groups, and what they predict.

    Attributes
    ----------
    theta : Tensor, shape (n_groups, n_parameters)
    biases : Tensor, shape (n_tasks,)
    predicted : Tensor, shape (n_trials,)
    penalty : Tensor, shape (n_groups,)
        Squared norm of the parameters.
    """

    theta: Tensor
    biases: Tensor
    predicted: Tensor
    penalty: Tensor


class Groups(NamedTuple):
    """Which group each trial and each task belongs to."""

    n: int
    of_trial: Tensor
    of_task: Tensor


class Loss(NamedTuple):
    """gamma/2 sum c e^2, e the residual of those trials that violate their margin.

    Attributes
    ----------
    kind : str
        "squared": all trials count. "hinge": those with y f < 1.
        "insensitive": those with |y - f| > epsilon, e the excess.
    y : Tensor, shape (n_trials,)
    weights : Tensor, shape (n_trials,)
        gamma c.
    epsilon : float
    """

    kind: str
    y: Tensor
    weights: Tensor
    epsilon: float

    def active(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Return which trials count, and the value each is drawn to."""
        if self.kind == "squared":
            return torch.ones_like(f, dtype=torch.bool), self.y
        if self.kind == "hinge":
            return self.y * f < 1.0, self.y
        rest = self.y - f
        return rest.abs() > self.epsilon, self.y - self.epsilon * rest.sign()

    def value(self, fitted: Fitted, groups: Groups) -> Tensor:
        """Return penalty / 2 + loss of every group."""
        active, target = self.active(fitted.predicted)
        each = self.weights * torch.where(active, fitted.predicted - target, 0.0) ** 2
        total = fitted.penalty.new_zeros(groups.n).index_add_(0, groups.of_trial, each)
        return 0.5 * (fitted.penalty + total)


def descend(
    solve: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    look: Callable[[Tensor, Tensor], Fitted],
    start: Fitted,
    loss: Loss,
    groups: Groups,
    *,
    max_iter: int = 20,
) -> Fitted:
    """Return parameters no group of which is worse than at the start.

    Parameters
    ----------
    solve : callable
        ``(weights, targets, biases) -> (theta, biases)``: least squares; a task
        without weight keeps its bias.
    look : callable
        ``(theta, biases) -> Fitted``.
    start : Fitted
    loss : Loss
    groups : Groups
    max_iter : int
        Newton steps; one solves the squared loss.

    References
    ----------
    O. Chapelle, "Training a support vector machine in the primal", Neural
    Comput., 2007.
    """
    here, value = start, loss.value(start, groups)
    for _ in range(max_iter):
        active, target = loss.active(here.predicted)
        theta, biases = solve(loss.weights * active, target, here.biases)
        there = look(theta, biases)
        if loss.kind == "squared":
            return there
        step = torch.ones_like(value)
        worse = loss.value(there, groups) > value
        for halving in range(HALVINGS):
            if not bool(worse.any()):
                break
            # Rounding alone is left of the gain where the last one fails: stay there.
            shorter = step / 2.0 if halving < HALVINGS - 1 else torch.zeros_like(step)
            step = torch.where(worse, shorter, step)
            there = look(
                torch.lerp(here.theta, theta, step[:, None]),
                torch.lerp(here.biases, biases, step[groups.of_task]),
            )
            worse = loss.value(there, groups) > value
        changed = loss.active(there.predicted)[0] != active
        shortened = (step < 1.0) & (step > 0.0)
        here, value = there, loss.value(there, groups)
        # On the same side of all margins the last system was the last word.
        if not bool((changed & (step > 0.0)[groups.of_trial]).any() | shortened.any()):
            break
    return here


def settle_biases(fitted: Fitted, loss: Loss, task: Tensor) -> Fitted:
    """Return the biases that nothing fixes in the middle of where they may lie.

    Where no trial of a task violates its margin, its bias can move without a change
    of the objective until one does.
    """
    if loss.kind == "squared":
        return fitted
    f, y, n_tasks = fitted.predicted, loss.y, len(fitted.biases)
    if loss.kind == "hinge":
        low = torch.where(y > 0, 1.0 - f, -torch.inf)
        high = torch.where(y < 0, -1.0 - f, torch.inf)
    else:
        low, high = y - f - loss.epsilon, y - f + loss.epsilon
    ends = f.new_full((n_tasks,), torch.inf)
    lowest = (-ends).scatter_reduce(0, task, low, "amax")
    highest = ends.scatter_reduce(0, task, high, "amin")
    middle = torch.where(
        lowest.isfinite() & highest.isfinite(),
        (lowest + highest) / 2.0,
        torch.where(lowest.isfinite(), lowest, highest),
    )
    active = (loss.active(f)[0] & (loss.weights > 0)).to(f)
    free = f.new_zeros(n_tasks).index_add_(0, task, active) == 0
    shift = torch.where(free & middle.isfinite(), middle, 0.0)
    return fitted._replace(biases=fitted.biases + shift, predicted=f + shift[task])


def task_means(values: Tensor, weights: Tensor, task: Tensor, n_tasks: int) -> Tensor:
    """Return weighted means per task, zero for a task without weight.

    Parameters
    ----------
    values : Tensor, shape (n_trials, k)
    weights : Tensor, shape (n_trials,)
    task : Tensor of int, shape (n_trials,)
    n_tasks : int

    Returns
    -------
    means : Tensor, shape (n_tasks, k)
    """
    total = weights.new_zeros(n_tasks).index_add_(0, task, weights)
    sums = values.new_zeros(n_tasks, values.shape[1])
    sums.index_add_(0, task, weights[:, None] * values)
    return sums / torch.where(total > 0, total, 1.0)[:, None]


def ridge_with_biases(
    G: Tensor,
    target: Tensor,
    weights: Tensor,
    task: Tensor,
    groups: Groups,
    biases: Tensor,
    prior: Tensor,
    *,
    free: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return argmin 1/2 |theta - prior|^2 + 1/2 sum w (target - G theta - b)^2.

    A ridge for every group, a bias for every task, which centring within tasks
    takes out of the system.

    Parameters
    ----------
    G : Tensor, shape (n_trials, k)
    target, weights : Tensor, shape (n_trials,)
    task : Tensor of int, shape (n_trials,)
    groups : Groups
    biases : Tensor, shape (n_tasks,)
        Kept where a task has no weight.
    prior : Tensor, shape (n_groups, k)
    free : bool
        Whether there are biases at all: all are kept where not.

    Returns
    -------
    theta : Tensor, shape (n_groups, k)
    biases : Tensor, shape (n_tasks,)
    """
    k, n_tasks = G.shape[1], len(biases)
    joined = torch.cat([G, target[:, None]], dim=1)
    means = task_means(joined, weights, task, n_tasks)
    if not free:
        means = torch.zeros_like(means)
    centred = joined - means[task]
    Gc, yc = centred[:, :k], centred[:, k]
    weighted = weights[:, None] * Gc
    if groups.n == 1:
        N, right = (weighted.mT @ Gc)[None], (weighted.mT @ yc)[None]
    else:
        outer = weighted[:, :, None] * Gc[:, None, :]
        N = G.new_zeros(groups.n, k, k).index_add_(0, groups.of_trial, outer)
        right = G.new_zeros(groups.n, k)
        right.index_add_(0, groups.of_trial, weighted * yc[:, None])
    N.diagonal(dim1=-2, dim2=-1).add_(1.0)
    L = torch.linalg.cholesky(N)
    theta = torch.cholesky_solve((right + prior)[..., None], L)[..., 0]
    own = means[:, k] - (means[:, :k] * theta[groups.of_task]).sum(dim=1)
    present = weights.new_zeros(n_tasks).index_add_(0, task, weights) > 0
    return theta, torch.where(present, own, biases) if free else biases


def dual_with_biases(
    K: Tensor, target: Tensor, weights: Tensor, task: Tensor, biases: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the coefficients and biases of the same ridge in terms of a kernel.

    Solves [[K + 1/w, A], [A', 0]] [a; b] = [target; 0], A the trials' tasks, by the
    Cholesky factor of its first block and that of the Schur complement.

    Parameters
    ----------
    K : Tensor, shape (n_trials, n_trials)
    target, weights, task, biases
        As in `ridge_with_biases`.

    Returns
    -------
    a : Tensor, shape (n_trials,)
        Zero where the weight is.
    biases : Tensor, shape (n_tasks,)
    """
    n_tasks = len(biases)
    used = weights.nonzero()[:, 0]
    H = K[used][:, used]
    H.diagonal().add_(1.0 / weights[used])
    A = torch.nn.functional.one_hot(task[used], n_tasks).to(K)
    right = torch.cat([target[used, None], A], dim=1)
    solved = torch.cholesky_solve(right, torch.linalg.cholesky(H))
    schur, pull = A.mT @ solved[:, 1:], A.mT @ solved[:, 0]
    absent = A.sum(dim=0) == 0
    schur.diagonal().add_(absent.to(K))
    pull = torch.where(absent, biases, pull)
    b = torch.cholesky_solve(pull[:, None], torch.linalg.cholesky(schur))
    a = torch.zeros_like(target)
    a[used] = solved[:, 0] - (solved[:, 1:] @ b)[:, 0]
    return a, b[:, 0]
