"""Slow drift: what moves over longer times than a model of delays can tell.

Electrodes that drift for themselves, recorded without a high-pass filter, move
like random walks. A stationary process of some hundred lags takes a lost run
for a whole period of theirs; the straight line between its two ends is better.
So the drift is taken out before the process is learned and put back after.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor

from eegtensor.tensor.completion.methods import (
    Estimate,
    Predict,
    Problem,
    fit_delay,
    model_lags,
)

# Share of the power that must be slow before drift is looked for at all.
LEAST_SHARE = 0.2


def slow_part(values: Tensor, seen: Tensor, period: float) -> Tensor:
    """Return each signal's smooth course, straight across lost stretches.

    Minimises sum over seen cells of (x - s)^2 plus (period / 2 pi)^2 times the
    sum of squared steps of s: half the amplitude is left at the period given
    (Whittaker 1923; the posterior mean of a random walk seen in noise).

    Parameters
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times)
    seen : Tensor of bool, same shape
        A signal without any cell seen has course zero.
    period : float
        Samples.

    Returns
    -------
    Tensor, same shape, float64
    """
    weights = seen.double().numpy(force=True)
    known = torch.where(seen, values, 0.0).double().numpy(force=True)
    stiffness = (period / (2 * math.pi)) ** 2
    n_times = values.shape[-1]
    # One tridiagonal system: no step leads from one signal's end to the next.
    steps = np.full(weights.shape, stiffness)
    steps[..., -1] = 0.0
    before = np.roll(steps.reshape(-1), 1)
    bands = np.empty((2, weights.size))
    bands[1] = weights.reshape(-1) + steps.reshape(-1) + before
    # A signal without any cell is held at zero.
    bands[1] += np.repeat(~weights.any(axis=-1).reshape(-1), n_times)
    bands[0] = -before
    course = solveh_banded(bands, known.reshape(-1), check_finite=False)
    return torch.from_numpy(course).view(values.shape)


def bridge_variance(course: Tensor, seen: Tensor, lag: int) -> Tensor:
    """Return how uncertain a random walk is inside lost runs.

    A walk of step variance w, seen at both ends of a run of length L, has
    variance w t (L - t) / L at distance t from one; w t beyond the last cell.

    Parameters
    ----------
    course : Tensor, shape (n_trials, n_channels, n_times)
        From it the step variance of every channel is estimated, over `lag` steps.
    seen : Tensor of bool, same shape
    lag : int

    Returns
    -------
    Tensor, same shape
    """
    lag = min(lag, course.shape[-1] - 1)
    moved = (course[..., lag:] - course[..., :-lag]) ** 2 / lag
    step = moved.mean(dim=(0, 2))[:, None]
    times = torch.arange(course.shape[-1], dtype=course.dtype, device=course.device)
    last = torch.where(seen, times, -math.inf).cummax(dim=-1).values
    following = torch.where(seen, times, math.inf).flip(-1).cummin(dim=-1).values
    left, right = times - last, following.flip(-1) - times
    # Harmonic: of one end alone where the other is not there.
    inverse = 1 / left.clamp_min(1e-9) + 1 / right.clamp_min(1e-9)
    lost = ~seen & (inverse > 0)
    return torch.where(lost, step / inverse.clamp_min(1e-9), 0.0)


def fit_drift(
    problem: Problem,
    random_state: int,
    *,
    score: Callable[[Tensor], float] | None = None,
) -> Predict | None:
    """Learn the joint covariance of channels and delays beside slow drift.

    Returns
    -------
    predict : callable | None
        None where too little of the power is slow to be drift.
    """
    lags = model_lags(problem)
    seen = problem.seen
    course = slow_part(problem.values, seen, 2.0 * lags)
    power = (problem.values**2)[seen].mean()
    if not bool((course**2)[seen].mean() > LEAST_SHARE * power):
        return None
    rest = torch.where(seen, problem.values - course, 0.0)
    count = seen.sum(dim=(0, 2)).clamp_min(1)
    scale = ((rest**2).sum(dim=(0, 2)) / count).sqrt()[:, None]
    scale = torch.where(scale > 0, scale, 1.0)
    inner = problem._replace(values=rest / scale, scale=problem.scale * scale[:, 0])

    def inner_score(values: Tensor) -> float:
        assert score is not None
        return score(values.double() * scale + course)

    predict_rest = fit_delay(
        inner, random_state, score=None if score is None else inner_score
    )
    learned_from = problem

    def predict(problem: Problem) -> Estimate:
        if problem.values is learned_from.values:
            slow, quick = course, inner
        else:
            slow = slow_part(problem.values, problem.seen, 2.0 * lags)
            rest = torch.where(problem.seen, problem.values - slow, 0.0) / scale
            quick = inner._replace(
                values=rest, seen=problem.seen, origin=problem.origin
            )
        found = predict_rest(quick)
        assert found.variance is not None
        spread = found.variance * scale**2 + bridge_variance(slow, problem.seen, lags)
        return Estimate(found.values * scale + slow, spread)

    return predict
