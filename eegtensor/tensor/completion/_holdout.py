"""Hide observed cells, see how well each method restores them, weigh."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.tensor.completion._choose import Choice, choose
from eegtensor.tensor.completion._kinds import GAP, SCATTERED, hide
from eegtensor.tensor.completion.drift import fit_drift
from eegtensor.tensor.completion.methods import METHODS, Predict, Problem, fit_delay

# Columns on which a second and third method are tried.
TRIED_COLUMNS = 512


class Trial(NamedTuple):
    """A problem with some observed cells hidden.

    Attributes
    ----------
    problem : Problem
        All that was observed.
    reduced : Problem
        Without the hidden cells.
    hidden : ndarray of int8, shape (n_trials, n_channels, n_times)
        The kind that a hidden cell stands for, 0 where nothing is hidden.
    """

    problem: Problem
    reduced: Problem
    hidden: NDArray[np.int8]


def make_trial(
    problem: Problem, kinds: NDArray[np.int8], rng: np.random.Generator
) -> Trial:
    """Hide observed cells in the same kinds of pattern as those lost."""
    hidden = hide(problem.seen.numpy(force=True), kinds, rng)
    keep = torch.from_numpy(hidden == 0)
    reduced = problem._replace(
        values=torch.where(keep, problem.values, 0.0), seen=problem.seen & keep
    )
    return Trial(problem, reduced, hidden)


def learn_methods(
    trial: Trial, method: str, random_state: int
) -> tuple[list[str], list[Predict]]:
    """Return the methods that are tried and what they learned, the main one first."""
    reduced = trial.reduced
    if reduced.values.shape[2] == 1 and method in ("auto", "delay"):
        # One sample has no delays.
        method = "gaussian"
    if method not in ("auto", "delay"):
        return [method], [METHODS[method](reduced, random_state)]
    where = torch.from_numpy(trial.hidden > 0)
    truth = trial.problem.values[where]

    def score(values: Tensor) -> float:
        return float((values[where].double() - truth).norm())

    def delay(gaussian: Predict | None) -> Predict:
        return fit_delay(
            reduced,
            random_state,
            gaussian=gaussian,
            score=score if len(truth) else None,
        )

    if method == "delay":
        return ["delay"], [delay(None)]
    gaussian = METHODS["gaussian"](reduced, random_state)
    names, found = ["delay", "gaussian"], [delay(gaussian), gaussian]
    beside = fit_drift(reduced, random_state, score=score) if len(truth) else None
    if beside is not None:
        if score(beside(reduced).values) < score(found[0](reduced).values):
            names[0], found[0] = "drift", beside
    if reduced.positions is not None:
        names.append("spline")
        found.append(METHODS["spline"](reduced, random_state))
    return names, found


def weigh(
    trial: Trial, predictors: list[Predict], rng: np.random.Generator
) -> dict[int, Choice]:
    """Return, for every kind that was hidden, how to weigh the methods."""
    if not trial.hidden.any():
        return {}
    main = predictors[0](trial.reduced)
    variance = main.variance
    std = torch.ones_like(main.values) if variance is None else variance.sqrt()
    out = {}
    for kind in np.unique(trial.hidden[trial.hidden > 0]):
        at, events = _columns(trial.hidden == kind, int(kind), rng)
        picker = _Picker(trial, at, int(kind))
        estimates = [picker(main.values)]
        if kind != GAP:
            few = picker.columns_of(trial.reduced)
            for predict in predictors[1:]:
                estimates.append(picker.back(predict(few).values))
        # Every channel in units of its own power: gains move no weights.
        truth = picker(trial.problem.values)
        found = choose(truth, np.stack(estimates), picker(std), events)
        padded = np.zeros(len(predictors))
        padded[: len(found.weights)] = found.weights
        out[int(kind)] = found._replace(weights=padded)
    return out


def _columns(
    hidden: NDArray[np.bool_], kind: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], float]:
    """Return (trial, time) of columns with hidden cells, and how many events."""
    at = np.argwhere(hidden.any(axis=1))
    if kind != SCATTERED:
        flags = np.pad(hidden, [(0, 0), (0, 0), (1, 0)]).astype(np.int8)
        return at, float((np.diff(flags, axis=2) == 1).sum())
    if len(at) > TRIED_COLUMNS:
        at = at[np.sort(rng.choice(len(at), TRIED_COLUMNS, replace=False))]
    return at, float(len(at))


class _Picker:
    """Hidden cells of some columns, in one order."""

    def __init__(self, trial: Trial, at: NDArray[np.int64], kind: int) -> None:
        self.trials, self.times = torch.from_numpy(at).T
        hidden = torch.from_numpy(trial.hidden == kind)
        self.cells = hidden[self.trials, :, self.times]

    def __call__(self, signals: Tensor) -> NDArray[np.float64]:
        return self.back(signals[self.trials, :, self.times].T[None])

    def back(self, columns: Tensor) -> NDArray[np.float64]:
        return columns[0].T[self.cells].numpy(force=True)

    def columns_of(self, problem: Problem) -> Problem:
        """The columns side by side: other methods see each instant by itself."""
        return problem._replace(
            values=problem.values[self.trials, :, self.times].T[None],
            seen=problem.seen[self.trials, :, self.times].T[None],
        )
