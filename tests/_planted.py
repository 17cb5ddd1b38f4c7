"""Tensors of known structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LETTERS = "abcdefgh"


def cp_tensor(factors: list[NDArray]) -> NDArray:
    """Return the sum over columns of the factors' outer products, by einsum."""
    axes = LETTERS[: len(factors)]
    terms = ",".join(f"{axis}r" for axis in axes)
    return np.einsum(f"{terms}->{axes}", *factors, optimize=True)


def noisy(X: NDArray, decibel: float, rng: np.random.Generator) -> NDArray:
    """Return X with white noise, its signal-to-noise ratio in decibel."""
    noise = rng.standard_normal(X.shape)
    size = np.linalg.norm(X) / np.linalg.norm(noise)
    return X + noise * size * 10 ** (-decibel / 20)


def match(found: list[NDArray], planted: list[NDArray]) -> float:
    """Return the mean over components of the product of |cosines|, best pairing."""
    from scipy.optimize import linear_sum_assignment

    score = np.ones((planted[0].shape[1], found[0].shape[1]))
    for U, V in zip(planted, found, strict=True):
        U = U / np.linalg.norm(U, axis=0)
        V = V / np.linalg.norm(V, axis=0)
        score *= np.abs(U.T @ V)
    rows, columns = linear_sum_assignment(-score)
    return float(score[rows, columns].mean())
