"""The mixture of domains with the largest loss among those that are like domains."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize


def worst_mixture(losses: NDArray, K: NDArray, nu: float) -> NDArray:
    """Return the shares of domains with the largest mixed loss in the ball.

    Parameters
    ----------
    losses : ndarray, shape (n_domains,)
    K : ndarray, shape (n_domains, n_domains)
        Inner products of embeddings.
    nu : float
        The ball about their mean holds ``ceil((1 - nu) n)`` of them; with none to
        hold it is a point.
    """
    n = len(losses)
    centre = np.full(n, 1.0 / n)
    square = np.diag(K) - 2 * K @ centre + centre @ K @ centre
    held = math.ceil(round((1.0 - nu) * n, 9))
    radius = np.sort(square)[held - 1] if held else 0.0
    scale = max(float(square.max()), 1e-300)
    vertex = np.zeros(n)
    vertex[np.argmax(losses)] = 1.0
    if held == n or square[np.argmax(losses)] <= radius:
        return vertex
    if radius <= 1e-12 * scale or np.ptp(losses) == 0:
        return centre
    c, Q, r = (losses - losses.mean()) / np.ptp(losses), K / scale, radius / scale
    found = minimize(
        lambda q: -(c @ q),
        centre,
        jac=lambda q: -c,
        bounds=[(0.0, 1.0)] * n,
        constraints=[
            {"type": "eq", "fun": lambda q: q.sum() - 1.0, "jac": lambda q: np.ones(n)},
            {
                "type": "ineq",
                "fun": lambda q: r - (q - centre) @ Q @ (q - centre),
                "jac": lambda q: -2.0 * Q @ (q - centre),
            },
        ],
        method="SLSQP",
        options={"maxiter": 300, "ftol": 1e-12},
    )
    q = np.clip(found.x, 0.0, None)
    result: NDArray = q / q.sum()
    return result if np.isfinite(result).all() else centre
