"""Riemannian means that are computed once: by content, and from warm starts.

Cross-validation asks for the mean of the same person's trials in every fold.
Means of a domain are remembered by a hash of the matrices; a mean over many
domains starts from the mean of theirs, a few iterations from the end.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_option
from eegtensor.geometry import frechet_mean
from eegtensor.geometry.metrics import METRICS

# Some 2000 means of 64 channels: more people than a benchmark has in one fold.
_LIMIT_BYTES = 64 << 20
_remembered: OrderedDict[bytes, NDArray] = OrderedDict()
_lock = threading.Lock()


def _recall(keys: list[bytes]) -> dict[bytes, NDArray]:
    with _lock:
        return {key: _remembered[key] for key in keys if key in _remembered}


def _remember(means: dict[bytes, NDArray]) -> None:
    """Keep means, the ones used last longest, in some 64 MB."""
    with _lock:
        for key, mean in means.items():
            _remembered[key] = mean
            _remembered.move_to_end(key)
        total = sum(mean.nbytes for mean in _remembered.values())
        # Evicting by age keeps what the next fold, which shares people, asks for.
        while total > _LIMIT_BYTES:
            total -= _remembered.popitem(last=False)[1].nbytes


def segment_means(
    X: NDArray,
    codes: NDArray,
    n_segments: int,
    *,
    metric: str = "affine-invariant",
    weights: ArrayLike | None = None,
) -> NDArray:
    """Return the Frechet mean of every segment, from memory where it is known.

    Parameters
    ----------
    X : ndarray, shape (n_trials, [n_bands,] n, n)
    codes : ndarray of int, shape (n_trials,)
        Segment of each trial, 0 .. n_segments - 1; none is empty.
    n_segments : int
    metric : str
    weights : array-like, shape (n_trials,) | None

    Returns
    -------
    M : ndarray, shape (n_segments, [n_bands,] n, n)
    """
    check_option("metric", metric, METRICS)
    if X.ndim == 4:
        bands = [
            segment_means(X[:, b], codes, n_segments, metric=metric, weights=weights)
            for b in range(X.shape[1])
        ]
        return np.stack(bands, axis=1)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(n_segments + 1))
    sorted_X = np.ascontiguousarray(X[order])
    w = None if weights is None else np.asarray(weights, dtype=np.float64)[order]
    keys = []
    for k in range(n_segments):
        part = slice(bounds[k], bounds[k + 1])
        digest = hashlib.blake2b(metric.encode(), digest_size=16)
        digest.update(repr((sorted_X[part].shape, sorted_X.dtype.str)).encode())
        digest.update(sorted_X[part].data)
        if w is not None:
            digest.update(w[part].tobytes())
        keys.append(digest.digest())
    found = _recall(keys)
    missing = [k for k, key in enumerate(keys) if key not in found]
    if missing:
        rank = np.full(n_segments, -1)
        rank[missing] = np.arange(len(missing))
        segments = rank[codes[order]]
        chosen = segments >= 0
        means = frechet_mean(
            sorted_X[chosen],
            metric=metric,
            segments=segments[chosen],
            weights=None if w is None else w[chosen],
        )
        found |= {keys[k]: mean for k, mean in zip(missing, means, strict=True)}
    _remember(found)
    return np.stack([found[key] for key in keys])


def grouped_mean(
    X: NDArray,
    groups: NDArray,
    n_groups: int,
    domains: NDArray | None,
    *,
    metric: str = "affine-invariant",
    weights: ArrayLike | None = None,
) -> NDArray:
    """Return the mean of every group (a class), started from its domains' means.

    Parameters
    ----------
    X : ndarray, shape (n_trials, [n_bands,] n, n)
    groups : ndarray of int, shape (n_trials,)
    n_groups : int
    domains : ndarray of int, shape (n_trials,) | None
        Without domains the search starts at the arithmetic mean.
    metric : str
    weights : array-like, shape (n_trials,) | None

    Returns
    -------
    M : ndarray, shape (n_groups, [n_bands,] n, n)
    """
    if X.ndim == 4:
        means = [
            grouped_mean(
                X[:, b], groups, n_groups, domains, metric=metric, weights=weights
            )
            for b in range(X.shape[1])
        ]
        return np.stack(means, axis=1)
    if weights is not None:
        # A person whose trials of a class weigh nothing has no mean of that class.
        weights = np.asarray(weights, dtype=np.float64)
        counted = weights != 0
        X, groups, weights = X[counted], groups[counted], weights[counted]
        domains = None if domains is None else domains[counted]
    init = None
    if domains is not None and metric == "affine-invariant" and np.ptp(domains) > 0:
        cells, cell = np.unique(
            np.column_stack([groups, domains]), axis=0, return_inverse=True
        )
        cell = cell.ravel()
        local = segment_means(X, cell, len(cells), metric=metric, weights=weights)
        mass = np.bincount(cell, weights=weights)
        # It need not be exact: the last search ends within its own tolerance
        # wherever it starts, so that domains change no result.
        init = frechet_mean(
            local,
            metric=metric,
            segments=cells[:, 0],
            weights=mass,
            tol=1e-6,
        )
    return frechet_mean(X, metric=metric, segments=groups, weights=weights, init=init)
