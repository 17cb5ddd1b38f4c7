"""What all scores of novelty share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone

from eegtensor._check import fail
from eegtensor.features._base import check_fitted
from eegtensor.trust.scorers.evidence import Evidence, as_evidence


class Scorer(BaseEstimator):
    """Base of scores that are high for trials like those of `fit`.

    `fit` and `score_samples` take `Evidence`, or an array that is read as the first
    part of `needs`. A subclass defines `_fit` and `_score`.

    Attributes
    ----------
    needs : tuple of str
        Parts of the evidence that are looked at.
    n_trials_ : int
        Trials seen in `fit`.
    """

    needs: ClassVar[tuple[str, ...]] = ("features",)

    def fit(self, evidence: Evidence | NDArray, y: ArrayLike | None = None) -> Self:
        """Learn what familiar trials look like.

        Parameters
        ----------
        evidence : Evidence | ndarray, shape (n_trials, ...)
            Of source trials, two or more.
        y : array-like, shape (n_trials,) | None
            Classes, which some scores use.

        Raises
        ------
        EEGTensorError
            If a part is missing, there are less than two trials, or numbers are
            not finite.
        """
        found = as_evidence(evidence, self.needs)
        if len(found) < 2:
            fail(
                f"{type(self).__name__} got {len(found)} trials", fix="give two or more"
            )
        self._fit(self._checked(found), None if y is None else np.asarray(y))
        self.n_trials_ = len(found)
        return self

    def score_samples(self, evidence: Evidence | NDArray) -> NDArray:
        """Return one number a trial, high where it is like those of `fit`."""
        check_fitted(self, "n_trials_")
        return self._score(self._checked(as_evidence(evidence, self.needs)))

    def _checked(self, found: Evidence) -> Evidence:
        for name in self.needs:
            if name == "gradients":
                continue
            if not np.isfinite(found.need(name)).all():
                fail(
                    f"{name} hold NaN or infinity",
                    fix="drop trials whose samples are not finite",
                )
        return found

    @abstractmethod
    def _fit(self, found: Evidence, y: NDArray | None) -> Any:
        """Learn from evidence that was checked."""

    @abstractmethod
    def _score(self, found: Evidence) -> NDArray:
        """Return scores, shape (n_trials,)."""


def strided(by: NDArray, n_folds: int = 5) -> list[tuple[NDArray, NDArray]]:
    """Return trials to fit and to hold out, every fifth in turn of those sorted.

    By a number of each trial, so that the order in which trials come means nothing.
    """
    fold = np.empty(len(by), dtype=np.int64)
    fold[np.argsort(by, kind="stable")] = np.arange(len(by)) % min(n_folds, len(by))
    return [
        (np.flatnonzero(fold != k), np.flatnonzero(fold == k))
        for k in range(fold.max() + 1)
    ]


def cross_scores(scorer: Scorer, found: Evidence, y: NDArray | None) -> NDArray:
    """Return the score of each trial by a scorer that was not fitted to it.

    Scores of the trials of `fit` are too good: a neighbour is the trial itself, and a
    subspace bends to it.
    """
    scores = np.empty(len(found))
    by = found.need(scorer.needs[0]).reshape(len(found), -1)
    for train, test in strided(np.square(by).sum(axis=1)):
        own = clone(scorer).fit(found.pick(train), None if y is None else y[train])
        scores[test] = own.score_samples(found.pick(test))
    return scores


def standardiser(values: NDArray) -> tuple[float, float]:
    """Return the median of numbers and their scale by the median deviation."""
    centre = float(np.median(values))
    scale = 1.4826 * float(np.median(np.abs(values - centre)))
    # Numbers that are nearly all alike still have a scale.
    return centre, scale or float(values.std()) or 1.0
