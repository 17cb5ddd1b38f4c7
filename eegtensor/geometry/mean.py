"""Frechet means and dispersions of SPD matrices, many segments in one batch."""

from __future__ import annotations

from typing import Any

from eegtensor._check import check_option
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry._karcher import karcher_mean
from eegtensor.geometry._segments import fold
from eegtensor.geometry.bures_wasserstein import barycenter
from eegtensor.geometry.metrics import FLAT, METRICS, distance


@bridged
def frechet_mean(
    X: Array,
    *,
    metric: str = "affine-invariant",
    weights: Any = None,
    segments: Any = None,
    init: Array | None = None,
    tol: float = 1e-8,
    max_iter: int = 50,
) -> Array:
    """Return the Frechet mean of SPD matrices, or one mean per segment.

    The affine-invariant mean is found by an inexact Newton method: the Hessian
    of the squared distance comes from the eigenvectors that the gradient needs
    anyway. The Bures-Wasserstein mean is a fixed point; the others have a closed
    form. Gradients flow to X and to weights and are those of the exact mean.

    Parameters
    ----------
    X : array or tensor, shape (n_matrices, ..., n, n)
        Axes in the middle, as of frequency bands, get a mean each.
    metric : str
        "affine-invariant", "log-euclidean", "log-cholesky", "bures-wasserstein" or
        "euclidean", as in `distance`.
    weights : array-like, shape (n_matrices,) | None
        Non-negative; they are normalised to sum to one in each segment.
    segments : array-like of int, shape (n_matrices,) | None
        Segment 0 .. n_segments - 1 of each matrix; none may be empty.
    init : array or tensor, shape (..., n, n) or (n_segments, ..., n, n) | None
        Start of the search; by default the arithmetic mean. A start near the
        result saves iterations and changes it by no more than `tol`.
    tol : float
        The search stops when the Frobenius norm of the mean tangent vector, a
        number without unit, is at most this after the last step.
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
    M. Moakher, "A differential geometric approach to the geometric mean of
    symmetric positive-definite matrices", SIAM J. Matrix Anal. Appl., 2005.
    P. Alvarez-Esteban et al., "A fixed-point approach to barycenters in
    Wasserstein space", J. Math. Anal. Appl., 2016, eq. 14.
    """
    check_option("metric", metric, METRICS)
    sets = fold(X, weights, segments)
    if metric in FLAT:
        flat = FLAT[metric]
        mean = flat.point(sets.parts.total(flat.coordinates(sets.X)))
    else:
        start = sets.parts.total(sets.X) if init is None else sets.centers(init)
        # Where the search starts does not move the mean: no gradient goes there.
        start = start.detach()
        if metric == "affine-invariant":
            mean = karcher_mean(sets.X, sets.parts, start, tol, max_iter)
        else:
            mean = barycenter(sets.X, sets.parts, start, tol, max_iter)
    return mean.reshape(*sets.shape, *mean.shape[1:])


@bridged
def dispersion(
    X: Array,
    center: Array,
    *,
    metric: str = "affine-invariant",
    weights: Any = None,
    segments: Any = None,
) -> Array:
    """Return the mean squared distance of SPD matrices to a center.

    Parameters
    ----------
    X : array or tensor, shape (n_matrices, ..., n, n)
    center : array or tensor, shape (..., n, n) or (n_segments, ..., n, n)
    metric, weights, segments
        As in `frechet_mean`.

    Returns
    -------
    v : array or tensor, shape (...) or (n_segments, ...), float64
    """
    check_option("metric", metric, METRICS)
    sets = fold(X, weights, segments)
    centers = sets.parts.spread(sets.centers(center))
    squared = distance(centers, sets.X, metric=metric) ** 2
    return sets.parts.total(squared[:, None]).reshape(sets.shape)
