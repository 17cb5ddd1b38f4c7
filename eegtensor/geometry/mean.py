"""Frechet means of SPD matrices, many segments in one batch."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, check_option, fail, listing
from eegtensor.geometry.metrics import METRICS
from eegtensor.geometry.spectral import congruence, expm, logm, sqrtm_pair

logger = logging.getLogger("eegtensor")


def frechet_mean(
    X: NDArray,
    *,
    metric: str = "affine-invariant",
    weights: ArrayLike | None = None,
    segments: ArrayLike | None = None,
    init: NDArray | None = None,
    tol: float = 1e-8,
    max_iter: int = 50,
) -> NDArray:
    """Return the Frechet mean of SPD matrices, or one mean per segment.

    The affine-invariant mean is found by Karcher flow with a secant step: the
    step length is the inverse of the curvature seen in the last step.

    Parameters
    ----------
    X : ndarray, shape (n_matrices, n, n)
    metric : "affine-invariant" | "log-euclidean" | "euclidean"
    weights : array-like, shape (n_matrices,) | None
        Non-negative; they are normalised to sum to one in each segment.
    segments : array-like of int, shape (n_matrices,) | None
        Segment 0 .. n_segments - 1 of each matrix; none may be empty.
    init : ndarray, shape (n, n) or (n_segments, n, n) | None
        Start of the flow; by default the arithmetic mean. A start near the
        result saves iterations and changes it by no more than `tol`.
    tol : float
        The flow stops when the Frobenius norm of the mean tangent vector, a
        number without unit, is at most this.
    max_iter : int

    Returns
    -------
    M : ndarray, shape (n, n), or (n_segments, n, n) where segments are given

    Raises
    ------
    EEGTensorError
        If shapes do not fit, weights are negative or a segment is empty.

    References
    ----------
    M. Moakher, "A differential geometric approach to the geometric mean of
    symmetric positive-definite matrices", SIAM J. Matrix Anal. Appl., 2005.
    """
    check_option("metric", metric, METRICS)
    X = np.asarray(X)
    if X.ndim != 3 or X.shape[-1] != X.shape[-2] or len(X) == 0:
        fail(
            f"X has shape {X.shape}",
            fix="give at least one matrix: shape (n_matrices, n, n)",
        )
    codes, share = _shares(len(X), weights, segments)
    if metric == "euclidean":
        mean = _segment_sums(X, codes, share)
    elif metric == "log-euclidean":
        mean = expm(_segment_sums(logm(X), codes, share))
    else:
        start = _segment_sums(X, codes, share)
        if init is not None:
            start = np.broadcast_to(init, start.shape).astype(start.dtype)
        mean = _karcher(X, codes, share, start, tol, max_iter)
    return mean if segments is not None else mean[0]


def _shares(
    n: int, weights: ArrayLike | None, segments: ArrayLike | None
) -> tuple[NDArray, NDArray]:
    """Return segment codes and each matrix's weight within its segment."""
    codes = np.zeros(n, dtype=np.int64) if segments is None else np.asarray(segments)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    check_lengths(n, weights=w, segments=codes)
    if (w < 0).any() or not np.isfinite(w).all():
        fail(f"weights of matrices {listing(np.flatnonzero(~(w >= 0)))} are negative")
    if codes.min() < 0:
        fail("segments holds negative codes", fix="leave unseen domains out first")
    totals = np.bincount(codes, weights=w)
    if (totals <= 0).any():
        fail(
            f"Segments {listing(np.flatnonzero(totals <= 0))} are empty or weigh nothing",
            fix="number segments from 0 without gaps and give positive weights",
        )
    return codes, w / totals[codes]


def _segment_sums(T: NDArray, codes: NDArray, share: NDArray) -> NDArray:
    """Return the weighted sum over each segment, shape (n_segments, n, n)."""
    n_segments = int(codes.max()) + 1
    flat = (T * share[:, np.newaxis, np.newaxis]).reshape(len(T), -1)
    if n_segments == 1:
        sums = flat.sum(axis=0, keepdims=True)
    else:
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(n_segments))
        sums = np.add.reduceat(flat[order], starts, axis=0)
    return sums.reshape(n_segments, *T.shape[1:])


def _karcher(
    X: NDArray,
    codes: NDArray,
    share: NDArray,
    mean: NDArray,
    tol: float,
    max_iter: int,
) -> NDArray:
    mean = mean.copy()
    active = np.arange(len(mean))
    step = np.ones(len(mean))
    previous: NDArray | None = None
    for _ in range(max_iter):
        root, inverse_root = sqrtm_pair(mean[active])
        tangents = logm(congruence(inverse_root[codes], X))
        gradient = _segment_sums(tangents, codes, share)
        if previous is not None:
            squared = (previous**2).sum(axis=(1, 2))
            ratio = (gradient * previous).sum(axis=(1, 2)) / np.maximum(squared, 1e-300)
            curvature = (1.0 - ratio) / step
            # The squared distance curves at least as much as in flat space, so
            # a step above 1 would be noise; below .3 progress would stall.
            step = np.clip(1.0 / np.maximum(curvature, 1e-12), 0.3, 1.0)
        moved = congruence(root, expm(step[:, np.newaxis, np.newaxis] * gradient))
        mean[active] = moved
        going = np.sqrt((gradient**2).sum(axis=(1, 2))) > tol
        if not going.any():
            return mean
        keep = going[codes]
        if not keep.all():
            X, share = X[keep], share[keep]
            codes = (np.cumsum(going) - 1)[codes[keep]]
            active, step, gradient = active[going], step[going], gradient[going]
        previous = gradient
    worst = np.sqrt((previous**2).sum(axis=(1, 2))).max() if previous is not None else 0
    logger.warning(
        "The Riemannian mean of %d set(s) stopped after %d iterations at %.1e "
        "(asked: %.1e); the matrices may be close to singular.",
        len(active),
        max_iter,
        worst,
        tol,
    )
    return mean
