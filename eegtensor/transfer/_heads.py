"""What classifiers of feature vectors share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from eegtensor._check import fail


class FeatureClassifier(ClassifierMixin, BaseEstimator):
    """Base of classifiers of vectors, shape (n_trials, n_features).

    A subclass gives `_logits`.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    """

    classes_: NDArray

    def _checked(self, X: Any, y: Any) -> tuple[NDArray, NDArray]:
        """Return features and each trial's code among `classes_`."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            fail(
                f"{type(self).__name__} got trials of one class only, "
                f"{self.classes_[0]!r}",
                fix="give trials of at least two classes",
            )
        return X, codes

    def _features(self, X: Any) -> NDArray:
        check_is_fitted(self)
        checked: NDArray = validate_data(self, X, dtype=np.float64, reset=False)
        return checked

    def _logits(self, X: NDArray) -> NDArray:
        raise NotImplementedError

    def decision_function(self, X: NDArray) -> NDArray:
        """Return logits; of two classes the second's minus the first's, (n_trials,).

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        """
        z = self._logits(self._features(X))
        return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z

    def predict_proba(self, X: NDArray) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        p: NDArray = softmax(self._logits(self._features(X)), axis=1)
        return p

    def predict(self, X: NDArray) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        z = self._logits(self._features(X))
        return self.classes_[z.argmax(axis=1)]


def logits_of(estimator: Any, X: NDArray, classes: NDArray) -> NDArray:
    """Return a fitted classifier's logits, one column for each of `classes`.

    Decision values where it has them, else the logarithms of its probabilities.

    Raises
    ------
    EEGTensorError
        If it is not fitted, or to other classes.
    """
    known = getattr(estimator, "classes_", None)
    if known is None:
        fail(
            f"The {type(estimator).__name__} given as base is not fitted",
            why="scikit-learn's clone, which pipelines and searches call, forgets fits",
            fix="fit it, and wrap it in sklearn.frozen.FrozenEstimator",
        )
    if set(known) != set(classes):
        fail(
            f"The base knows the classes {list(known)}, the trials have "
            f"{list(classes)}",
            fix="give trials of the classes that the base was fitted to",
        )
    return own_logits(estimator, X)[:, [list(known).index(c) for c in classes]]


def own_logits(estimator: Any, X: NDArray, **domains: Any) -> NDArray:
    """Return one number for each of a classifier's classes, (n_trials, n_classes).

    Decision values where it has them, else the logarithms of its probabilities.
    """
    if hasattr(estimator, "decision_function"):
        z = np.asarray(estimator.decision_function(X, **domains), dtype=np.float64)
    else:
        tiny = np.finfo(np.float64).tiny
        z = np.log(np.maximum(estimator.predict_proba(X, **domains), tiny))
    return np.stack([-z / 2, z / 2], axis=1) if z.ndim == 1 else z
