"""The geometry of one parameter: Euclidean, Stiefel or SPD.

All functions are batched over leading axes. Gradients are those of torch;
tangents are in the ambient coordinates of the parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import geoopt
import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.geometry import inv_sqrtm, symmetrize
from eegtensor.geometry.manifolds import SPD as SPDManifold


class Adapter(Protocol):
    """What a parameter space asks of the manifold of a leaf."""

    name: str

    def rgrad(self, p: Tensor, g: Tensor) -> Tensor:
        """Return the Riemannian gradient of a Euclidean one."""

    def inner(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product of two tangents, summed over the leaf."""

    def random_tangent(self, p: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a tangent that is standard normal in the leaf's metric."""

    def retract(self, p: Tensor, u: Tensor) -> Tensor:
        """Return the point that a tangent leads to."""

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        """Return the tangent at p that `retract` leads to q."""

    def mean(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return the mean over the first axis; weights sum to one."""


def _normal(p: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(p.shape, dtype=p.dtype, device=p.device, generator=generator)


def _weighted(points: Tensor, weights: Tensor) -> Tensor:
    return torch.tensordot(weights.to(points), points, dims=1)


class Euclidean:
    """Plain parameters."""

    name = "euclidean"

    def rgrad(self, p: Tensor, g: Tensor) -> Tensor:
        """Return the gradient itself."""
        return g

    def inner(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the sum of products."""
        return (u * v).sum()

    def random_tangent(self, p: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return standard normal numbers."""
        return _normal(p, generator)

    def retract(self, p: Tensor, u: Tensor) -> Tensor:
        """Return p + u."""
        return p + u

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        """Return q - p."""
        return q - p

    def mean(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return the arithmetic mean."""
        return _weighted(points, weights)


class Stiefel:
    """Matrices with orthonormal columns, shape (..., n, k), in the Euclidean metric.

    The retraction is the polar factor of p + u, of second order; its inverse
    solves a Lyapunov equation. The mean is the polar factor of the arithmetic
    one. (Absil and Malick, Projection-like retractions on matrix manifolds,
    SIAM J. Optim. 2012.)
    """

    name = "stiefel"

    def rgrad(self, p: Tensor, g: Tensor) -> Tensor:
        """Return g - p sym(p'g)."""
        return g - p @ symmetrize(p.mT @ g)

    def inner(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return tr(u'v), summed over leading axes."""
        return (u * v).sum()

    def random_tangent(self, p: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a projected standard normal matrix."""
        return self.rgrad(p, _normal(p, generator))

    def retract(self, p: Tensor, u: Tensor) -> Tensor:
        """Return the polar factor of p + u."""
        return _polar(p + u)

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        """Return q s - p with s symmetric such that this is a tangent.

        Raises
        ------
        EEGTensorError
            If q is too far from p for the retraction to reach it: p'q must
            have eigenvalues with positive real parts.
        """
        # In float64: the difference of near points would keep half the digits.
        wide = p.double(), q.double()
        a = wide[0].mT @ wide[1]
        s = _lyapunov(a)
        residual = (a @ s + s @ a.mT - 2.0 * torch.eye(a.shape[-1]).to(a)).abs().max()
        if not bool(residual < 1e-8) or bool(torch.linalg.cholesky_ex(s).info.any()):
            fail(
                "Two Stiefel parameters are too far apart to have a tangent "
                "between them",
                why="The straight way from one to the other leaves the manifold",
                fix="choose a base nearer to both, such as the mean of all",
            )
        return (wide[1] @ s - wide[0]).to(p.dtype)

    def mean(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return the polar factor of the arithmetic mean."""
        return _polar(_weighted(points, weights))


def _polar(a: Tensor) -> Tensor:
    # In float64: float32 would end some 1e-6 off the manifold.
    wide = a.double()
    return (wide @ inv_sqrtm(wide.mT @ wide)).to(a.dtype)


def _lyapunov(a: Tensor) -> Tensor:
    """Return s with a s + s a' = 2 I, by Roberts' sign iteration (quadratic)."""
    s = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    for _ in range(14):
        inverse = torch.linalg.inv_ex(a).inverse
        s = 0.5 * (s + inverse @ s @ inverse.mT)
        a = 0.5 * (a + inverse)
    return symmetrize(s)


class SPD:
    """Symmetric positive definite matrices, shape (..., n, n).

    Parameters
    ----------
    manifold : eegtensor.geometry.SPD | geoopt.Manifold | None
        Its metric is used; geoopt's own class and None are affine-invariant.
    """

    name = "spd"

    def __init__(self, manifold: geoopt.Manifold | None = None) -> None:
        self.manifold: Any = manifold
        # geoopt's own retraction may leave the cone in float32.
        if not isinstance(manifold, SPDManifold):
            self.manifold = SPDManifold()

    def rgrad(self, p: Tensor, g: Tensor) -> Tensor:
        """Return the Riemannian gradient."""
        return self.manifold.egrad2rgrad(p, g)

    def inner(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product, summed over leading axes."""
        return self.manifold.inner(p, u, v).sum()

    def random_tangent(self, p: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return an isotropic normal tangent."""
        return self.manifold.random_normal(p, generator=generator)

    def retract(self, p: Tensor, u: Tensor) -> Tensor:
        """Return the exponential: it never leaves the cone."""
        return self.manifold.expmap(p, u)

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        """Return the logarithm."""
        return self.manifold.logmap(p, q)

    def mean(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return the Frechet mean; weights must not be negative."""
        return self.manifold.mean(points, weights.to(points.device))


# The first entry whose type matches is used.
_ADAPTERS: list[tuple[type[geoopt.Manifold], Callable[[Any], Adapter]]] = [
    (geoopt.Euclidean, lambda manifold: Euclidean()),
    (SPDManifold, SPD),
    (geoopt.SymmetricPositiveDefinite, SPD),
    (geoopt.EuclideanStiefel, lambda manifold: Stiefel()),
]


def register_adapter(
    manifold: type[geoopt.Manifold], adapter: Callable[[Any], Adapter]
) -> None:
    """Say which adapter parameters on a manifold get; the latest one holds.

    Parameters
    ----------
    manifold : type
        Class of the manifolds.
    adapter : callable
        Makes an adapter from an instance of it.
    """
    _ADAPTERS.insert(0, (manifold, adapter))


def is_manifold_parameter(parameter: Tensor) -> bool:
    """Return whether a parameter lies on a manifold that is not flat."""
    manifold = getattr(parameter, "manifold", None)
    return manifold is not None and not isinstance(manifold, geoopt.Euclidean)


def adapter_of(parameter: nn.Parameter, name: str = "a parameter") -> Adapter:
    """Return the adapter of a parameter, by the manifold it carries.

    Raises
    ------
    EEGTensorError
        If its manifold is not known.
    """
    manifold = getattr(parameter, "manifold", None)
    if manifold is None:
        return Euclidean()
    for kind, adapter in _ADAPTERS:
        if isinstance(manifold, kind):
            return adapter(manifold)
    if isinstance(manifold, geoopt.CanonicalStiefel):
        fail(
            f"{name} is on geoopt's CanonicalStiefel",
            why="Its retraction in geoopt 0.5.1 does not follow the tangent",
            fix="use geoopt.EuclideanStiefel()",
        )
    fail(
        f"{name} is on {type(manifold).__name__}, which has no adapter",
        fix="give one to eegtensor.training.register_adapter",
    )
