"""One pipeline on one fold: fit on source trials, adapt, predict, under each mode."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError, fail
from eegtensor.benchmark.estimators import (
    Outputs,
    call,
    can,
    derive_seed,
    fresh,
    outputs,
)
from eegtensor.benchmark.modes import Mode, Part
from eegtensor.benchmark.network_patterns import ask_for_patterns
from eegtensor.benchmark.prefixes import Ready
from eegtensor.benchmark.splits import Fold

logger = logging.getLogger("eegtensor")


@dataclass(frozen=True)
class Labels:
    """What trials carry beside signals.

    Attributes
    ----------
    y : ndarray, shape (n_trials,)
    subjects, sessions : ndarray of str, shape (n_trials,)
        As estimators get them; subjects are "dataset/subject".
    classes : tuple of str
        Sorted; empty for continuous targets.
    """

    y: NDArray
    subjects: NDArray
    sessions: NDArray
    classes: tuple[str, ...]

    def domains(self, index: NDArray) -> dict[str, NDArray]:
        """Return the domain keywords of some trials."""
        return {"subjects": self.subjects[index], "sessions": self.sessions[index]}


@dataclass(frozen=True)
class Outcome:
    """What one pipeline said on one fold under one mode.

    Attributes
    ----------
    trials : ndarray of int
        Indices of the trials predicted, part by part.
    y_pred, probabilities, decision
        As `Outputs`, one row for each of `trials`.
    seconds_fit : float
    n_source : int
        Trials given to `fit`, labelled ones that join the source included.
    seconds_adapt, seconds_predict : ndarray, one entry a part
        Of the whole adaptation, and of one predicted trial.
    adapted : ndarray of bool, one entry a part
        Whether the estimator did adapt.
    matrices, covariance : ndarray | None
        What a network looks at, see `eegtensor.models.ClassPatterns`; None
        where it was trained on labels of the held-out people.
    """

    trials: NDArray[np.int64]
    y_pred: NDArray
    probabilities: NDArray | None
    decision: NDArray | None
    seconds_fit: float
    n_source: int
    seconds_adapt: NDArray
    seconds_predict: NDArray
    adapted: NDArray[np.bool_]
    matrices: NDArray | None = None
    covariance: NDArray | None = None


@dataclass(frozen=True)
class Job:
    """One pipeline and one fold, with the modes still to run."""

    pipeline: str
    fold: Fold
    parts: Mapping[Mode, list[Part]]
    ready: Mapping[str, Ready]
    labels: Labels
    seed: int
    keys: Mapping[str, str | None] = field(default_factory=dict)


def run_job(job: Job) -> Iterator[tuple[Mode, Outcome]]:
    """Run the modes of a job one after the other.

    Modes whose `fit` sees the same trials share one fitted estimator.

    Yields
    ------
    mode : Mode
    outcome : Outcome

    Raises
    ------
    EEGTensorError
        If the estimator raises; the message names pipeline, fold and mode.
    """
    shared: dict[int, _Fitted] = {}
    for mode, parts in job.parts.items():
        ready = job.ready[mode.name]
        try:
            if mode.joins_source:
                fitted = _Fitted(job, ready, [part.adapt for part in parts])
            else:
                if id(ready) not in shared:
                    shared[id(ready)] = _Fitted(job, ready, [])
                fitted = shared[id(ready)]
            outcome = _run_mode(job, mode, parts, ready, fitted)
        except Exception as error:
            detail = str(error) or "no message"
            kind = "" if isinstance(error, EEGTensorError) else f"{_name(error)}: "
            fail(
                f"Pipeline {job.pipeline!r} failed on fold {job.fold.index} "
                f"({job.fold.name} held out, adapt={mode.name!r}): {kind}{detail}",
                cause=error,
            )
        yield mode, outcome


def _name(error: Exception) -> str:
    return type(error).__name__


class _Fitted:
    """An estimator fitted on the source; `copy` gives one to adapt."""

    def __init__(self, job: Job, ready: Ready, calibration: list[NDArray]) -> None:
        self._job, self._ready = job, ready
        self.index = np.concatenate([job.fold.train, *calibration])
        self.trained_on = np.unique(job.labels.y[self.index])
        start = time.perf_counter()
        self.estimator = self._fit()
        elapsed = time.perf_counter() - start
        self.seconds = elapsed + ready.seconds * len(self.index)

    def _fit(self) -> Any:
        job, index = self._job, self.index
        # From the fold alone: neither other modes nor the order of jobs count.
        seed = derive_seed(job.seed, "fold", job.fold.index)
        estimator = fresh(self._ready.estimator, seed)
        X, y = self._ready.X[index], job.labels.y[index]
        call(estimator, "fit", X, y, **job.labels.domains(index))
        return estimator

    @cached_property
    def patterns(self) -> Any:
        """What it looks at in its source trials, or twice None."""
        job, index = self._job, self.index
        if not self._ready.has_signals:
            return None, None
        found = ask_for_patterns(
            self.estimator,
            self._ready.X,
            job.labels.classes,
            index,
            derive_seed(job.seed, "patterns", job.fold.index),
            job.labels.domains,
        )
        return (None, None) if found is None else found

    def copy(self) -> Any:
        try:
            return copy.deepcopy(self.estimator)
        except Exception as error:
            logger.info(
                "%s cannot be copied (%s): fitted again", self._job.pipeline, error
            )
            return self._fit()


def _run_mode(
    job: Job, mode: Mode, parts: list[Part], ready: Ready, fitted: _Fitted
) -> Outcome:
    said: list[Outputs] = []
    seconds_adapt, seconds_predict, adapted = [], [], []
    for part in parts:
        # Each session starts from the source: what was learned of one held-out
        # session would be unlabelled data of the next.
        moves = mode.adapts or mode.calibrates
        estimator = fitted.copy() if moves else fitted.estimator
        if mode.trialwise:
            result = _trial_by_trial(job, mode, part, ready, fitted, estimator)
        else:
            result = _in_a_block(job, mode, part, ready, fitted, estimator)
        said.append(result[0])
        seconds_adapt.append(result[1])
        seconds_predict.append(result[2])
        adapted.append(result[3])
    matrices, covariance = (None, None) if mode.joins_source else fitted.patterns
    return Outcome(
        trials=np.concatenate([part.predicted for part in parts]),
        y_pred=np.concatenate([s.y_pred for s in said]),
        probabilities=_stack([s.probabilities for s in said]),
        decision=_stack([s.decision for s in said]),
        seconds_fit=fitted.seconds,
        n_source=len(fitted.index),
        seconds_adapt=np.asarray(seconds_adapt),
        seconds_predict=np.asarray(seconds_predict),
        adapted=np.asarray(adapted, dtype=bool),
        matrices=matrices,
        covariance=covariance,
    )


def _stack(arrays: list[NDArray | None]) -> NDArray | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if len(there) == len(arrays) else None


_Result = tuple[Outputs, float, float, bool]


def _in_a_block(
    job: Job, mode: Mode, part: Part, ready: Ready, fitted: _Fitted, estimator: Any
) -> _Result:
    seconds_adapt, adapted = 0.0, mode.labelled
    if mode.adapts and len(part.adapt):
        start = time.perf_counter()
        adapted = _adapt(job, part, ready, estimator)
        if adapted:
            seconds_adapt = time.perf_counter() - start
            seconds_adapt += ready.seconds * len(part.adapt)
    if mode.calibrates:
        start, given = time.perf_counter(), part.adapt
        X, domains = ready.X[given], job.labels.domains(given)
        call(estimator, "calibrate", X, job.labels.y[given], **domains)
        seconds_adapt = time.perf_counter() - start + ready.seconds * len(given)
    index = part.predicted
    X, domains = ready.X[index], job.labels.domains(index)
    start = time.perf_counter()
    said = outputs(estimator, X, job.labels.classes, fitted.trained_on, **domains)
    elapsed = (time.perf_counter() - start) / len(index)
    return said, seconds_adapt, elapsed + ready.seconds, adapted


def _adapt(job: Job, part: Part, ready: Ready, estimator: Any) -> bool:
    """Adapt to unlabelled trials; return False where the estimator cannot."""
    X, domains = ready.X[part.adapt], job.labels.domains(part.adapt)
    # A stream's first update may be one trial, where a batch of one is refused.
    if len(part.adapt) == 1 and can(estimator, "partial_adapt"):
        call(estimator, "partial_adapt", X, **domains)
        return True
    if not can(estimator, "adapt"):
        return False
    try:
        call(estimator, "adapt", X, **domains)
    except EEGTensorError:
        # Most estimators refuse a batch of one: a mean of one trial erases it.
        if len(part.adapt) > 1:
            raise
        return False
    return True


def _trial_by_trial(
    job: Job, mode: Mode, part: Part, ready: Ready, fitted: _Fitted, estimator: Any
) -> _Result:
    online = mode.online and can(estimator, "partial_adapt")
    seconds_adapt, seconds_predict = 0.0, 0.0
    said: list[Outputs] = []
    for i in part.predicted:
        index = np.asarray([i])
        X, domains = ready.X[index], job.labels.domains(index)
        start = time.perf_counter()
        # Update, then predict: a trial is complete before it is decoded.
        if online:
            call(estimator, "partial_adapt", X, **domains)
        between = time.perf_counter()
        classes, trained_on = job.labels.classes, fitted.trained_on
        said.append(outputs(estimator, X, classes, trained_on, **domains))
        seconds_adapt += between - start
        seconds_predict += time.perf_counter() - between
    together = Outputs(
        np.concatenate([s.y_pred for s in said]),
        _stack([s.probabilities for s in said]),
        _stack([s.decision for s in said]),
    )
    per_trial = seconds_predict / len(said) + ready.seconds
    return together, seconds_adapt, per_trial, online
