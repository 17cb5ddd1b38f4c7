"""A kernel of trials with missing features, learned for their classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegtensor.geometry.spectral import eigh, from_eig


def observed_kernel(X: NDArray, width: float) -> tuple[NDArray, NDArray]:
    """Return the kernel of what both trials have, and the least a rest can leave.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_features)
        In [0, 1], NaN where missing.
    width : float

    Returns
    -------
    K : ndarray, shape (n_trials, n_trials)
        exp(-|x - z|^2 / (2 width^2)) over features that both have.
    low : ndarray, shape (n_trials, n_trials)
        Least factor that the other features can have; the largest is 1. It is 1
        where both trials are complete.
    """
    seen = ~np.isnan(X)
    V, M = np.where(seen, X, 0.0), seen.astype(np.float64)
    square = (V**2) @ M.T
    near = np.maximum(square + square.T - 2 * V @ V.T, 0.0)
    # A feature that one trial has is at most max(x, 1 - x) away, of neither 1.
    reach = np.where(seen, np.maximum(V, 1 - V) ** 2, 0.0)
    far = reach @ (1 - M).T
    far = far + far.T + (1 - M) @ (1 - M).T
    np.fill_diagonal(near, 0.0)
    np.fill_diagonal(far, 0.0)
    scale = 2 * width**2
    return np.exp(-near / scale), np.exp(-far / scale)


def nearest_kernel(K: NDArray) -> NDArray:
    """Return K without its negative eigenvalues, its diagonal one again."""
    values, vectors = eigh(0.5 * (K + K.T))
    if values.min() >= 0.0:
        return K
    found: NDArray = from_eig(np.maximum(values, 0.0), vectors)
    d = np.sqrt(np.maximum(np.diag(found), 1e-12))
    found = found / (d[:, None] * d)
    return np.clip(found, 1e-8, 1.0)


def onto_dual(a: NDArray, t: NDArray, C: float) -> NDArray:
    """Return the nearest rows with 0 <= a <= C and t'a = 0, by bisection.

    Parameters
    ----------
    a, t : ndarray, shape (n_problems, n_trials)
    C : float
    """
    high = np.abs(a).max(axis=1, keepdims=True) + C
    low = -high
    for _ in range(80):
        middle = 0.5 * (low + high)
        excess = (t * np.clip(a - middle * t, 0.0, C)).sum(axis=1, keepdims=True)
        low, high = (
            np.where(excess > 0, middle, low),
            np.where(excess > 0, high, middle),
        )
    return np.clip(a - 0.5 * (low + high) * t, 0.0, C)


class _Adam:
    """Adam's step, with a rate that falls as one over the root of the step."""

    def __init__(self, shape: tuple[int, ...], lr: float) -> None:
        self.m, self.v, self.t, self.lr = np.zeros(shape), np.zeros(shape), 0, lr

    def step(self, g: NDArray) -> NDArray:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        found: NDArray = self.lr / np.sqrt(self.t) * m / (np.sqrt(v) + 1e-8)
        return found


def learned_kernel(
    K: NDArray,
    low: NDArray,
    T: NDArray,
    *,
    C: float,
    eta: float,
    radius: float,
    max_iter: int,
    tol: float = 1e-4,
) -> tuple[NDArray, int]:
    """Return K times the factors of missing features that part the classes best.

    With it the number of steps; one where nothing is missing. The objective is
    min over factors D in [low, 1], max over a and E with |E - 1| <= radius, of
    sum_k (1'a_k - a_k' T_k (K * D * E) T_k a_k / 2) + eta |D - 1|^2, by alternating
    steps; a_k solves the k-th support vector machine, E is the doubt in what was
    learned. Only pairs with a missing feature have factors.

    Parameters
    ----------
    K, low : ndarray, shape (n_trials, n_trials)
        Of `observed_kernel`.
    T : ndarray, shape (n_trials, n_problems)
        Plus and minus one.
    C, eta, radius : float
    max_iter : int
    tol : float
        Least change of a.
    """
    free = low < 1.0 - 1e-12
    if not free.any():
        return K, 1
    t, n_iter = T.T, 0
    D, E, a = np.ones_like(K), np.ones_like(K), np.full(t.shape, C / 2)
    a = onto_dual(a, t, C)
    steps = [_Adam(z.shape, 0.1) for z in (D, E, a)]
    for n_iter in range(1, max_iter + 1):  # noqa: B007
        pull = 0.5 * (t * a).T @ (t * a)
        D = D - steps[0].step(np.where(free, 2 * eta * (D - 1) - pull * K * E, 0.0))
        D = np.where(free, np.clip(D, low, 1.0), 1.0)
        D = np.clip(nearest_kernel(K * D * E) / (K * E), low, 1.0)
        E = E - steps[1].step(np.where(free, pull * K * D, 0.0))
        away = np.linalg.norm(E - 1)
        if away > radius:
            E = 1 + radius * (E - 1) / away
        # A factor that is not positive were no kernel's.
        E = np.where(free, np.maximum(E, 1e-3), 1.0)
        Q = nearest_kernel(K * D * E)
        ascent = steps[2].step(t * ((t * a) @ Q) - 1.0)
        new = onto_dual(a - ascent, t, C)
        moved, a = float(np.linalg.norm(new - a)), new
        if moved < tol:
            break
    return nearest_kernel(K * D), n_iter
