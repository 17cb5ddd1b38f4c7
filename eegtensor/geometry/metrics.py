"""Five metrics of SPD matrices behind one set of functions."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.geometry import affine_invariant, bures_wasserstein
from eegtensor.geometry._bridge import Array, bridged, floating
from eegtensor.geometry._cholesky import definite_factor
from eegtensor.geometry.euclidean import EUCLIDEAN
from eegtensor.geometry.log_cholesky import LOG_CHOLESKY
from eegtensor.geometry.log_euclidean import LOG_EUCLIDEAN

FLAT = {
    "log-euclidean": LOG_EUCLIDEAN,
    "log-cholesky": LOG_CHOLESKY,
    "euclidean": EUCLIDEAN,
}
_BY_NAME: dict[str, Any] = {
    "affine-invariant": affine_invariant,
    "log-euclidean": FLAT["log-euclidean"],
    "log-cholesky": FLAT["log-cholesky"],
    "bures-wasserstein": bures_wasserstein,
    "euclidean": FLAT["euclidean"],
}
METRICS = tuple(_BY_NAME)


def get_metric(name: str) -> Any:
    """Return the functions of a metric: a module or a `FlatMetric`.

    Raises
    ------
    EEGTensorError
        If there is no such metric.
    """
    check_option("metric", name, METRICS)
    return _BY_NAME[name]


def call_metric(
    metric: str,
    function: str,
    points: tuple[Tensor, ...],
    *others: Tensor,
    t: tuple[Any, ...] = (),
) -> Any:
    """Call a function of a metric in float64 and return the widest dtype given.

    The quotient of two matrices of condition c has the condition c^2: in float32
    the laws of geometry would end at c = 1000.
    """
    functions = get_metric(metric)
    if function == "norm":
        call = functools.partial(_norm, functions)
    else:
        call = getattr(functions, function)
    # At least this, and float64 for integers: half precision has no eigenvalues.
    dtype = torch.float32
    for X in (*points, *others):
        if X.ndim < 2 or X.shape[-1] != X.shape[-2]:
            fail(f"A matrix has shape {tuple(X.shape)}", fix="give (..., n, n)")
        dtype = torch.promote_types(dtype, floating(X).dtype)
    sizes = sorted({X.shape[-1] for X in (*points, *others)})
    if len(sizes) > 1:
        fail(f"Matrices are of sizes {sizes}", fix="give matrices of one size")
    wide = [X.to(torch.float64) for X in points]
    # Its points need not be positive.
    if metric != "euclidean":
        wide = [_settled(X, W) for X, W in zip(points, wide, strict=True)]
    wide += [X.to(torch.float64) for X in others]
    out = call(*wide, *t)
    if isinstance(out, tuple):
        return tuple(part.to(dtype) for part in out)
    return out.to(dtype)


def _norm(functions: Any, A: Tensor, V: Tensor) -> Tensor:
    squared: Tensor = functions.inner(A, V, V)
    # The root of zero has no gradient, and rounding may pass below it.
    zero = squared <= 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


def _settled(X: Tensor, wide: Tensor) -> Tensor:
    """Raise what only rounding to float32 keeps from zero, or has made negative."""
    if floating(X).dtype == torch.float64:
        return wide
    return definite_factor(wide, torch.finfo(torch.float32).eps)[0]


@bridged
def distance(A: Array, B: Array, *, metric: str = "affine-invariant") -> Array:
    """Return the distance between SPD matrices.

    Its gradient at A = B, where it has none, is 0. float32 is computed in float64,
    here and in the functions below.

    Parameters
    ----------
    A, B : array or tensor, shape (..., n, n)
        They broadcast against each other.
    metric : str
        "affine-invariant": ||log(A^-1/2 B A^-1/2)||; "log-euclidean": ||log A -
        log B||; "log-cholesky": the norm between Cholesky factors with the
        logarithm of their diagonals; "bures-wasserstein": (tr A + tr B - 2 tr
        (A^1/2 B A^1/2)^1/2)^1/2; "euclidean": ||A - B||. The first two do not
        depend on the unit; in volts the third hardly sees what is off the
        diagonal.

    Returns
    -------
    d : array or tensor, shape (...)
    """
    return call_metric(metric, "distance", (A, B))


@bridged
def inner(A: Array, U: Array, V: Array, *, metric: str = "affine-invariant") -> Array:
    """Return the inner product of tangent vectors U and V at A, shape (...)."""
    return call_metric(metric, "inner", (A,), U, V)


@bridged
def norm(A: Array, V: Array, *, metric: str = "affine-invariant") -> Array:
    """Return the length of a tangent vector V at A, shape (...)."""
    return call_metric(metric, "norm", (A,), V)


@bridged
def exp_map(A: Array, V: Array, *, metric: str = "affine-invariant") -> Array:
    """Return where the geodesic from A with velocity V is at time 1.

    Parameters
    ----------
    A : array or tensor, shape (..., n, n), SPD
    V : array or tensor, shape (..., n, n), symmetric
    metric : str
        As in `distance`.
    """
    return call_metric(metric, "exp_map", (A,), V)


@bridged
def log_map(A: Array, B: Array, *, metric: str = "affine-invariant") -> Array:
    """Return the velocity at A of the geodesic that is at B at time 1."""
    return call_metric(metric, "log_map", (A, B))


@bridged
def geodesic(
    A: Array, B: Array, t: float | Array, *, metric: str = "affine-invariant"
) -> Array:
    """Return the point at t on the geodesic from A (t = 0) to B (t = 1).

    Parameters
    ----------
    A, B : array or tensor, shape (..., n, n)
    t : float | array or tensor, shape (...)
        Gradients flow to a tensor.
    metric : str
        As in `distance`.
    """
    return call_metric(metric, "geodesic", (A, B), t=(t,))


@bridged
def transport(
    A: Array, B: Array, V: Array, *, metric: str = "affine-invariant"
) -> Array:
    """Return the tangent vector V at A carried to B along the geodesic.

    Inner products are kept. In the Bures-Wasserstein metric there is no closed
    form; an ordinary differential equation is solved to rounding.

    Parameters
    ----------
    A, B : array or tensor, shape (..., n, n), SPD
    V : array or tensor, shape (..., n, n), symmetric
    metric : str
        As in `distance`.
    """
    return call_metric(metric, "transport", (A, B), V)
