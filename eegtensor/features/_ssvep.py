"""What classifiers by correlation share: filter-bank weights, probabilities."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin

from eegtensor.features._base import DomainEstimator, check_fitted


class CorrelationClassifier(ClassifierMixin, DomainEstimator):
    """Base of classifiers that give a trial the class of the highest correlation.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    scale_ : float
        Probabilities are the softmax of `scale_` times the correlations.
    """

    classes_: NDArray
    scale_: float

    @abstractmethod
    def _correlations(self, X: NDArray) -> NDArray:
        """Return one score per trial and class, in order of `classes_`."""

    def decision_function(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the correlation with each class, shape (n_trials, n_classes).

        Of two classes it is, as scikit-learn has it, the second's less the
        first's, shape (n_trials,).
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the class of the highest correlation, shape (n_trials,)."""
        best = self._scores(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        return softmax(self.scale_ * self._scores(X), axis=1)

    def score(
        self,
        X: NDArray,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> float:
        """Return the accuracy."""
        return float(super().score(X, y, sample_weight=sample_weight))

    def _scores(self, X: NDArray) -> NDArray:
        check_fitted(self, "scale_")
        return self._correlations(X)


def filter_bank_weights(n_bands: int) -> NDArray:
    """Return n^-1.25 + 0.25 for n = 1 .. n_bands (Chen et al. 2015), sum one."""
    weights = np.arange(1, n_bands + 1) ** -1.25 + 0.25
    return weights / weights.sum()


def softmax_scale(scores: NDArray, codes: NDArray, weights: ArrayLike | None) -> float:
    """Return the factor on scores that makes their softmax most likely.

    Targets are smoothed as Platt (1999) does, one trial a class added, so that
    separable training trials do not drive the factor to infinity.

    Parameters
    ----------
    scores : ndarray, shape (n_trials, n_classes)
    codes : ndarray of int, shape (n_trials,)
        Column of each trial's class.
    weights : array-like, shape (n_trials,) | None
    """
    n_trials, n_classes = scores.shape
    w = np.ones(n_trials) if weights is None else np.asarray(weights, dtype=np.float64)
    own = np.bincount(codes, weights=w, minlength=n_classes)[codes]
    targets = np.repeat(1 / (own + n_classes), n_classes).reshape(scores.shape)
    targets[np.arange(n_trials), codes] = (own + 1) / (own + n_classes)
    # Correlations differ less in long windows than in short ones: the bounds of
    # the search, e^-7 to e^7, are in their unit.
    unit = scores.std() or 1.0

    def loss(log_scale: float) -> float:
        logp = log_softmax(np.exp(log_scale) * scores / unit, axis=1)
        return -float((w[:, np.newaxis] * targets * logp).sum())

    found = minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded")
    return float(np.exp(found.x) / unit)
