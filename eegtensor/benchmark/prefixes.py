"""Features of single trials, computed once and shared by folds and pipelines."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.benchmark.estimators import fresh
from eegtensor.benchmark.fingerprint import fingerprint

logger = logging.getLogger("eegtensor")

# Signals are handed to a prefix in pieces of this many bytes.
PIECE_BYTES = 1 << 28


@dataclass(frozen=True)
class Ready:
    """An estimator and the array it is to be fitted on.

    Attributes
    ----------
    estimator : estimator
        What is left to fit in every fold, never itself fitted.
    X : ndarray, shape (n_trials, ...)
        Features of all trials, or the signals.
    seconds : float
        Seconds that the features of one trial took; 0 for signals.
    """

    estimator: Any
    X: NDArray
    seconds: float

    @property
    def has_signals(self) -> bool:
        """Whether X holds the signals themselves."""
        return self.seconds == 0.0


class Prefixes:
    """Runs each distinct trial-wise prefix once over all trials.

    An estimator offers one by a method ``split_trialwise() -> (prefix, rest)``:
    `prefix` is a transformer whose output for a trial depends on that trial
    alone, or None.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
    seed : int
    go_on : bool
        Leave a prefix that fails in its estimator instead of raising.
    """

    def __init__(self, X: NDArray, seed: int, *, go_on: bool = False) -> None:
        self._X = X
        self._seed = seed
        self._go_on = go_on
        self._known: dict[str, tuple[NDArray, float]] = {}

    def prepare(self, estimator: Any) -> Ready:
        """Return what folds need to run an estimator.

        Raises
        ------
        EEGTensorError
            If a prefix does not return one row a trial, unless `go_on`.
        """
        if not hasattr(estimator, "split_trialwise"):
            return Ready(estimator, self._X, 0.0)
        prefix, rest = estimator.split_trialwise()
        if prefix is None:
            return Ready(rest, self._X, 0.0)
        prefix = fresh(prefix, self._seed)
        # Without a fingerprint the features belong to this very estimator.
        key = fingerprint(prefix).key or f"object {id(estimator)}"
        if key not in self._known:
            try:
                self._known[key] = self._run(prefix)
            except Exception as error:
                # Raised here, it names the trial among all; a run that is to go on
                # meets it again in those folds that have it.
                if not self._go_on:
                    raise
                logger.info("features are made fold by fold: %s", error)
                return Ready(estimator, self._X, 0.0)
        return Ready(rest, *self._known[key])

    def _run(self, prefix: Any) -> tuple[NDArray, float]:
        start = time.perf_counter()
        n_trials = len(self._X)
        step = max(1, PIECE_BYTES // max(1, self._X[:1].nbytes))
        features: NDArray | None = None
        for first in range(0, n_trials, step):
            piece = np.asarray(self._X[first : first + step])
            out = prefix.transform(piece) if first else _fit_transform(prefix, piece)
            if len(out) != len(piece):
                fail(
                    f"The trial-wise prefix {type(prefix).__name__} returned "
                    f"{len(out)} rows for {len(piece)} trials",
                    fix="return one row a trial, or None from split_trialwise",
                )
            if features is None:
                features = np.empty((n_trials, *out.shape[1:]), dtype=out.dtype)
            features[first : first + step] = out
        assert features is not None
        return features, (time.perf_counter() - start) / n_trials


def _fit_transform(prefix: Any, X: NDArray) -> NDArray:
    if hasattr(prefix, "fit_transform"):
        return prefix.fit_transform(X)
    return prefix.fit(X).transform(X)
