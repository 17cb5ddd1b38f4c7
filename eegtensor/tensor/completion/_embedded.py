"""Methods that embed channels and delays: learned on one problem, used on others."""

from __future__ import annotations

import numpy as np

from eegtensor.tensor.completion._problem import Estimate, Predict, Problem
from eegtensor.tensor.completion.mmes import WINDOW as MMES_WINDOW
from eegtensor.tensor.completion.mmes import Manifold
from eegtensor.tensor.completion.ssa import STEPS, WINDOW, Gaps, choose

# Rows of the block-Hankel matrix at most: its Gram is decomposed again and again.
MOST_ROWS = 512
MAX_ITER = 40
# A filter of one recording, filling another from nothing.
NEW_STEPS = 12
LATENT = 40
NOISE = 0.05
MMES_STEPS = 1000
NEW_PASSES = 20


def fit_mdt(problem: Problem, random_state: int) -> Predict:
    """Learn the low-rank filter of channels and delays (see `ssa`)."""
    n_channels, n_times = problem.values.shape[1:]
    window = max(2, min(WINDOW, MOST_ROWS // n_channels))
    window = min(window, n_times)
    rng = np.random.default_rng(random_state)
    best = choose(
        problem.values, problem.seen, window, rng, MAX_ITER, STEPS, shrink=True
    )
    learned_from = problem

    def predict(problem: Problem) -> Estimate:
        state = Gaps(problem.values, problem.seen, window)
        if problem.of_the_trials_of(learned_from):
            state.resume(best, STEPS, shrink=True)
        else:
            state.response = best.response
            state.fill(NEW_STEPS)
        return Estimate(state.values, None)

    return predict


def fit_mmes(problem: Problem, random_state: int, start: Predict) -> Predict:
    """Learn the surface of windows (see `mmes`) from where another method ends."""
    window = min(MMES_WINDOW, problem.values.shape[-1])
    model = Manifold(window, LATENT, NOISE, random_state)
    model.fit(problem.values, problem.seen, start(problem).values, MMES_STEPS)
    learned_from = problem

    def predict(problem: Problem) -> Estimate:
        values, seen = problem.values, problem.seen
        if problem.of_the_trials_of(learned_from):
            found = model.restore(values, seen, model.filled, passes=1)
        else:
            first = start(problem).values
            found = model.restore(values, seen, first, passes=NEW_PASSES)
        return Estimate(found, None)

    return predict
