"""Naive Bayes with one variance a feature: exact in a stream, and to forget."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from eegtensor._check import check_number, check_option, fail, listing
from eegtensor.transfer._heads import FeatureClassifier


class _Moments(NamedTuple):
    """Numbers, means and sums of squared deviations of each class's trials."""

    number: NDArray
    mean: NDArray
    spread: NDArray


class SharedNaiveBayes(FeatureClassifier):
    """Gaussian naive Bayes whose variances are common to the classes.

    logit_k = log prior_k - sum_d (x_d - mu_kd)^2 / (2 v_d), v_d the mean variance
    within classes. Of D features it needs in the order of log D trials where logistic
    regression needs D.

    Parameters
    ----------
    prior : "empirical" | "uniform"
    floor : float
        Least variance, in the median over features.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    counts_ : ndarray, shape (n_classes,)
    means_ : ndarray, shape (n_classes, n_features)
    variances_ : ndarray, shape (n_features,)

    References
    ----------
    C. Zheng et al., "Revisiting discriminative vs. generative classifiers: theory and
    implications", ICML 2023.
    """

    def __init__(self, prior: str = "empirical", floor: float = 1e-3) -> None:
        self.prior = prior
        self.floor = floor

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Find the means and variances.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)
        """
        check_option("prior", self.prior, ("empirical", "uniform"))
        check_number("floor", self.floor, least=0.0)
        X, codes = self._checked(X, y)
        return self._take(_moments(X, codes, len(self.classes_)))

    def partial_fit(
        self, X: NDArray, y: ArrayLike, classes: ArrayLike | None = None
    ) -> Self:
        """Add trials; the result is that of all trials at once.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)
        classes : array-like | None
            All classes, in the first call.
        """
        first = not hasattr(self, "classes_")
        if first and classes is None:
            return self.fit(X, y)
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        if first:
            check_option("prior", self.prior, ("empirical", "uniform"))
            check_number("floor", self.floor, least=0.0)
            named = np.unique(np.asarray(classes))
            if len(named) < 2:
                fail(f"classes={list(named)}", fix="name at least two classes")
            self.classes_ = named
        new = _moments(X, self._codes(y), len(self.classes_))
        return self._take(new if first else _joined(self._moments, new))

    def merge(self, other: SharedNaiveBayes) -> SharedNaiveBayes:
        """Return the classifier of both's trials, as if fitted to all of them."""
        check_is_fitted(self)
        check_is_fitted(other)
        if not np.array_equal(self.classes_, other.classes_):
            fail(
                f"Classes {list(self.classes_)} and {list(other.classes_)} differ",
                fix="fit both by partial_fit(X, y, classes=all of them)",
            )
        merged = copy.copy(self)
        return merged._take(_joined(self._moments, other._moments))

    def forget(self, X: NDArray, y: ArrayLike) -> Self:
        """Take trials out that were put in; the result is that without them.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)
        """
        check_is_fitted(self)
        X, y = validate_data(self, X, y, dtype=np.float64, reset=False)
        gone = _moments(X, self._codes(y), len(self.classes_))
        if (gone.number > self._moments.number).any():
            fail("More trials of a class are to be forgotten than were fitted")
        minus = _Moments(-gone.number, gone.mean, -gone.spread)
        return self._take(_joined(self._moments, minus))

    def _codes(self, y: Any) -> NDArray:
        labels = np.asarray(y)
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            fail(
                f"Classes {listing(set(labels[unknown]))} are new",
                fix="name all classes in the first partial_fit",
            )
        return np.searchsorted(self.classes_, labels)

    def _take(self, moments: _Moments) -> Self:
        self._moments = moments
        self.counts_, self.means_ = moments.number, moments.mean
        v = moments.spread.sum(axis=0) / max(moments.number.sum(), 1.0)
        least = self.floor * float(np.median(v))
        # Where most features are constant the median is zero.
        least = max(least, self.floor * float(v.mean()))
        self.variances_ = np.maximum(v, least if least > 0 else 1.0)
        return self

    def _logits(self, X: NDArray) -> NDArray:
        present = self.counts_ > 0
        share = self.counts_ / self.counts_.sum()
        if self.prior == "uniform":
            share = present / present.sum()
        z = -np.inf * np.ones((len(X), len(self.classes_)))
        away = X[:, None, :] - self.means_[present]
        distance = (away**2 / self.variances_).sum(axis=2)
        z[:, present] = np.log(share[present]) - 0.5 * distance
        return z


def _moments(X: NDArray, codes: NDArray, n_classes: int) -> _Moments:
    share = np.eye(n_classes)[codes]
    count = share.sum(axis=0)
    mean = share.T @ X / np.maximum(count, 1.0)[:, None]
    return _Moments(count, mean, share.T @ (X - mean[codes]) ** 2)


def _joined(a: _Moments, b: _Moments) -> _Moments:
    """Return the moments of both sets of trials; a negative count takes them out."""
    count = a.number + b.number
    divisor = np.where(count > 0, count, 1.0)[:, None]
    apart = b.mean - a.mean
    mean = a.mean + apart * b.number[:, None] / divisor
    spread = a.spread + b.spread + apart**2 * (a.number * b.number)[:, None] / divisor
    empty = (count <= 0)[:, None]
    return _Moments(count, np.where(empty, 0.0, mean), np.where(empty, 0.0, spread))
