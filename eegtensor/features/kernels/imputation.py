"""Missing features filled in so that classes part: a kernel first, values from it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from eegtensor._check import check_count, check_number, fail, listing
from eegtensor.features.kernels._kernellearning import (
    learned_kernel,
    observed_kernel,
)


def values_from_kernel(
    X: NDArray, K: NDArray, width: float, *, max_iter: int = 500
) -> NDArray:
    """Return X with missing values that give the distances of a kernel.

    The least sum over pairs of (|x_i - x_j|^2 + 2 width^2 log K_ij)^2 with values
    in [0, 1].

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_features)
        In [0, 1], NaN where missing.
    K : ndarray, shape (n_trials, n_trials)
    width : float
    max_iter : int
    """
    gaps = np.isnan(X)
    if not gaps.any():
        return X
    wanted = -2 * width**2 * np.log(np.maximum(K, 1e-12))
    np.fill_diagonal(wanted, 0.0)
    start = np.where(gaps, np.nanmean(X, axis=0), X)
    n = len(X)

    def loss(v: NDArray) -> tuple[float, NDArray]:
        Z = start.copy()
        Z[gaps] = v
        square = (Z**2).sum(axis=1)
        R = square[:, None] + square - 2 * Z @ Z.T - wanted
        np.fill_diagonal(R, 0.0)
        g = 8 * (R.sum(axis=1)[:, None] * Z - R @ Z)
        return float((R**2).sum()) / n, g[gaps] / n

    found = minimize(
        loss,
        start[gaps],
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1.0)] * int(gaps.sum()),
        options={"maxiter": max_iter},
    )
    filled = start.copy()
    filled[gaps] = found.x
    return filled


class SupervisedKernelImputer(TransformerMixin, BaseEstimator):
    """Fill in missing features of trials with the help of their classes.

    A Gaussian kernel over the features that both trials have is multiplied by
    factors, within what the missing ones allow, with which a support vector machine
    parts the classes best; then values are found that have these distances. Trials
    of `fit_transform` are filled in this way; new ones, whose classes are not
    known, by the mean of those, weighed by the kernel over what both have.

    For features with many gaps (more than half). Samples of a lost channel are
    `Completer`'s work.

    Parameters
    ----------
    width : float | "median"
        Of the Gaussian, with features scaled to [0, 1]; "median": sqrt(median
        squared distance / 2) over what both have, times features over those.
    C : float
        Of the support vector machine.
    eta : float
        Weight of the factors' distance from one.
    radius : float
        How far the learned kernel is doubted, in the Frobenius norm.
    max_iter : int
    max_trials : int
        A step costs n_trials^3.

    Attributes
    ----------
    kernel_ : ndarray, shape (n_trials, n_trials)
        Of the training trials, for ``SVC(kernel="precomputed")``.
    filled_ : ndarray, shape (n_trials, n_features)
        Training trials, scaled to [0, 1].
    width_ : float
    n_iter_ : int

    Notes
    -----
    In the released code the bounds of the factors take observed for missing
    features (1 stands for missing in one file and for observed in the other), so
    that factors are free where nothing is missing. Here they are one there.

    References
    ----------
    R. Yang et al., "Data imputation by pursuing better classification: a supervised
    kernel-based method", arXiv 2405.07800, 2024.
    """

    def __init__(
        self,
        width: float | str = "median",
        C: float = 1.0,
        eta: float = 1.0,
        radius: float = 1.0,
        max_iter: int = 100,
        max_trials: int = 1000,
    ) -> None:
        self.width = width
        self.C = C
        self.eta = eta
        self.radius = radius
        self.max_iter = max_iter
        self.max_trials = max_trials

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Learn the kernel of the training trials and their values.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
            NaN where missing.
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If there are too many trials, one class, or a feature that no trial has.
        """
        X, y = validate_data(
            self, X, y, dtype=np.float64, ensure_all_finite="allow-nan"
        )
        check_classification_targets(y)
        for name in ("C", "eta", "radius"):
            check_number(name, getattr(self, name), least=0.0)
        check_count("max_iter", self.max_iter)
        if len(X) > check_count("max_trials", self.max_trials):
            fail(
                f"{len(X)} trials",
                why="The kernel of all pairs is learned, at n_trials^3 a step",
                fix=f"give {self.max_trials} at most, or raise max_trials",
            )
        classes, codes = np.unique(y, return_inverse=True)
        wanted = np.arange(1, 2) if len(classes) < 3 else np.arange(len(classes))
        T = np.where(codes[:, None] == wanted, 1.0, -1.0)
        empty = np.isnan(X).all(axis=0)
        if empty.any():
            fail(
                f"Features {listing(np.flatnonzero(empty))} have no value in any trial",
                fix="drop them",
            )
        self.low_ = np.nanmin(X, axis=0)
        high = np.nanmax(X, axis=0)
        self.range_ = np.where(high > self.low_, high - self.low_, 1.0)
        scaled = (X - self.low_) / self.range_
        self.width_ = self._width(scaled)
        K, low = observed_kernel(scaled, self.width_)
        self.kernel_, self.n_iter_ = learned_kernel(
            K,
            low,
            T,
            C=self.C,
            eta=self.eta,
            radius=self.radius,
            max_iter=self.max_iter,
        )
        self.filled_ = values_from_kernel(scaled, self.kernel_, self.width_)
        return self

    def _width(self, X: NDArray) -> float:
        if self.width != "median":
            return check_number("width", self.width, above=0.0)
        seen = (~np.isnan(X)).astype(np.float64)
        common = seen @ seen.T
        near = -2 * np.log(observed_kernel(X, 1.0)[0])
        pairs = np.triu(common > 0, k=1) & (near > 1e-12)
        if not pairs.any():
            return 1.0
        d = near[pairs] * X.shape[1] / common[pairs]
        return float(np.sqrt(0.5 * np.median(d)))

    def fit_transform(self, X: NDArray, y: ArrayLike, **fit_params: Any) -> NDArray:
        """Fit, and return the trials filled in with the help of their classes."""
        self.fit(X, y)
        X = np.asarray(X, dtype=np.float64)
        return np.where(np.isnan(X), self._unscaled(self.filled_), X)

    def transform(self, X: NDArray) -> NDArray:
        """Return trials filled in from training trials alike, without classes.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
            NaN where missing.
        """
        check_is_fitted(self)
        X = validate_data(
            self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False
        )
        gaps = np.isnan(X)
        if not gaps.any():
            return X
        seen = (~gaps).astype(np.float64)
        V = np.where(gaps, 0.0, (X - self.low_) / self.range_)
        F = self.filled_
        d = (V**2).sum(axis=1)[:, None] + seen @ (F**2).T - 2 * V @ F.T
        # Measured on fewer features, a distance is taken for all of them.
        d = d * X.shape[1] / np.maximum(seen.sum(axis=1), 1.0)[:, None]
        logs = -d / (2 * self.width_**2)
        w = np.exp(logs - logs.max(axis=1, keepdims=True))
        mean = self._unscaled(w @ F / w.sum(axis=1, keepdims=True))
        return np.where(gaps, mean, X)

    def _unscaled(self, Z: NDArray) -> NDArray:
        found: NDArray = self.low_ + self.range_ * Z
        return found

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags
