"""Sums over the processes of data-parallel training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def is_distributed() -> bool:
    """Whether this is one of several processes that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, X: Tensor) -> Tensor:
        total = X.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Tensor:
        # Each process holds a copy of the sum, and each copy has a gradient.
        return all_reduce(G.contiguous())


def all_reduce(X: Tensor) -> Tensor:
    """Return the sum of X over all processes; differentiable."""
    total: Tensor = _AllReduce.apply(X)  # type: ignore[no-untyped-call]
    return total
