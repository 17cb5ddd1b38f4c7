"""All parameters of a network as one point of a product of manifolds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from eegtensor._check import fail, listing
from eegtensor.training.adapters import Adapter, adapter_of

# One tensor a leaf, by the leaf's name.
Points = dict[str, Tensor]
Tangent = dict[str, Tensor]


class ParamSpace:
    """The trainable parameters of a network on their manifolds.

    Points and tangents are dicts of one tensor a parameter, by name. The metric
    is the product metric: squared norms of the leaves add up. No method keeps
    a graph, and only `assign` and `restore` change the network.

    Parameters
    ----------
    model : torch.nn.Module

    Attributes
    ----------
    leaves : dict
        Trainable parameters by name.
    adapters : dict
        Their geometry by name.

    Examples
    --------
    A step of length 0.1 along the gradient, and back:

    >>> model = torch.nn.Linear(2, 1)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> space = ParamSpace(model)
    >>> here, up = space.snapshot(), space.rgrad(space.gradients())
    >>> space.assign(space.retract(space.scale(up, 0.1 / space.norm(up))))
    >>> space.restore(here)
    """

    def __init__(self, model: nn.Module) -> None:
        self.leaves: dict[str, nn.Parameter] = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        self.adapters: dict[str, Adapter] = {
            name: adapter_of(p, f"The parameter {name!r}")
            for name, p in self.leaves.items()
        }

    def points(self) -> Points:
        """Return the current point: the parameters themselves, not copies."""
        return {name: _plain(p) for name, p in self.leaves.items()}

    def gradients(self) -> Tangent:
        """Return the parameters' Euclidean gradients, zero where there is none."""
        return {
            name: torch.zeros_like(_plain(p)) if p.grad is None else p.grad.detach()
            for name, p in self.leaves.items()
        }

    @torch.no_grad()
    def rgrad(
        self, gradients: Mapping[str, Tensor], at: Points | None = None
    ) -> Tangent:
        """Return the Riemannian gradient of a Euclidean one."""
        at = self.points() if at is None else at
        return {n: a.rgrad(at[n], gradients[n]) for n, a in self.adapters.items()}

    @torch.no_grad()
    def inner(self, u: Tangent, v: Tangent, at: Points | None = None) -> Tensor:
        """Return the inner product of two tangents, a scalar in float64."""
        at = self.points() if at is None else at
        terms = [a.inner(at[n], u[n], v[n]).double() for n, a in self.adapters.items()]
        return (
            torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)
        )

    def norm(self, u: Tangent, at: Points | None = None) -> Tensor:
        """Return the length of a tangent, a scalar in float64."""
        # Rounding may leave the square of a tiny tangent negative.
        return self.inner(u, u, at).clamp_min(0.0).sqrt()

    @torch.no_grad()
    def random_tangent(
        self, generator: torch.Generator | None = None, at: Points | None = None
    ) -> Tangent:
        """Return a tangent that is standard normal in the product metric."""
        at = self.points() if at is None else at
        return {n: a.random_tangent(at[n], generator) for n, a in self.adapters.items()}

    @torch.no_grad()
    def scale(self, u: Tangent, factor: float | Tensor) -> Tangent:
        """Return a multiple of a tangent."""
        return {name: leaf * factor for name, leaf in u.items()}

    @torch.no_grad()
    def retract(self, u: Tangent, at: Points | None = None) -> Points:
        """Return the point that a tangent leads to."""
        at = self.points() if at is None else at
        return {n: a.retract(at[n], u[n]) for n, a in self.adapters.items()}

    @torch.no_grad()
    def log(self, to: Mapping[str, Tensor], at: Points | None = None) -> Tangent:
        """Return the tangent that `retract` leads to the point `to`."""
        at = self.points() if at is None else at
        return {n: a.log(at[n], to[n]) for n, a in self.adapters.items()}

    @torch.no_grad()
    def mean(
        self,
        points: Sequence[Mapping[str, Tensor]],
        weights: Sequence[float] | None = None,
    ) -> Points:
        """Return the mean of points, on the manifolds.

        Parameters
        ----------
        points : sequence of dict
            Such as `snapshot` or a state_dict; names that are no trainable
            parameters are left out.
        weights : sequence of float | None
            One a point; they are divided by their sum.

        Raises
        ------
        EEGTensorError
            If there are no points, weights do not fit, or their sum is not positive.
        """
        w = torch.ones(len(points)) if weights is None else torch.tensor([*weights])
        if not len(points) or len(w) != len(points) or not w.sum() > 0:
            fail(
                f"{len(points)} points with weights {listing(w.tolist())}",
                fix="give at least one point, and one weight a point with positive sum",
            )
        w = w.double() / w.double().sum()
        return {
            n: a.mean(torch.stack([_plain(point[n]) for point in points]), w)
            for n, a in self.adapters.items()
        }

    def snapshot(self) -> Points:
        """Return a copy of the current point."""
        return {name: p.clone() for name, p in self.points().items()}

    @torch.no_grad()
    def assign(self, points: Mapping[str, Tensor]) -> None:
        """Copy a point into the network."""
        for name, p in self.leaves.items():
            p.copy_(points[name])

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Put the network back to a snapshot, bit for bit."""
        self.assign(snapshot)


def _plain(tensor: Tensor) -> Tensor:
    # Manifold parameters are a subclass, which every result would be too.
    return tensor.detach().as_subclass(torch.Tensor)
