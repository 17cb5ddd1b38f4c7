"""What an optimizer asks of a leaf's geometry beyond its adapter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eegtensor.training.adapters import Adapter, adapter_of


class Leaf:
    """A parameter as an optimizer moves it.

    Parameters
    ----------
    parameter : torch.nn.Parameter
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.adapter: Adapter = adapter_of(parameter)
        self.flat = self.adapter.name == "euclidean"

    def rgrad(self, p: Tensor, g: Tensor) -> Tensor:
        """Return the Riemannian gradient of a Euclidean one."""
        return g if self.flat else self.adapter.rgrad(p, g)

    def square(self, p: Tensor, u: Tensor) -> Tensor:
        """Return squared entries; of a matrix on a manifold its squared norm."""
        if self.flat:
            return u.square()
        manifold = getattr(self.adapter, "manifold", None)
        if manifold is None:
            return u.square().sum(dim=(-2, -1), keepdim=True)
        norm: Tensor = manifold.inner(p, u, u, keepdim=True)
        return norm

    def retract(self, p: Tensor, u: Tensor) -> Tensor:
        """Return the point that a tangent leads to."""
        return p + u if self.flat else self.adapter.retract(p, u)

    def transport(self, p: Tensor, q: Tensor, u: Tensor) -> Tensor:
        """Return a tangent at p carried to q: in parallel, or by projection."""
        if self.flat:
            return u
        manifold = getattr(self.adapter, "manifold", None)
        if manifold is None:
            return self.adapter.rgrad(q, u)
        carried: Tensor = manifold.transp(p, q, u)
        return carried


def plain(parameter: nn.Parameter) -> Tensor:
    """Return a parameter without its graph and its class."""
    return parameter.detach().as_subclass(torch.Tensor)
