"""A Gaussian discriminant as the head of a frozen network: no training."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf, oas
from sklearn.model_selection import StratifiedKFold

from eegtensor._check import check_number, check_option
from eegtensor.transfer._heads import FeatureClassifier, logits_of

PRECISIONS = ("ks", "ledoit-wolf", "oas", "empirical")
_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


class GaussianDiscriminant(FeatureClassifier):
    """Classes as Gaussians of one covariance, in closed form.

    Logits are base_scale z + alpha (W x + b): W = P mu_k and b = log prior_k -
    mu_k' P mu_k / 2 with class means mu and a regularised inverse P of the covariance
    within classes, and z the logits of a classifier fitted before, if there is one,
    such as one of other people: a few trials of a new person calibrate it.

    Parameters
    ----------
    precision : "ks" | "ledoit-wolf" | "oas" | "empirical"
        "ks" is Kubokawa and Srivastava's D ((N - 1) S + tr(S) I)^-1 of D features and
        N trials.
    prior : "uniform" | "empirical"
    base : classifier | None
        Fitted. Wrap it in `sklearn.frozen.FrozenEstimator` where clones are made.
    base_scale : float
    alpha : float | "auto"
        With a base only. "auto": the one of 1e-4 to 100 of the smallest log loss in
        5-fold cross-validation; 1 where a class has a single trial.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    means_ : ndarray, shape (n_classes, n_features)
    coef_ : ndarray, shape (n_classes, n_features)
    intercept_ : ndarray, shape (n_classes,)
    alpha_ : float

    References
    ----------
    Z. Wang et al., "A hard-to-beat baseline for training-free CLIP-based adaptation",
    ICLR 2024, eqs. 5-8.
    """

    def __init__(
        self,
        precision: str = "ks",
        prior: str = "uniform",
        base: Any = None,
        base_scale: float = 1.0,
        alpha: float | str = 1.0,
    ) -> None:
        self.precision = precision
        self.prior = prior
        self.base = base
        self.base_scale = base_scale
        self.alpha = alpha

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Find the means, the covariance and, with a base, the weight of both.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If an option is not known, there is one class, or the base does not fit.
        """
        check_option("precision", self.precision, PRECISIONS)
        check_option("prior", self.prior, ("uniform", "empirical"))
        X, codes = self._checked(X, y)
        self.means_, self.coef_, self.intercept_ = self._solve(X, codes)
        self.alpha_ = 1.0
        if self.base is not None:
            z = self.base_scale * logits_of(self.base, X, self.classes_)
            if self.alpha == "auto":
                self.alpha_ = self._best_alpha(X, codes, z)
            else:
                self.alpha_ = check_number("alpha", self.alpha, least=0.0)
        return self

    def _solve(self, X: NDArray, codes: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        n_classes = len(self.classes_)
        share = np.eye(n_classes)[codes]
        counts = share.sum(axis=0)
        means = share.T @ X / counts[:, None]
        prior = counts / len(X)
        if self.prior == "uniform":
            prior = np.full(n_classes, 1.0 / n_classes)
        W = precision_times(X - means[codes], means, self.precision)
        return means, W, np.log(prior) - 0.5 * (means * W).sum(axis=1)

    def _best_alpha(self, X: NDArray, codes: NDArray, z: NDArray) -> float:
        """Return the weight of the smallest log loss on trials left out."""
        n_folds = min(5, int(np.bincount(codes).min()))
        if n_folds < 2:
            return 1.0
        own = np.zeros_like(z)
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
        for train, test in folds.split(X, codes):
            _, W, b = self._solve(X[train], codes[train])
            own[test] = X[test] @ W.T + b
        each = np.arange(len(codes))
        losses = [
            -log_softmax(z + alpha * own, axis=1)[each, codes].mean() for alpha in _GRID
        ]
        return float(_GRID[int(np.argmin(losses))])

    def _logits(self, X: NDArray) -> NDArray:
        own: NDArray = X @ self.coef_.T + self.intercept_
        if self.base is None:
            return own
        z = logits_of(self.base, X, self.classes_)
        fused: NDArray = self.base_scale * z + self.alpha_ * own
        return fused


def precision_times(residuals: NDArray, vectors: NDArray, precision: str) -> NDArray:
    """Return vectors times a regularised inverse covariance, in rows.

    Parameters
    ----------
    residuals : ndarray, shape (n_trials, n_features)
        Centred within their classes.
    vectors : ndarray, shape (n, n_features)
    precision : str
    """
    N, D = residuals.shape
    # One scale for all: thresholds and solves know no unit.
    scale = float(np.sqrt(np.mean(residuals**2)))
    if not scale > np.finfo(np.float64).tiny:
        # No trial differs from its class's mean: all directions are alike.
        spread = float(np.mean(vectors**2))
        alike: NDArray = vectors / (spread if spread > 0 else 1.0)
        return alike
    R = residuals / scale
    if precision == "ledoit-wolf":
        covariance = ledoit_wolf(R, assume_centered=True)[0]
    elif precision == "oas":
        covariance = oas(R, assume_centered=True)[0]
    elif precision == "empirical":
        covariance = R.T @ R / max(N - 1, 1)
        found: NDArray = vectors @ np.linalg.pinv(covariance, hermitian=True)
        return found / scale**2
    else:
        gram = R.T @ R
        covariance = (gram + np.trace(gram) / max(N - 1, 1) * np.eye(D)) / D
    solved: NDArray = solve(covariance, vectors.T, assume_a="pos").T
    return solved / scale**2
