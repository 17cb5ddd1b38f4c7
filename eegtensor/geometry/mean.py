"""Frechet means of SPD matrices, many segments in one batch."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, check_option, fail, listing
from eegtensor.geometry.metrics import METRICS
from eegtensor.geometry.spectral import (
    congruence,
    eigh,
    expm,
    from_eig,
    logm,
    positive,
    sqrtm_pair,
    symmetrize,
)

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

    The affine-invariant mean is found by an inexact Newton method: the Hessian
    of the squared distance comes from the eigenvectors that the gradient needs
    anyway.

    Parameters
    ----------
    X : ndarray, shape (n_matrices, n, n)
    metric : "affine-invariant" | "log-euclidean" | "euclidean"
    weights : array-like, shape (n_matrices,) | None
        Non-negative; they are normalised to sum to one in each segment.
    segments : array-like of int, shape (n_matrices,) | None
        Segment 0 .. n_segments - 1 of each matrix; none may be empty.
    init : ndarray, shape (n, n) or (n_segments, n, n) | None
        Start of the search; by default the arithmetic mean. A start near the
        result saves iterations and changes it by no more than `tol`.
    tol : float
        The search stops when the Frobenius norm of the mean tangent vector, a
        number without unit, is at most this after the last step.
    max_iter : int

    Returns
    -------
    M : ndarray, shape (n, n), or (n_segments, n, n) where segments are given
        float64, in the unit of X.

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
    # float32 would stop short of `tol` and clamp eigenvalues from 1e-7 down.
    X = np.asarray(X, dtype=np.float64)
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
        if init is None:
            start = _segment_sums(X, codes, share)
        else:
            n_segments = int(codes.max()) + 1
            start = np.broadcast_to(init, (n_segments, *X.shape[1:]))
        mean = _karcher(X, codes, share, start, tol, max_iter)
    return mean if segments is not None else mean[0]


def _shares(
    n: int, weights: ArrayLike | None, segments: ArrayLike | None
) -> tuple[NDArray, NDArray]:
    """Return segment codes and each matrix's weight within its segment."""
    codes = np.zeros(n, dtype=np.int64) if segments is None else np.asarray(segments)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    check_lengths(n, weights=w, segments=codes)
    bad = np.flatnonzero(~((w >= 0) & np.isfinite(w)))
    if bad.size:
        fail(f"weights of matrices {listing(bad)} are negative or not finite")
    if codes.dtype.kind not in "iu":
        fail(f"segments has dtype {codes.dtype}", fix="number segments from 0")
    if codes.min() < 0:
        fail("segments holds negative codes", fix="leave unseen domains out first")
    totals = np.bincount(codes, weights=w)
    empty = np.flatnonzero(totals <= 0)
    if empty.size:
        fail(
            f"Segments {listing(empty)} are empty or weigh nothing",
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
    for _ in range(max_iter):
        root, inverse_root = sqrtm_pair(mean[active])
        values, vectors = eigh(congruence(inverse_root[codes], X))
        values = positive(values)
        gradient = _segment_sums(from_eig(np.log(values), vectors), codes, share)
        # No line search: on a space of nonpositive curvature the Hessian is at
        # least the identity, so that a Newton step is never longer than the
        # gradient, and clusters 1e20 apart converge too.
        step, size = _newton_step(gradient, values, vectors, codes, share)
        mean[active] = congruence(root, expm(step))
        going = size > tol
        if not going.any():
            return mean
        # Domains that are done leave the batch: they do not pay for the hard ones.
        keep = going[codes]
        if not keep.all():
            X, share = X[keep], share[keep]
            codes = (np.cumsum(going) - 1)[codes[keep]]
            active = active[going]
    logger.warning(
        "The Riemannian mean of %d set(s) stopped after %d iterations at %.1e "
        "(asked: %.1e); the matrices may be close to singular.",
        len(active),
        max_iter,
        size.max(),
        tol,
    )
    return mean


def _newton_step(
    gradient: NDArray,
    values: NDArray,
    vectors: NDArray,
    codes: NDArray,
    share: NDArray,
) -> tuple[NDArray, NDArray]:
    """Solve Hessian(step) = gradient by three steps of conjugate gradients.

    In the eigenbasis of a whitened matrix with eigenvalues l the Hessian of
    half its squared distance multiplies entry (j, k) by
    (log l_j - log l_k) / 2 * coth((log l_j - log l_k) / 2) >= 1. Its spectrum is
    narrow, so three steps bring the error down some ten thousand times.

    Returns
    -------
    step : ndarray, shape (n_segments, n, n)
    size : ndarray, shape (n_segments,)
        Norm that the gradient will have after the step: what the linear solve
        left, plus the square of the gradient, which bounds what curvature adds.
    """
    # coth(half log(a / b)) is (a + b) / (a - b); where a and b agree to 1e-4
    # that is 0 / 0 and the factor 1 up to 1e-8.
    a, b = values[:, :, np.newaxis], values[:, np.newaxis, :]
    difference = a - b
    equal = np.abs(difference) <= 1e-4 * (a + b)
    ratio = 0.5 * np.log(a / b) * (a + b) / np.where(equal, 1.0, difference)
    curvature = np.where(equal, 1.0, ratio)
    transposed = np.swapaxes(vectors, -1, -2)

    def hessian(V: NDArray) -> NDArray:
        turned = curvature * (transposed @ V[codes] @ vectors)
        return _segment_sums(vectors @ turned @ transposed, codes, share)

    def inner(U: NDArray, V: NDArray) -> NDArray:
        return (U * V).sum(axis=(1, 2), keepdims=True)

    step, residual, direction = np.zeros_like(gradient), gradient, gradient
    norm = inner(residual, residual)
    for _ in range(3):
        moved = hessian(direction)
        length = norm / np.maximum(inner(direction, moved), np.finfo(float).tiny)
        step = step + length * direction
        residual = residual - length * moved
        previous, norm = norm, inner(residual, residual)
        direction = residual + norm / np.maximum(previous, 1e-300) * direction
    squared = inner(gradient, gradient)
    return symmetrize(step), (np.sqrt(norm) + squared)[:, 0, 0]
