"""A one-layer network grown unit by unit, which can be stopped at any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from torch import nn

from eegtensor._check import RandomState, as_generator, check_count, check_number, fail
from eegtensor.transfer._boosting import (
    fit_units,
    newton,
    residuals,
    safe,
    start_of,
    targets,
    two_columns,
)
from eegtensor.transfer._heads import FeatureClassifier


class BoostedHead(FeatureClassifier):
    """Gradient boosting whose steps are a few logistic units each.

    Step t fits ``units_per_step`` units to the residuals y - p of the network so far,
    and adds them times rho, a Newton step on the log loss, halved while the loss would
    rise. All units together are one network with a hidden layer, of which the
    first so many are a network too: on a slow device fewer are computed.

    Parameters
    ----------
    n_units : int
    units_per_step : int
    learning_rate : float
        Factor of the Newton steps.
    subsample : float
        Share of trials of each step.
    max_iter : int
        Of L-BFGS in each step.
    random_state : int | numpy.random.Generator | None

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    hidden_coef_ : ndarray, shape (n_features, n_units)
    hidden_intercept_ : ndarray, shape (n_units,)
    output_coef_ : ndarray, shape (n_units, n_outputs)
        One output for two classes, half of their log odds.
    output_intercept_ : ndarray, shape (n_steps + 1, n_outputs)
        Of the start and of each step; they add up.
    n_iter_ : int
        Most iterations of a step.
    losses_ : ndarray, shape (n_steps,)
        Log loss of the training trials after each step.

    References
    ----------
    S. Emami and G. Martinez-Munoz, "Sequential training of neural networks with
    gradient boosting", IEEE Access 2023.
    """

    def __init__(
        self,
        n_units: int = 200,
        units_per_step: int = 1,
        learning_rate: float = 1.0,
        subsample: float = 0.5,
        max_iter: int = 200,
        random_state: RandomState = 0,
    ) -> None:
        self.n_units = n_units
        self.units_per_step = units_per_step
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Grow the network.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If an option is out of range, or there is one class.
        """
        J = check_count("units_per_step", self.units_per_step)
        n_steps = check_count("n_units", self.n_units) // J
        rate = check_number("learning_rate", self.learning_rate, above=0.0)
        check_count("max_iter", self.max_iter)
        if n_steps < 1 or not 0 < self.subsample <= 1:
            fail(
                f"n_units={self.n_units}, subsample={self.subsample}",
                fix=f"n_units from {J} up, subsample above 0 and up to 1",
            )
        X, codes = self._checked(X, y)
        rng = as_generator(self.random_state)
        centre, scale = X.mean(axis=0), X.std(axis=0)
        # Constant features stay at zero; rounding is no deviation.
        scale[scale <= 1e-12 * np.abs(centre)] = np.inf
        Z = (X - centre) / scale
        target = targets(codes, len(self.classes_))
        F = np.tile(start_of(target), (len(X), 1))
        start, losses = F[0].copy(), []
        hidden, bias, out, shift = [], [], [], [start]
        size = max(int(self.subsample * len(X)), min(len(X), 2))
        self.n_iter_ = 0
        for _ in range(n_steps):
            part = rng.permutation(len(X))[:size]
            residual = residuals(target, F)
            (W, b, V, c), used = fit_units(
                Z[part], residual[part], J, self.max_iter, rng
            )
            self.n_iter_ = max(self.n_iter_, used)
            f = expit(Z @ W + b) @ V + c
            rho = newton(target, residual, f) * rate
            rho, loss = safe(target, F, f, rho)
            F = F + rho * f
            hidden.append(W / scale[:, None])
            bias.append(b - centre @ hidden[-1])
            out.append(rho * V)
            shift.append(rho * c)
            losses.append(loss)
        self.hidden_coef_ = np.concatenate(hidden, axis=1)
        self.hidden_intercept_ = np.concatenate(bias)
        self.output_coef_ = np.concatenate(out)
        self.output_intercept_ = np.stack(shift)
        self.losses_ = np.array(losses)
        # One step holds so many units, also where the option is set anew later.
        self._step_size = J
        return self

    def staged_decision_function(self, X: NDArray) -> Iterator[NDArray]:
        """Yield logits (n_trials, n_classes) after each step of growth."""
        X = self._features(X)
        units = expit(X @ self.hidden_coef_ + self.hidden_intercept_)
        F = np.tile(self.output_intercept_[0], (len(X), 1))
        for t, shift in enumerate(self.output_intercept_[1:]):
            own = slice(t * self._step_size, (t + 1) * self._step_size)
            F = F + units[:, own] @ self.output_coef_[own] + shift
            yield two_columns(F)

    def truncated(self, n_units: int) -> BoostedHead:
        """Return the network of the first units.

        Parameters
        ----------
        n_units : int
            Rounded down to whole steps.
        """
        steps = check_count("n_units", n_units) // self._step_size
        if not 1 <= steps < len(self.output_intercept_):
            fail(
                f"n_units={n_units} of {len(self.hidden_intercept_)}",
                fix=f"keep at least {self._step_size}, and no more than there are",
            )
        kept = steps * self._step_size
        short = BoostedHead(**self.get_params())
        short.__dict__.update(self.__dict__)
        short.hidden_coef_ = self.hidden_coef_[:, :kept]
        short.hidden_intercept_ = self.hidden_intercept_[:kept]
        short.output_coef_ = self.output_coef_[:kept]
        short.output_intercept_ = self.output_intercept_[: steps + 1]
        short.losses_ = self.losses_[:steps]
        return short

    def to_network(self) -> nn.Sequential:
        """Return the head as a torch module, features to logits, float64."""
        V, c = self.output_coef_, self.output_intercept_.sum(axis=0)
        V, c = two_columns(V), two_columns(c[None])[0]
        n_features, n_units = self.hidden_coef_.shape
        first = nn.Linear(n_features, n_units, dtype=torch.float64)
        last = nn.Linear(n_units, V.shape[1], dtype=torch.float64)
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(self.hidden_coef_.T.copy()))
            first.bias.copy_(torch.from_numpy(self.hidden_intercept_))
            last.weight.copy_(torch.from_numpy(V.T.copy()))
            last.bias.copy_(torch.from_numpy(c.copy()))
        return nn.Sequential(first, nn.Sigmoid(), last)

    def _logits(self, X: NDArray) -> NDArray:
        units = expit(X @ self.hidden_coef_ + self.hidden_intercept_)
        return two_columns(
            units @ self.output_coef_ + self.output_intercept_.sum(axis=0)
        )
