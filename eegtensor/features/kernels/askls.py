"""A classifier whose kernel need not be symmetric."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from eegtensor._check import as_array, check_lengths, check_number, check_option, fail
from eegtensor.features._base import check_matrices
from eegtensor.features.kernels._asymmetric import solve_asymmetric
from eegtensor.features.kernels._heads import KernelClassifier, median_gamma
from eegtensor.features.kernels.directed import divergence, neighbour_kernel

KERNELS = ("sne", "t-sne", "rbf", "kl", "precomputed")
_TAILS = {"sne": "gaussian", "t-sne": "student"}


class AsymmetricKernelClassifier(KernelClassifier):
    """AsK-LS: least squares with an asymmetric kernel, read from both sides.

    A trial x has two feature maps, one as a source, K(x, .), and one as a target,
    K(., x). Both decision functions come from one linear system.

    Parameters
    ----------
    kernel : "sne" | "t-sne" | "rbf" | "kl" | "precomputed"
        "sne" and "t-sne" of vectors: `neighbour_kernel`; "rbf" is symmetric, the
        least squares support vector machine. "kl" of covariance matrices:
        exp(-gamma D) of `divergence`. "precomputed": fit takes K(train, train);
        later calls K(x, train) and K(train, x)' side by side, (n, 2 n_train), or
        K(x, train) alone, and then the source function decides.
    gamma : float | "median"
        Width: "median" is 1 / median squared distance of training trials, of "kl"
        1 / median divergence, which knows no unit.
    C : float
        Weight of the errors.
    combine : "sum" | "stack"
        The mean of both functions, or a logistic regression of both, fitted to
        those of trials left out (10 folds).

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    gamma_ : float
    solution_ : AsymmetricSolution

    References
    ----------
    M. He et al., "Learning with asymmetric kernels: least squares and feature
    interpretation", IEEE TPAMI, 2023.
    """

    def __init__(
        self,
        kernel: str = "sne",
        gamma: float | str = "median",
        C: float = 1.0,
        combine: str = "sum",
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.C = C
        self.combine = combine

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Solve for both decision functions.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
            Of "kl" covariance matrices (n_trials, n_channels, n_channels), of
            "precomputed" the kernel (n_trials, n_trials).
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If an option is not known, or there is one class.
        """
        check_option("kernel", self.kernel, KERNELS)
        check_option("combine", self.combine, ("sum", "stack"))
        check_number("C", self.C, above=0.0)
        if self.kernel == "kl":
            X = check_matrices(X).astype(np.float64)
            check_lengths(len(X), y=y)
            T = self._targets(np.asarray(y))
        else:
            X, T = self._checked(X, y)
        self._train = X
        self.gamma_ = self._width(X)
        K = X if self.kernel == "precomputed" else self._source(X)
        self.solution_ = solve_asymmetric(K, T, gamma=self.C)
        self.stack_ = None
        if self.combine == "stack":
            self.stack_ = self._stacked(K, T)
        return self

    def _width(self, X: NDArray) -> float:
        if self.kernel == "precomputed":
            return 1.0
        if self.kernel != "kl" or self.gamma != "median":
            return median_gamma(X, self.gamma)
        step = max(1, -(-len(X) // 1000))
        D = divergence(X[::step], X[::step])
        # A trial's divergence from itself is rounding.
        D = D[~np.eye(len(D), dtype=bool)]
        middle = float(np.median(D)) if len(D) else 0.0
        return 1.0 / middle if middle > 0 else 1.0

    def _between(self, A: NDArray, B: NDArray) -> NDArray:
        if self.kernel == "kl":
            return np.exp(-self.gamma_ * divergence(A, B))
        if self.kernel == "rbf":
            return np.exp(-self.gamma_ * cdist(A, B, "sqeuclidean"))
        return neighbour_kernel(
            A, B, self._train, gamma=self.gamma_, tails=_TAILS[self.kernel]
        )

    def _source(self, X: NDArray) -> NDArray:
        """Return K(x, train), shape (n, n_train)."""
        return self._between(X, self._train)

    def _rows(self, X: Any) -> NDArray:
        if self.kernel == "kl":
            check_is_fitted(self)
            return check_matrices(X).astype(np.float64)
        if self.kernel != "precomputed":
            return super()._rows(X)
        check_is_fitted(self)
        X, n = as_array(X), len(self._train)
        if X.ndim != 2 or X.shape[1] not in (n, 2 * n):
            fail(
                f"The kernel has shape {X.shape}",
                fix=f"give K(x, train), or it and K(train, x)' side by side: {n} or "
                f"{2 * n} columns",
            )
        return X.astype(np.float64)

    def _sides(self, X: NDArray) -> tuple[NDArray, NDArray]:
        """Return the source and the target function, (n, n_targets) each."""
        s, n = self.solution_, len(self._train)
        if self.kernel != "precomputed":
            to, back = self._source(X), self._between(self._train, X).T
        else:
            to, back = X[:, :n], X[:, n:]
        source = to @ s.source + s.source_bias
        target = back @ s.target + s.target_bias if back.shape[1] else source
        return source, target

    def _scores(self, X: NDArray) -> NDArray:
        source, target = self._sides(X)
        if self.stack_ is None:
            return 0.5 * (source + target)
        f = self.stack_.decision_function(np.hstack([source, target]))
        return f[:, None] if f.ndim == 1 else f

    def _stacked(self, K: NDArray, T: NDArray) -> LogisticRegression:
        """Return the logistic regression of functions that did not see the trial."""
        codes = T.argmax(axis=1) if T.shape[1] > 1 else (T[:, 0] > 0).astype(int)
        n_folds = min(10, int(np.bincount(codes).min()))
        if n_folds < 2:
            fail(
                "combine='stack' needs two trials of every class",
                fix="give more trials, or combine='sum'",
            )
        both = np.empty((len(T), 2 * T.shape[1]))
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
        for train, test in folds.split(K, codes):
            s = solve_asymmetric(K[np.ix_(train, train)], T[train], gamma=self.C)
            both[test] = np.hstack(
                [
                    K[np.ix_(test, train)] @ s.source + s.source_bias,
                    K[np.ix_(train, test)].T @ s.target + s.target_bias,
                ]
            )
        return LogisticRegression(max_iter=1000).fit(both, codes)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        tags.input_tags.three_d_array = self.kernel == "kl"
        tags.input_tags.two_d_array = self.kernel != "kl"
        return tags
