"""Distances and geodesics of SPD matrices in three metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_option
from eegtensor.geometry.spectral import (
    congruence,
    eigvalsh,
    expm,
    inv_sqrtm,
    logm,
    positive,
    powm,
    sqrtm_pair,
)

METRICS = ("affine-invariant", "log-euclidean", "euclidean")


def distance(A: NDArray, B: NDArray, *, metric: str = "affine-invariant") -> NDArray:
    """Return the distance between SPD matrices.

    Parameters
    ----------
    A, B : ndarray, shape (..., n, n)
        They broadcast against each other.
    metric : "affine-invariant" | "log-euclidean" | "euclidean"
        ||log(A^-1/2 B A^-1/2)||, ||log A - log B||, ||A - B|| (Frobenius).

    Returns
    -------
    d : ndarray, shape (...)
    """
    check_option("metric", metric, METRICS)
    if metric == "affine-invariant":
        whitened = congruence(inv_sqrtm(A), B)
        logs = np.log(positive(eigvalsh(whitened)))
        return np.sqrt((logs**2).sum(axis=-1))
    difference = A - B if metric == "euclidean" else logm(A) - logm(B)
    return np.sqrt((difference**2).sum(axis=(-1, -2)))


def geodesic(
    A: NDArray, B: NDArray, t: float | NDArray, *, metric: str = "affine-invariant"
) -> NDArray:
    """Return the point at t on the geodesic from A (t = 0) to B (t = 1).

    Parameters
    ----------
    A, B : ndarray, shape (..., n, n)
    t : float | ndarray, shape (...)
    metric : "affine-invariant" | "log-euclidean" | "euclidean"
    """
    check_option("metric", metric, METRICS)
    if metric == "affine-invariant":
        root, inverse_root = sqrtm_pair(A)
        return congruence(root, powm(congruence(inverse_root, B), t))
    weight = np.asarray(t)[..., np.newaxis, np.newaxis]
    if metric == "euclidean":
        return (1 - weight) * A + weight * B
    return expm((1 - weight) * logm(A) + weight * logm(B))
