"""Decisions that know how far classes lie apart, also to classes never seen."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from eegtensor._check import check_number, check_option, fail, listing

METRICS = ("line", "circle", "zero-one")
_GRID = (0.25, 0.5, 1.0, 2.0, 4.0)


class LokiClassifier(ClassifierMixin, BaseEstimator):
    """Any classifier, decoded by the Frechet mean of its probabilities.

    The decision is the label with the smallest expected squared distance, sum over
    the classes of p_c D(label, c)^2. Labels may be more than those that were trained
    on: a level between two of them, a target of a speller never shown.

    Parameters
    ----------
    estimator : classifier | None
        With predict_proba; logistic regression by default.
    distances : "line" | "circle" | "zero-one" | ndarray, shape (n_labels, n_labels)
        "line": of numbers their difference, of names of their order. "circle": of
        their order around. "zero-one" decides as the classifier does.
    labels : array-like, shape (n_labels,) | None
        All labels in the order of the distances; those of the trials by default.
    temperature : float | "auto"
        p becomes p^(1 / temperature), normalised. "auto": the one of the smallest
        squared distance in 3-fold cross-validation.

    Attributes
    ----------
    classes_ : ndarray, shape (n_labels,)
        All labels.
    distances_ : ndarray, shape (n_labels, n_seen)
        Of all labels to those that were seen.
    temperature_ : float
    estimator_ : classifier

    References
    ----------
    N. Roberts et al., "Geometry-aware adaptation for pretrained models", NeurIPS 2023,
    eq. 1.
    """

    def __init__(
        self,
        estimator: Any = None,
        distances: Any = "line",
        labels: Any = None,
        temperature: float | str = 1.0,
    ) -> None:
        self.estimator = estimator
        self.distances = distances
        self.labels = labels
        self.temperature = temperature

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Fit the classifier, and find the temperature if it is to be found.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If y holds labels that `labels` lacks, or distances do not fit them.
        """
        X, checked = validate_data(self, X, y, dtype=np.float64)
        y = np.asarray(checked)
        check_classification_targets(y)
        inner = self.estimator
        if inner is None:
            inner = LogisticRegression(max_iter=1000)
        seen = np.unique(y)
        if len(seen) < 2:
            fail(
                f"LokiClassifier got trials of one class only, {seen[0]!r}",
                fix="give trials of at least two classes",
            )
        labels = seen if self.labels is None else np.asarray(self.labels)
        missing = ~np.isin(seen, labels)
        if missing.any():
            fail(
                f"y holds labels that `labels` lacks: {listing(seen[missing])}",
                fix="name every label",
            )
        D = pairwise_distances(labels, self.distances)
        place = [int(np.flatnonzero(labels == c)[0]) for c in seen]
        self.classes_, self.distances_ = labels, D[:, place]
        self.temperature_ = 1.0
        if self.temperature == "auto":
            among = np.searchsorted(seen, y)
            self.temperature_ = self._best(inner, X, y, D[:, place][:, among])
        else:
            self.temperature_ = check_number("temperature", self.temperature, above=0.0)
        self.estimator_ = clone(inner).fit(X, y)
        return self

    def _best(self, inner: Any, X: NDArray, y: NDArray, away: NDArray) -> float:
        """Return the temperature of the smallest squared distance to the truth."""
        n_folds = min(3, int(np.unique(y, return_counts=True)[1].min()))
        if n_folds < 2:
            return 1.0
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
        p = cross_val_predict(clone(inner), X, y, cv=folds, method="predict_proba")
        each = np.arange(len(y))
        errors = []
        for temperature in _GRID:
            decided = frechet_decode(sharpened(p, temperature), self.distances_)
            errors.append((away[decided, each] ** 2).mean())
        # Of equals the nearest to leaving p as it is.
        rank = np.argsort(np.abs(np.log(_GRID)), kind="stable")
        return float(_GRID[min(rank, key=lambda i: errors[i])])

    def decision_function(self, X: NDArray) -> NDArray:
        """Return minus expected squared distances, (n_trials, n_labels).

        Of two labels the second's minus the first's, (n_trials,).
        """
        score = -self._expected(X)
        return score[:, 1] - score[:, 0] if score.shape[1] == 2 else score

    def predict(self, X: NDArray) -> NDArray:
        """Return labels, shape (n_trials,)."""
        expected = self._expected(X)
        return self.classes_[expected.argmin(axis=1)]

    def _expected(self, X: Any) -> NDArray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        p = sharpened(self.estimator_.predict_proba(X), self.temperature_)
        expected: NDArray = p @ self.distances_.T**2
        return expected


def frechet_decode(p: NDArray, distances: NDArray) -> NDArray[np.int64]:
    """Return the label nearest to probabilities in mean square, shape (n_trials,).

    Parameters
    ----------
    p : ndarray, shape (n_trials, n_seen)
    distances : ndarray, shape (n_labels, n_seen)
    """
    decided: NDArray[np.int64] = (p @ distances.T**2).argmin(axis=1)
    return decided


def sharpened(p: NDArray, temperature: float) -> NDArray:
    """Return p^(1 / temperature) with rows that sum to one."""
    if temperature == 1.0:
        return p
    relative = p / p.max(axis=1, keepdims=True)
    powered: NDArray = relative ** (1.0 / temperature)
    return powered / powered.sum(axis=1, keepdims=True)


def pairwise_distances(labels: NDArray, distances: Any) -> NDArray:
    """Return distances of labels, shape (n_labels, n_labels).

    Raises
    ------
    EEGTensorError
        If the distances given are not square, negative, or of other labels.
    """
    n = len(labels)
    if not isinstance(distances, str):
        D = np.asarray(distances, dtype=np.float64)
        if D.shape != (n, n) or not (D >= 0).all():
            fail(
                f"Distances of shape {D.shape} for {n} labels",
                fix=f"give ({n}, {n}) numbers from 0 up",
            )
        return D
    check_option("distances", distances, METRICS)
    if distances == "zero-one":
        return 1.0 - np.eye(n)
    numbers = labels.dtype.kind in "fiu" and distances == "line"
    place = labels.astype(np.float64) if numbers else np.arange(n, dtype=np.float64)
    away: NDArray = np.abs(place[:, None] - place[None, :])
    return np.minimum(away, n - away) if distances == "circle" else away
