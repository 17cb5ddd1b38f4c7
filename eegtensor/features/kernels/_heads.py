"""What kernel classifiers and regressors of vectors share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from eegtensor._check import check_number, fail

# Pairs of these many trials tell the median distance to a few percent.
_PAIRS = 1000


class VectorEstimator(BaseEstimator):
    """Base of kernel machines of vectors, shape (n_trials, n_features).

    A subclass gives `_scores`, one column for each target.
    """

    def _rows(self, X: Any) -> NDArray:
        check_is_fitted(self)
        checked: NDArray = validate_data(self, X, dtype=np.float64, reset=False)
        return checked

    def _scores(self, X: NDArray) -> NDArray:
        raise NotImplementedError


class KernelClassifier(ClassifierMixin, VectorEstimator):
    """Base of classifiers that regress on plus and minus one.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    """

    classes_: NDArray

    def _checked(self, X: Any, y: ArrayLike) -> tuple[NDArray, NDArray]:
        """Return features and targets +-1, (n_trials, 1) or (n_trials, n_classes)."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        return X, self._targets(np.asarray(y))

    def _targets(self, y: NDArray) -> NDArray:
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            fail(
                f"{type(self).__name__} got trials of one class only, "
                f"{self.classes_[0]!r}",
                fix="give trials of at least two classes",
            )
        n = len(self.classes_)
        wanted = np.arange(1, 2) if n == 2 else np.arange(n)
        return np.where(codes[:, None] == wanted, 1.0, -1.0)

    def decision_function(self, X: NDArray) -> NDArray:
        """Return f, (n_trials,) of two classes, (n_trials, n_classes) of more.

        Parameters
        ----------
        X : ndarray
            As in `fit`.
        """
        f = self._scores(self._rows(X))
        return f[:, 0] if f.shape[1] == 1 else f

    def predict(self, X: NDArray) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        f = self.decision_function(X)
        place = (f > 0).astype(int) if f.ndim == 1 else f.argmax(axis=1)
        return self.classes_[place]


class KernelRegressor(RegressorMixin, VectorEstimator):
    """Base of regressors on one or more targets."""

    def _checked(self, X: Any, y: ArrayLike) -> tuple[NDArray, NDArray]:
        """Return features and targets (n_trials, n_targets)."""
        X, y = validate_data(
            self,
            X,
            y,
            dtype=np.float64,
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        y = np.asarray(y, dtype=np.float64)
        self._flat = y.ndim == 1
        return X, y[:, None] if self._flat else y

    def predict(self, X: NDArray) -> NDArray:
        """Return predicted targets, of the shape they had in `fit`.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        """
        f = self._scores(self._rows(X))
        return f[:, 0] if self._flat else f

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def median_gamma(X: NDArray, gamma: float | str) -> float:
    """Return gamma, or 1 / median squared distance of different trials, "median"."""
    if gamma != "median":
        return check_number("gamma", gamma, above=0.0)
    step = max(1, -(-len(X) // _PAIRS))
    d = pdist(X[::step], "sqeuclidean")
    d = d[d > 0]
    return float(1.0 / np.median(d)) if len(d) else 1.0
