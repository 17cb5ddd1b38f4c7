"""Metrics that a map carries to a vector space: everything is a straight line there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry._cholesky import frobenius


class FlatMetric(NamedTuple):
    """The Euclidean metric of coordinates.

    Attributes
    ----------
    coordinates : callable
        A -> P, shape (..., n, n), symmetric or lower triangular.
    point : callable
        P -> A, its inverse.
    push : callable
        (A, *V) -> (P, *W): coordinates of a point and of tangent vectors there.
    pull : callable
        (P, W) -> V: the tangent vector, at the point with coordinates P.
    frame : callable
        N -> W: symmetric N as coordinates, with the same norm.
    gradient : callable
        (A, G) -> the Riemannian gradient of a Euclidean gradient G.
    """

    coordinates: Callable[[Tensor], Tensor]
    point: Callable[[Tensor], Tensor]
    push: Callable[..., tuple[Tensor, ...]]
    pull: Callable[[Tensor, Tensor], Tensor]
    frame: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]

    def distance(self, A: Tensor, B: Tensor) -> Tensor:
        """Return the length of the straight line between coordinates."""
        return frobenius(self.coordinates(A) - self.coordinates(B))

    def inner(self, A: Tensor, U: Tensor, V: Tensor) -> Tensor:
        """Return the inner product of tangent vectors at A."""
        _, u, v = self.push(A, U, V)
        return (u * v).sum(dim=(-1, -2))

    def exp_map(self, A: Tensor, V: Tensor) -> Tensor:
        """Return the end of the geodesic that leaves A with velocity V."""
        P, W = self.push(A, V)
        return self.point(P + W)

    def log_map(self, A: Tensor, B: Tensor) -> Tensor:
        """Return the velocity at A of the geodesic to B."""
        P = self.coordinates(A)
        return self.pull(P, self.coordinates(B) - P)

    def geodesic(self, A: Tensor, B: Tensor, t: float | Tensor) -> Tensor:
        """Return the point at t between A and B."""
        P = self.coordinates(A)
        weight = torch.as_tensor(t, dtype=P.dtype, device=P.device)[..., None, None]
        return self.point(P + weight * (self.coordinates(B) - P))

    def transport(self, A: Tensor, B: Tensor, V: Tensor) -> Tensor:
        """Return V carried from A to B: coordinates do not change."""
        return self.pull(self.coordinates(B), self.push(A, V)[1])

    def exp_transport(self, A: Tensor, V: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp_A(V) and W carried there."""
        # One push for both: that is where the decomposition is.
        P, v, w = self.push(A, V, W)
        return self.point(P + v), self.pull(P + v, w)

    def from_frame(self, A: Tensor, N: Tensor) -> Tensor:
        """Return the tangent vector at A with coordinates N."""
        return self.pull(self.coordinates(A), self.frame(N))
