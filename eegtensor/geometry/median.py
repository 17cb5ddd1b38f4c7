"""Geometric medians of SPD matrices, many segments in one batch."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_option
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry._cholesky import definite_factor, frobenius, square
from eegtensor.geometry._karcher import SINGULAR, frames_at, move_frames
from eegtensor.geometry._scalar import EXP, LOG
from eegtensor.geometry._search import Move, search, with_gradient
from eegtensor.geometry._segments import Segments, fold
from eegtensor.geometry.bures_wasserstein import horizontal
from eegtensor.geometry.metrics import FLAT, METRICS
from eegtensor.geometry.spectral import congruence, spectral, symmetrize


@bridged
def geometric_median(
    X: Array,
    *,
    metric: str = "affine-invariant",
    weights: Any = None,
    segments: Any = None,
    init: Array | None = None,
    tol: float = 1e-8,
    max_iter: int = 500,
) -> Array:
    """Return the point with the least mean distance, or one per segment.

    Half of the matrices may be arbitrarily wrong without moving it without bound.

    Parameters
    ----------
    X : array or tensor, shape (n_matrices, ..., n, n)
    metric, weights, segments
        As in `frechet_mean`.
    init : array or tensor, shape (..., n, n) or (n_segments, ..., n, n) | None
        By default the arithmetic mean.
    tol : float
        The search stops when a step is at most this long, relative to the mean
        distance.
    max_iter : int

    Returns
    -------
    M : array or tensor, shape (..., n, n), or (n_segments, ..., n, n)
        float64, in the unit of X.

    Raises
    ------
    EEGTensorError
        If shapes do not fit, weights are negative or a segment is empty.

    References
    ----------
    P. T. Fletcher et al., "The geometric median on Riemannian manifolds with
    application to robust atlas estimation", NeuroImage, 2009, eq. 6. At a data
    point: Y. Vardi, C.-H. Zhang, "The multivariate L1-median and associated data
    depth", PNAS, 2000, eq. 2.6.
    """
    check_option("metric", metric, METRICS)
    sets = fold(X, weights, segments)
    matrices, parts = sets.X, sets.parts
    start = parts.total(matrices) if init is None else sets.centers(init)
    start = start.detach()
    # Plain steps are short near a cluster: stretched ones save most of them.
    given: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "longest": 30.0}
    if metric in FLAT:
        flat = FLAT[metric]
        P = flat.coordinates(matrices)
        center = search(_flat_move, P, parts, flat.coordinates(start), **given)
        median = flat.point(with_gradient(_flat_move, center, P, parts))
    elif metric == "affine-invariant":
        matrices, factors = definite_factor(matrices, SINGULAR)
        frames = search(_frame_move, factors, parts, frames_at(start), **given)
        median = with_gradient(_affine_move, square(frames[:, 0]), matrices, parts)
    else:
        matrices = definite_factor(matrices)[0]
        lift = search(_lift_move, matrices, parts, definite_factor(start)[1], **given)
        median = with_gradient(_bures_move, square(lift), matrices, parts)
    return median.reshape(*sets.shape, *median.shape[1:])


def _weiszfeld(T: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """Return a step from the center and its length relative to the mean distance.

    Parameters
    ----------
    T : Tensor, shape (n_matrices, n, n)
        Tangent vectors from the center to the matrices, in an orthonormal frame.
    segments : Segments
    """
    d = frobenius(T)
    spread = segments.total(d[:, None])[:, 0]
    # What rounding leaves of a matrix at the center has no direction.
    away = d > 1e-12 * segments.spread(spread)
    pull = torch.where(away, 1.0 / torch.where(away, d, 1.0), 0.0)[:, None, None]
    force = segments.total(pull * T)
    # A matrix at the center has no direction: its weight holds the center there.
    held = segments.total((~away).to(d.dtype)[:, None])[:, 0]
    strength = frobenius(force)
    moving = strength > held
    freed = 1.0 - held / torch.where(moving, strength, 1.0)
    total = segments.total(pull)[:, 0, 0]
    scale = torch.where(moving, freed / torch.where(moving, total, 1.0), 0.0)
    size = scale * strength / torch.where(moving, spread, 1.0)
    return scale[:, None, None] * force, size


def _flat_move(center: Tensor, P: Tensor, segments: Segments) -> Move:
    step, size = _weiszfeld(P - segments.spread(center), segments)
    return Move(step, lambda S: center + S, size)


def _frame_move(frames: Tensor, factors: Tensor, segments: Segments) -> Move:
    Y = square(segments.spread(frames[:, 1]) @ factors)
    step, size = _weiszfeld(spectral(Y, LOG), segments)
    return Move(symmetrize(step), functools.partial(move_frames, frames), size)


def _affine_move(center: Tensor, X: Tensor, segments: Segments) -> Move:
    frames = frames_at(center)
    L = frames[:, 0]
    T = spectral(congruence(segments.spread(frames[:, 1]), X), LOG)
    step, size = _weiszfeld(T, segments)
    return Move(symmetrize(step), lambda S: congruence(L, spectral(S, EXP)), size)


def _lift_move(Z: Tensor, X: Tensor, segments: Segments) -> Move:
    step, size = _weiszfeld(horizontal(segments.spread(Z), X), segments)
    return Move(step, lambda S: Z + S, size)


def _bures_move(center: Tensor, X: Tensor, segments: Segments) -> Move:
    L = definite_factor(center)[1]
    move = _lift_move(L, X, segments)
    return move._replace(reach=lambda S: square(L + S))
