"""Several starts of alternating least squares as one batch, the worse ones leaving."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Tensors with the starts as first axis -> those after a sweep, squared relative errors.
BatchStep = Callable[[list[Tensor]], tuple[list[Tensor], Tensor]]


def race(
    step: BatchStep, state: list[Tensor], *, max_iter: int, tol: float
) -> tuple[list[Tensor], float, int, tuple[float, ...]]:
    """Repeat a step on all starts at once until the best one settles.

    As `settle`, with each start's own momentum. The worse half leaves after a
    fortieth of `max_iter` (at least 5 sweeps), and again after twice as many each
    time, or as soon as all have settled.

    Parameters
    ----------
    step : callable
    state : list of Tensor, shape (n_starts, ...)
    max_iter : int
        At least one step is made.
    tol : float
        A start settles when two sweeps in turn lower its relative error by less.

    Returns
    -------
    state : list of Tensor, shape (1, ...)
    error : float
        Squared relative error.
    n_iter : int
    fits : tuple of float
        1 - relative error of each start when it left.
    """
    n = len(state[0])
    fits, running = np.zeros(n), np.arange(n)
    error, beta, bound = np.full(n, np.inf), np.full(n, 0.5), np.ones(n)
    small, stretched = np.zeros(n, int), np.zeros(n, bool)
    point, n_iter, gap = state, 0, max(5, max_iter // 40)
    leave = gap
    while True:
        after, found = step(point)
        n_iter += 1
        new = found.detach().cpu().numpy()
        # A move beyond the last state that raised the error is undone and shortened.
        undone = stretched & (new > error)
        gain = np.sqrt(error) - np.sqrt(new)
        small = np.where(undone, small, np.where(gain < tol, small + 1, 0))
        error = np.where(undone, error, new)
        point = _between(state, after, np.where(undone, 0.0, 1.0 + beta))
        state = _between(state, after, np.where(undone, 0.0, 1.0))
        bound = np.where(undone, beta, np.minimum(1.0, 1.01 * bound))
        beta = np.where(undone, beta / 1.5, np.minimum(bound, 1.05 * beta))
        stretched = ~undone
        fits[running] = 1.0 - np.sqrt(error)
        last = n_iter >= max_iter or bool(((small >= 2) | (error == 0.0)).all())
        if last or (n_iter == leave and len(running) > 1):
            kept = error.argsort(kind="stable")[: 1 if last else (len(error) + 1) // 2]
            error, beta, bound = error[kept], beta[kept], bound[kept]
            small, stretched, running = small[kept], stretched[kept], running[kept]
            index = torch.from_numpy(kept).to(state[0].device)
            state, point = ([U[index] for U in parts] for parts in (state, point))
            gap *= 2
            leave += gap
        if last:
            return state, float(error[0]), n_iter, tuple(fits.tolist())


def _between(a: list[Tensor], b: list[Tensor], weight: NDArray) -> list[Tensor]:
    """Return a + weight (b - a), with a weight for each start."""
    w = torch.from_numpy(weight).to(a[0])
    return [
        torch.lerp(U, V, w.view(-1, *[1] * (U.ndim - 1)))
        for U, V in zip(a, b, strict=True)
    ]
