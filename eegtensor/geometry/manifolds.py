"""The SPD manifold for geoopt: parameters and optimizers in any of our metrics.

geoopt's own class has a NaN gradient of the distance at equal points, no mean and
no geodesic, and a second-order retraction that may leave the cone in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.geometry import metrics
from eegtensor.geometry._cholesky import definite_factor
from eegtensor.geometry._scalar import IDENTITY
from eegtensor.geometry.mean import frechet_mean
from eegtensor.geometry.random import random_spd, random_tangent
from eegtensor.geometry.spectral import spectral, symmetrize


class SPD(Manifold):  # type: ignore[misc]
    """Symmetric positive definite matrices as a geoopt manifold.

    Use it as ``geoopt.ManifoldParameter(X, manifold=SPD())`` with any of geoopt's
    optimizers. Points have shape (..., n, n).

    Parameters
    ----------
    metric : str
        As in `eegtensor.geometry.distance`; not "euclidean", whose geodesics leave
        the cone.
    floor : float
        `projx` raises eigenvalues to this multiple of their mean.

    Raises
    ------
    EEGTensorError
        If the metric is not known.
    """

    __scaling__ = Manifold.__scaling__.copy()
    name = "SPD"
    ndim = 2
    reversible = False

    def __init__(self, metric: str = "affine-invariant", floor: float = 1e-6) -> None:
        super().__init__()
        choices = tuple(m for m in metrics.METRICS if m != "euclidean")
        check_option("metric", metric, choices)
        self.metric = metric
        self.floor = floor

    def extra_repr(self) -> str:
        """Return the parameters, for repr."""
        return f"metric={self.metric!r}"

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Return the distance; its gradient at equal points is 0."""
        d: Tensor = metrics.distance(x, y, metric=self.metric)
        return d[..., None, None] if keepdim else d

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        """Return the inner product of tangent vectors at x."""
        out: Tensor = metrics.inner(x, u, u if v is None else v, metric=self.metric)
        return out[..., None, None] if keepdim else out

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """Return the length of a tangent vector at x."""
        out: Tensor = metrics.norm(x, u, metric=self.metric)
        return out[..., None, None] if keepdim else out

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the end of the geodesic from x with velocity u."""
        return _inside(metrics.exp_map(x, u, metric=self.metric))

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """Return `expmap`: no step leaves the cone."""
        # Cheaper retractions may leave the cone.
        return self.expmap(x, u)

    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return `expmap` and v carried there, cheaper than one by one."""
        y, w = metrics.call_metric(self.metric, "exp_transport", (x,), u, v)
        return _inside(y), w

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return `expmap_transp`."""
        return self.expmap_transp(x, u, v)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the velocity at x of the geodesic to y."""
        out: Tensor = metrics.log_map(x, y, metric=self.metric)
        return out

    def geodesic(self, t: Tensor | float, x: Tensor, y: Tensor) -> Tensor:
        """Return the point at t between x (0) and y (1)."""
        out: Tensor = metrics.geodesic(x, y, t, metric=self.metric)
        return out

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Return v carried in parallel from x to y."""
        out: Tensor = metrics.transport(x, y, v, metric=self.metric)
        return out

    def mean(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the Frechet mean over the first axis."""
        out: Tensor = frechet_mean(x, metric=self.metric, weights=weights)
        return out.to(x.dtype)

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the Riemannian gradient of the Euclidean gradient u."""
        out: Tensor = metrics.call_metric(self.metric, "gradient", (x,), u)
        return out

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the symmetric part: tangent vectors are symmetric matrices."""
        out: Tensor = symmetrize(u)
        return out

    def projx(self, x: Tensor) -> Tensor:
        """Return the symmetric part with eigenvalues raised to the floor."""
        out: Tensor = spectral(symmetrize(x), IDENTITY, floor=self.floor)
        return symmetrize(out)

    def random(
        self,
        *size: Any,
        dtype: torch.dtype | None = None,
        device: Any = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return random points, shape (..., n, n), as `random_spd` draws them."""
        shape = _shape(size)
        X = random_spd(
            shape[-1], shape[:-2], random_state=generator or _global(), **kwargs
        )
        return torch.as_tensor(X, dtype=dtype or torch.get_default_dtype()).to(device)

    def random_normal(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return an isotropic normal tangent vector at x."""
        out: Tensor = random_tangent(
            x, metric=self.metric, random_state=generator or _global()
        )
        return out

    def origin(
        self,
        *size: Any,
        dtype: torch.dtype | None = None,
        device: Any = None,
        seed: int | None = 42,
    ) -> Tensor:
        """Return identity matrices, shape (..., n, n)."""
        shape = _shape(size)
        eye = torch.eye(shape[-1], dtype=dtype, device=device)
        return eye.repeat(*shape[:-2], 1, 1)

    def _check_point_on_manifold(
        self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        # Relative to each matrix: 1e-12 volts squared are no more symmetric for it.
        scale = x.diagonal(dim1=-2, dim2=-1).abs().amax(dim=-1)[..., None, None]
        if not bool(((x - x.mT).abs() <= rtol * scale).all()):
            return False, f"x differs from its transpose by more than {rtol} of it"
        if not bool((torch.linalg.cholesky_ex(symmetrize(x))[1] == 0).all()):
            return False, "not all eigenvalues of x are positive"
        return True, None

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        scale = u.abs().amax(dim=(-1, -2), keepdim=True)
        if not bool(((u - u.mT).abs() <= rtol * scale).all()):
            return False, f"u differs from its transpose by more than {rtol} of it"
        return True, None


def _inside(x: Tensor) -> Tensor:
    # An exponential is in the cone, but rounding to float32 may take it out again.
    return definite_factor(x)[0]


def _global() -> torch.Generator:
    """Return a generator that follows torch.manual_seed, as geoopt's randomness."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    if len(shape) < 2 or shape[-1] != shape[-2]:
        fail(f"SPD matrices cannot have shape {shape}", fix="give (..., n, n)")
    return shape
