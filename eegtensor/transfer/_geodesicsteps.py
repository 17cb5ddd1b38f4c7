"""Tangent vectors of trials whose domains are recentred by a step of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.geometry import congruence, expm, logm, upper_vector

_GRID = 101
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


class GeodesicSteps:
    """Tangent vectors of trials as a function of their domains' steps.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_bands, n, n)
    means : ndarray, shape (n_domains, n_bands, n, n)
    codes : ndarray of int, shape (n_trials,)
    """

    def __init__(self, X: NDArray, means: NDArray, codes: NDArray) -> None:
        # Copies: torch warns at memory that it may not write into.
        self._X = torch.tensor(X, dtype=torch.float64)
        self.codes = torch.tensor(codes, dtype=torch.int64)
        self._log = logm(torch.tensor(means, dtype=torch.float64))
        eye = torch.eye(X.shape[-1], dtype=torch.float64)
        size = self._log.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
        # log c I: half of it always comes off, so that no unit is left.
        self._size = size[..., None, None] * eye

    def __len__(self) -> int:
        return len(self._log)

    def vectors(self, alphas: Tensor) -> Tensor:
        """Return (n_trials, n_bands n (n + 1) / 2) for one step a domain."""
        way = alphas[:, None, None, None] * (self._log - self._size)
        W = expm(-0.5 * (self._size + way))
        return upper_vector(logm(congruence(W[self.codes], self._X))).flatten(1)

    def mean_vectors(self, alphas: Tensor) -> Tensor:
        """Return each domain's mean vector, shape (n_domains, n_features)."""
        one_hot = torch.nn.functional.one_hot(self.codes, len(self)).double().mT
        return (one_hot / one_hot.sum(1, keepdim=True)) @ self.vectors(alphas)


def ridge(Z: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Return (Z'Z + penalty I)^-1 Z'y by the smaller of the two systems."""
    n, p = Z.shape
    eye = torch.eye(min(n, p), dtype=Z.dtype)
    if p <= n:
        return torch.linalg.solve(Z.mT @ Z + penalty * eye, Z.mT @ y)
    return Z.mT @ torch.linalg.solve(Z @ Z.mT + penalty * eye, y)


def learn_steps(
    steps: GeodesicSteps, y: Tensor, penalty: float, max_iter: int
) -> Tensor:
    """Return the steps that leave the ridge the least residual."""
    a = torch.zeros(len(steps), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [a], max_iter=max_iter, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )
    # As a share of y's variance: the tolerance must not depend on y's unit.
    total = y.square().sum().clamp_min(torch.finfo(y.dtype).tiny)

    def closure() -> Tensor:
        optimizer.zero_grad()
        Z = steps.vectors(torch.sigmoid(a))
        loss = (y - Z @ ridge(Z, y, penalty)).square().sum() / total
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return torch.sigmoid(a.detach())


@torch.no_grad()
def match_mean(steps: GeodesicSteps, coef: Tensor, wanted: float) -> NDArray:
    """Return the steps in [0, 1] whose mean predictions come nearest to `wanted`."""

    def miss(alphas: Tensor) -> Tensor:
        return (steps.mean_vectors(alphas) @ coef - wanted).abs()

    grid = torch.linspace(0.0, 1.0, _GRID, dtype=torch.float64)
    best = grid[
        torch.stack([miss(alpha.expand(len(steps))) for alpha in grid]).argmin(dim=0)
    ]
    width = 1.0 / (_GRID - 1)
    low, high = (best - width).clamp_min(0.0), (best + width).clamp_max(1.0)
    # Each step leaves .62 of the bracket: 1e-10 after 40.
    for _ in range(40):
        left = high - _GOLDEN * (high - low)
        right = low + _GOLDEN * (high - low)
        nearer = miss(left) < miss(right)
        low, high = torch.where(nearer, low, left), torch.where(nearer, right, high)
    middle = 0.5 * (low + high)
    result: NDArray = torch.where(miss(middle) <= miss(best), middle, best).numpy()
    return result


def best_penalty(
    Z: Tensor, y: Tensor, folds: NDArray, penalties: Sequence[float]
) -> float:
    """Return the penalty of the least squared error on people left out."""
    if len(penalties) == 1 or len(np.unique(folds)) < 2:
        return float(penalties[0])
    errors = np.zeros(len(penalties))
    for fold in np.unique(folds):
        out = torch.from_numpy(folds == fold)
        offset = y[~out].mean()
        for k, penalty in enumerate(penalties):
            coef = ridge(Z[~out], y[~out] - offset, penalty)
            errors[k] += float((y[out] - offset - Z[out] @ coef).square().sum())
    return float(penalties[int(errors.argmin())])
