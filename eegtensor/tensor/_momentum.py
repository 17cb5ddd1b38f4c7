"""Alternating least squares with momentum: fewer sweeps to the same optimum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

Step = Callable[[list[Tensor]], tuple[list[Tensor], float]]


def settle(
    step: Step,
    state: list[Tensor],
    *,
    max_iter: int,
    tol: float,
    error: float = math.inf,
) -> tuple[list[Tensor], float, int]:
    """Repeat a step that cannot raise the error until the error settles.

    Each step starts a little beyond the last state, along the last move; where
    that raises the error the move is undone and shortened.

    Parameters
    ----------
    step : callable
        ``state -> (state after, squared relative error there)``.
    state : list of Tensor
    max_iter : int
        At least one step is made.
    tol : float
        It stops when two steps in turn lower the relative error by less.
    error : float
        Squared relative error of the first state, where it is known.

    Returns
    -------
    state : list of Tensor
    error : float
        Squared relative error.
    n_iter : int

    References
    ----------
    A. M. S. Ang and N. Gillis, "Accelerating nonnegative matrix factorization
    algorithms using extrapolation", Neural Comput., 2019 (the schedule).
    """
    beta, bound, small, n_iter = 0.5, 1.0, 0, 0
    point = state
    while n_iter < max(1, max_iter):
        n_iter += 1
        after, error_after = step(point)
        if error_after > error and point is not state:
            point, bound, beta = state, beta, beta / 1.5
            continue
        gain = error**0.5 - error_after**0.5
        point = [b + beta * (b - a) for a, b in zip(state, after, strict=True)]
        state, error = after, error_after
        bound = min(1.0, bound * 1.01)
        beta = min(bound, beta * 1.05)
        small = small + 1 if gain < tol else 0
        if small == 2 or error == 0.0:
            break
    return state, error, n_iter


def compete(
    step: Step, starts: Sequence[list[Tensor]], *, max_iter: int, tol: float
) -> tuple[list[Tensor], float, int, tuple[float, ...]]:
    """Settle from the best of several starts; the worse half leaves in each round.

    Parameters
    ----------
    step, max_iter, tol
        As in `settle`. The first round has a fortieth of `max_iter`, at least 5
        sweeps; each round has twice the sweeps of the one before.
    starts : sequence of list of Tensor

    Returns
    -------
    state, error, n_iter
        As `settle` of the winner's last round, `n_iter` of all its rounds.
    fits : tuple of float
        1 - relative error of each start when it left.
    """
    running = {k: (list(state), float("inf"), 0) for k, state in enumerate(starts)}
    fits = [0.0] * len(starts)
    sweeps = max(5, max_iter // 40)
    while True:
        last = len(running) == 1
        for k, (state, _, before) in running.items():
            limit = max(1, max_iter - before) if last else min(sweeps, max_iter)
            state, error, n_iter = settle(step, state, max_iter=limit, tol=tol)
            running[k] = state, error, before + n_iter
            fits[k] = 1.0 - error**0.5
        if last:
            (found,) = running.values()
            return *found, tuple(fits)
        order = sorted(running, key=lambda k: running[k][1])
        running = {k: running[k] for k in order[: (len(order) + 1) // 2]}
        sweeps *= 2
