"""The methods that the router knows, each as `fit(problem) -> predict(problem)`.

`METHODS` is a registry: a method learns from one problem (some cells of which
may be hidden) and then completes any problem of the same recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.tensor.completion import _embedded
from eegtensor.tensor.completion._columns import complete_columns, patterns
from eegtensor.tensor.completion._embedded import fit_mdt
from eegtensor.tensor.completion._problem import Estimate, Method, Predict, Problem
from eegtensor.tensor.completion.delay import (
    NUGGET,
    Conditional,
    Conditioned,
    learn,
    regularise,
)
from eegtensor.tensor.completion.gaussian import gaussian_fit, gaussian_mean
from eegtensor.tensor.completion.lags import lag_covariances
from eegtensor.tensor.completion.spectrum import from_lags, welch
from eegtensor.tensor.completion.spline import spline_operators

N_LAGS = 128
START_LAGS = 16
# Columns from which the spatial covariance is learned at most.
FIT_COLUMNS = 512
# Up to so many patterns of lost channels, it may take all the steps it needs.
FEW_PATTERNS = 256
STEPS = 20
FEW_STEPS = 4
# Share of the neighbours' information in the solver's filter, measured: scattered
# cells converge best with little, runs with more.
NEIGHBOURS = 0.01
NEIGHBOURS_STEADY = 0.1
# Samples on each side over which draws of the error are pooled.
NEAR = 32
# Cells whose spread is worked out at a time.
SPREAD_CELLS = 1 << 17


def _columns(signals: Tensor) -> Tensor:
    """Return trials side by side, shape (n_channels, n_trials * n_times)."""
    return signals.transpose(0, 1).reshape(signals.shape[1], -1)


def _trials(columns: Tensor, like: Tensor) -> Tensor:
    return columns.view(like.shape[1], like.shape[0], -1).transpose(0, 1)


def fit_gaussian(problem: Problem, random_state: int) -> Predict:
    """Learn the covariance of channels; predict each instant by itself."""
    values, seen = _columns(problem.values), _columns(problem.seen)
    if values.shape[1] > FIT_COLUMNS and not problem.steady:
        # Nearly every column has a pattern of its own: enough of them will do.
        rng = np.random.default_rng(random_state)
        chosen = rng.choice(values.shape[1], FIT_COLUMNS, replace=False)
        values, seen = values[:, chosen], seen[:, chosen]
    few = len(patterns(seen).seen) <= FEW_PATTERNS
    limits = {"max_iter": 60, "tol": 1e-4} if few else {"max_iter": 8, "tol": 3e-3}
    covariance = gaussian_fit(values, seen, **limits).covariance

    def predict(problem: Problem) -> Estimate:
        found = gaussian_mean(
            _columns(problem.values), _columns(problem.seen), covariance
        )
        like = problem.values
        return Estimate(_trials(found.X, like), _trials(found.variance, like))

    return predict


def fit_spline(problem: Problem, random_state: int) -> Predict:
    """Learn nothing; predict each instant from where the channels sit."""
    places = problem.positions
    if places is None:
        fail(
            "method='spline' needs the positions of the channels",
            fix="give positions, or set a montage, or use method='auto'",
        )

    def predict(problem: Problem) -> Estimate:
        values, seen = _columns(problem.values), _columns(problem.seen)
        found = patterns(seen)
        filled = complete_columns(
            lambda some: spline_operators(some, places), values, found
        )
        return Estimate(_trials(filled, problem.values), None)

    return predict


def model_lags(problem: Problem) -> int:
    """Return how many lags a process learned from such trials has."""
    return min(N_LAGS, 2 ** int(math.log2(problem.values.shape[2])))


def fit_delay(
    problem: Problem,
    random_state: int,
    *,
    gaussian: Predict | None = None,
    score: Callable[[Tensor], float] | None = None,
) -> Predict:
    """Learn the joint covariance of channels and delays (see `delay`).

    `gaussian` saves learning the spatial covariance, which is where runs start;
    `score`, an error of completed values, stops it in time (see `learn`).
    """
    n_lags = model_lags(problem)
    generator = torch.Generator().manual_seed(random_state)
    hidden = _conditional(problem, generator)
    if gaussian is None:
        gaussian = fit_gaussian(problem, random_state)
    if problem.steady:
        start = gaussian(problem).values
        hidden.start(start)
        first = regularise(welch(start.transpose(0, 1), n_lags), problem.seen)
    else:
        lags = min(START_LAGS, n_lags // 2)
        first = from_lags(lag_covariances(problem.values, problem.seen, lags), n_lags)
    model = learn(hidden, first, n_lags, score=score)

    # More steps are closer to the model's answer, not always to the truth: where
    # the model is wrong in its weakest directions, stopping early is better.
    steps, before = STEPS, hidden.state.clone()
    if score is not None:
        error = score(hidden.result().values)
        hidden.advance(model, STEPS // 2, nugget=NUGGET)
        if score(hidden.result().values) > error:
            hidden.state, steps = before, FEW_STEPS
    hidden.solver.release()
    learned_from = problem

    def predict(problem: Problem) -> Estimate:
        if problem.values is learned_from.values:
            return _estimate(hidden, learned_from.seen)
        trials = _conditional(problem, generator)
        if problem.of_the_trials_of(learned_from):
            # What was hidden while learning belongs to the data as well.
            trials.resume(hidden)
            trials.advance(model, steps // 2, nugget=NUGGET)
            trials.advance(trials.learned(n_lags), steps // 2, nugget=NUGGET)
        else:
            if problem.steady:
                trials.start(gaussian(problem).values)
            trials.advance(model, STEPS, nugget=NUGGET)
        return _estimate(trials, problem.seen)

    return predict


def _conditional(problem: Problem, generator: torch.Generator) -> Conditional:
    neighbours = NEIGHBOURS_STEADY if problem.steady else NEIGHBOURS
    return Conditional(
        problem.values.float(), problem.seen, 1, generator, neighbours=neighbours
    )


def _estimate(trials: Conditional, seen: Tensor) -> Estimate:
    found = trials.result()
    return Estimate(found.values.double(), _spread(found, seen))


def _spread(found: Conditioned, seen: Tensor) -> Tensor:
    """Return variances: exact in gaps, else from draws of the error nearby."""
    out = torch.empty(seen.shape, dtype=torch.float64, device=seen.device)
    step = max(1, SPREAD_CELLS // (seen.shape[0] * seen.shape[2]))
    here = torch.arange(seen.shape[2], device=seen.device)
    after, before = (here + NEAR + 1).clamp_max(len(here)), (here - NEAR).clamp_min(0)

    def pooled(x: Tensor) -> Tensor:
        total = torch.nn.functional.pad(x.cumsum(dim=-1), (1, 0))
        return total[..., after].sub_(total[..., before])

    # A few channels at a time: this takes ten arrays of double precision.
    for at in range(0, seen.shape[1], step):
        some = slice(at, at + step)
        lost = (~seen[:, some]).double()
        square = (found.draws[:, :, some].double() ** 2).mean(dim=0) * lost
        mean = square.sum(dim=(0, 2)) / lost.sum(dim=(0, 2)).clamp_min(1)
        # A few draws are few: the channel's own mean counts as sixteen cells more.
        near = (pooled(square) + 16 * mean[:, None]) / (pooled(lost) + 16)
        exact = found.variance[:, some].double()
        out[:, some] = torch.where(exact.isnan(), near, exact) * lost
    return out


def fit_mmes(problem: Problem, random_state: int) -> Predict:
    """Learn the surface on which windows of all channels lie (see `mmes`)."""
    start = fit_gaussian(problem, random_state)
    return _embedded.fit_mmes(problem, random_state, start)


METHODS: dict[str, Method] = {
    "gaussian": fit_gaussian,
    "delay": fit_delay,
    "spline": fit_spline,
    "mdt": fit_mdt,
    "mmes": fit_mmes,
}
"""name -> `fit(problem, random_state) -> predict(problem) -> Estimate`"""
