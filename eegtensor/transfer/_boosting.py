"""Steps of gradient boosting with small networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

# Of the squared weights, as of scikit-learn's networks.
_DECAY = 1e-4
# Weights and biases of a hidden and of an output layer.
Units = tuple[NDArray, NDArray, NDArray, NDArray]


def two_columns(F: NDArray) -> NDArray:
    """Return logits of two classes from half of their log odds."""
    return np.concatenate([-F, F], axis=1) if F.shape[1] == 1 else F


def targets(codes: NDArray, n_classes: int) -> NDArray:
    """Return -1 and 1 in one column for two classes, one-hot rows for more."""
    if n_classes == 2:
        return (2.0 * codes - 1.0)[:, None]
    return np.eye(n_classes)[codes]


def start_of(target: NDArray) -> NDArray:
    """Return the constant of the smallest loss (of more than two classes: 0)."""
    if target.shape[1] > 1:
        return np.zeros(target.shape[1])
    return np.arctanh(target.mean(axis=0))


def residuals(target: NDArray, F: NDArray) -> NDArray:
    if target.shape[1] == 1:
        return 2.0 * target * expit(-2.0 * target * F)
    return target - softmax(F, axis=1)


def newton(target: NDArray, residual: NDArray, f: NDArray) -> float:
    """Return the Newton step of the loss along f."""
    if target.shape[1] == 1:
        curvature = np.abs(residual) * (2.0 - np.abs(residual))
    else:
        p = target - residual
        curvature = p * (1.0 - p)
    below = float((f**2 * curvature).sum())
    return float((f * residual).sum()) / below if below > 0 else 0.0


def loss_of(target: NDArray, F: NDArray) -> float:
    if target.shape[1] == 1:
        return float(np.logaddexp(0.0, -2.0 * target * F).mean())
    return float(-(target * log_softmax(F, axis=1)).sum(axis=1).mean())


def safe(target: NDArray, F: NDArray, f: NDArray, rho: float) -> tuple[float, float]:
    """Return the step, halved until the loss does not rise, and that loss."""
    before = loss_of(target, F)
    for _ in range(20):
        after = loss_of(target, F + rho * f)
        if after <= before:
            return rho, after
        rho /= 2.0
    return 0.0, before


def fit_units(
    X: NDArray, R: NDArray, J: int, max_iter: int, rng: np.random.Generator
) -> tuple[Units, int]:
    """Return J logistic units fitted to R by least squares, and the iterations."""
    (n, D), K = X.shape, R.shape[1]
    sizes = np.cumsum([D * J, J, J * K])

    def unpack(w: NDArray) -> Units:
        W, b, V, c = np.split(w, sizes)
        return W.reshape(D, J), b, V.reshape(J, K), c

    def value(w: NDArray) -> tuple[float, NDArray]:
        W, b, V, c = unpack(w)
        s = expit(X @ W + b)
        error = s @ V + c - R
        down = (error @ V.T) * s * (1.0 - s)
        total = (error**2).sum() + _DECAY * ((W**2).sum() + (V**2).sum())
        gradient = np.concatenate(
            [
                (X.T @ down + _DECAY * W).ravel(),
                down.sum(axis=0),
                (s.T @ error + _DECAY * V).ravel(),
                error.sum(axis=0),
            ]
        )
        return 0.5 * total / n, gradient / n

    bound = np.sqrt(2.0 / (D + J))
    w = rng.uniform(-bound, bound, sizes[-1] + K)
    fitted = minimize(
        value, w, jac=True, method="L-BFGS-B", options={"maxiter": max_iter}
    )
    return unpack(fitted.x), int(fitted.nit)
