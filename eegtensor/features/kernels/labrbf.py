"""Kernel machines with a bandwidth for each support trial and feature."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eegtensor._check import as_generator, check_count, check_number, check_option
from eegtensor.features.kernels._bandwidths import Fitting, local_kernel
from eegtensor.features.kernels._heads import (
    KernelClassifier,
    KernelRegressor,
    VectorEstimator,
)


class _LocalBandwidths(VectorEstimator):
    max_supports: int
    ridge: float
    form: str
    start: float
    steps: int
    last_steps: int
    lr: float
    batch_size: int
    random_state: int | None
    n_features_in_: int

    def __init__(
        self,
        max_supports: int = 350,
        ridge: float = 1e-3,
        form: str = "gaussian",
        start: float = 30.0,
        steps: int = 500,
        last_steps: int = 5000,
        lr: float = 1e-2,
        batch_size: int = 128,
        random_state: int | None = 0,
    ) -> None:
        self.max_supports = max_supports
        self.ridge = ridge
        self.form = form
        self.start = start
        self.steps = steps
        self.last_steps = last_steps
        self.lr = lr
        self.batch_size = batch_size
        self.random_state = random_state

    def _check_options(self) -> None:
        check_option("form", self.form, ("gaussian", "laplacian"))
        check_count("max_supports", self.max_supports)
        check_number("ridge", self.ridge, least=0.0)
        check_number("start", self.start, above=0.0)
        check_number("lr", self.lr, above=0.0)
        check_count("batch_size", self.batch_size)
        for name in ("steps", "last_steps"):
            check_count(name, getattr(self, name), least=0)

    def _learn(self, X: NDArray, T: NDArray) -> None:
        """Choose supports and learn their bandwidths."""
        self._check_options()
        low, high = X.min(axis=0), X.max(axis=0)
        self.middle_ = (low + high) / 2
        self.half_range_ = np.where(high > low, (high - low) / 2, 1.0)
        self.offset_ = T.mean(axis=0)
        # Errors of all targets and thresholds know no unit.
        self.size_ = np.where(T.std(axis=0) > 0, T.std(axis=0), 1.0)
        scaled = torch.from_numpy((X - self.middle_) / self.half_range_)
        targets = torch.from_numpy((T - self.offset_) / self.size_)
        n, d = X.shape
        rng = as_generator(self.random_state)
        # Half of the trials at most: the others teach the bandwidths.
        limit = max(1, min(self.max_supports, n // 2 if self.steps else n))
        first = limit if not self.steps else max(1, limit // 3)
        chosen = torch.from_numpy(np.sort(rng.permutation(n)[:first]))
        theta = torch.full((first, d), float(np.sqrt(self.start / d)))
        fitting = Fitting(
            scaled, targets, chosen, theta.double(), ridge=self.ridge, form=self.form
        )
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        options: dict[str, Any] = {"lr": self.lr, "batch_size": self.batch_size}
        with torch.enable_grad():
            fitting.learn(self.steps, generator, clip=10.0, **options)
            while self.steps and fitting.grow(limit):
                fitting.learn(self.steps, generator, clip=10.0, **options)
            fitting.learn(self.last_steps, generator, clip=10.0, **options)
        self.support_ = fitting.supports.numpy()
        self.supports_ = scaled[fitting.supports].numpy()
        self.theta_ = fitting.theta.numpy()
        self.alpha_ = fitting.alpha().numpy()

    def _scores(self, X: NDArray) -> NDArray:
        A = torch.from_numpy((X - self.middle_) / self.half_range_)
        S, theta = _tensors(self.supports_, self.theta_)
        K = local_kernel(A, S, theta, form=self.form).numpy()
        found: NDArray = self.offset_ + self.size_ * (K @ self.alpha_)
        return found


def _tensors(*arrays: NDArray) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(a) for a in arrays)


class LocalBandwidthRegressor(_LocalBandwidths, KernelRegressor):
    """LAB-RBF: kernel regression with learned bandwidths of each support trial.

    f(x) = mean + sum_i alpha_i exp(-|theta_i * (x - s_i)|^2): every support s_i has a
    bandwidth of its own for each feature, so the kernel is not symmetric. alpha solves
    (K + ridge I) alpha = y - mean on the supports; theta descends on the squared
    error of the other trials, through that solution. Trials of largest error become
    supports until there are enough: few supports, and not the ridge, keep it smooth.

    Parameters
    ----------
    max_supports : int
        At most half of the trials are taken: the others teach the bandwidths.
    ridge : float
        0 is ridgeless regression.
    form : "gaussian" | "laplacian"
        "laplacian" leaves out the square, as the released code does.
    start : float
        theta starts at sqrt(start / n_features), of features scaled to [-1, 1].
    steps, last_steps : int
        Of Adam between additions of supports, and at the end. ``steps=0`` takes
        all supports at once and learns nothing before the last steps.
    lr : float
    batch_size : int
    random_state : int | None
        Draws the first supports, a third of them, and batches.

    Attributes
    ----------
    support_ : ndarray of int, shape (n_supports,)
        Positions of the supports in the training set.
    theta_ : ndarray, shape (n_supports, n_features)
        Of features scaled to [-1, 1].
    alpha_ : ndarray, shape (n_supports, n_targets)

    Notes
    -----
    The released code predicts with alpha of the step before the last; here alpha
    belongs to the final theta.

    References
    ----------
    F. He et al., "Enhancing kernel flexibility via learning asymmetric
    locally-adaptive kernels", arXiv 2310.05236, 2023; F. He et al., "Learning
    analysis of kernel ridgeless regression with asymmetric kernel learning", 2024.
    """

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Choose supports and learn their bandwidths.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,) or (n_trials, n_targets)

        Raises
        ------
        EEGTensorError
            If an option is out of its range.
        """
        self._learn(*self._checked(X, y))
        return self


class LocalBandwidthClassifier(_LocalBandwidths, KernelClassifier):
    """LAB-RBF on class targets plus and minus one: see `LocalBandwidthRegressor`.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    support_ : ndarray of int, shape (n_supports,)
    theta_ : ndarray, shape (n_supports, n_features)
    alpha_ : ndarray, shape (n_supports, n_targets)
    """

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Choose supports and learn their bandwidths.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If an option is out of its range, or there is one class.
        """
        self._learn(*self._checked(X, y))
        return self
