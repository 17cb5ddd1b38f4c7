"""Gates of channels that all trials come to agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.compress._layers import layers_of, tiny
from eegtensor.training import Batch

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState

# Channels for one hidden number of a gate.
_NARROW = 16


class Gate(nn.Module):
    """Lets channels pass or not: ``x_c 1[sigmoid(V U pool(x) + b)_c > 1/2]``.

    The pool is the mean absolute value of each channel over all but trials, divided by
    its mean over channels, so that units do not count. Gradients are those of the
    sigmoid (straight through).

    Parameters
    ----------
    n : int
        Channels.
    axis : int
        Theirs: 1 of a convolution's, -1 of a linear layer's inputs.
    bias : float
        At the start: 2 lets all pass.
    seed : int
        Of U; V starts at zero.

    Attributes
    ----------
    open : Tensor, shape (n_trials, n) | None
        Of the last pass, 0 or 1, with its graph.
    """

    def __init__(
        self, n: int, axis: int, *, bias: float = 2.0, seed: int = 0, like: Tensor
    ) -> None:
        super().__init__()
        self.axis = axis
        hidden = max(n // _NARROW, 1)
        g = torch.Generator().manual_seed(seed)
        first = torch.randn(hidden, n, generator=g) / n**0.5
        self.first = nn.Parameter(first.to(like))
        self.second = nn.Parameter(torch.zeros(n, hidden).to(like))
        self.bias = nn.Parameter(torch.full((n,), bias).to(like))
        self.open: Tensor | None = None

    def pool(self, x: Tensor) -> Tensor:
        """Return each channel's size, relative to their mean, (n_trials, n)."""
        axis = self.axis % x.ndim
        others = [k for k in range(1, x.ndim) if k != axis]
        size = x.detach().abs()
        size = size.mean(dim=others) if others else size
        return size / size.mean(dim=1, keepdim=True).clamp_min(tiny(size))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the channels that its trials close set to zero."""
        share = torch.sigmoid(self.pool(x) @ self.first.mT @ self.second.mT + self.bias)
        hard = (share > 0.5).to(share)
        self.open = share + (hard - share).detach()
        axis = self.axis % x.ndim
        size = [len(x)] + [x.shape[k] if k == axis else 1 for k in range(1, x.ndim)]
        return x * self.open.view(size)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied: not the last pass, whose graph cannot be."""
        return {**self.__dict__, "open": None}


class Gated(nn.Module):
    """A layer behind a gate of what enters it.

    Attributes
    ----------
    gate : Gate
    layer : Module
    cost : float
        Numbers that one channel costs, in the layer that makes it and in this one.
    """

    def __init__(self, gate: Gate, layer: nn.Module, cost: float) -> None:
        super().__init__()
        self.gate, self.layer, self.cost = gate, layer, cost

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of the channels that pass."""
        return self.layer(self.gate(x))  # type: ignore[no-any-return]


class PolarisedSize:
    """All trials alike open or close a gate, and the open ones have the wanted size.

    ``polarise r mean_c p_c (1 - p_c) + size (sum_c k_c p_c / sum_c k_c - target)^2``
    over all gates, with k_c the numbers that a channel costs, p_c the share of the
    batch's trials for which it is open, and r from 0 to 1 in the first half of the
    epochs.

    Parameters
    ----------
    target : float
        Share of the cost of all gated channels that is kept.
    polarise, size : float

    References
    ----------
    Source list 002, entry 6 (consensus sub-network with polarisation), re-derived.
    """

    per_trial = False
    training_only = True

    def __init__(
        self, target: float = 0.5, polarise: float = 1.0, size: float = 4.0
    ) -> None:
        if not 0.0 < check_number("target", target) <= 1.0:
            fail(f"target={target}", fix="give a share above 0, up to 1")
        self.target = target
        self.polarise = check_number("polarise", polarise, least=0.0)
        self.size = check_number("size", size, least=0.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the loss of the gates' last pass, a scalar."""
        shares, costs = [], []
        for gated in layers_of(model, Gated).values():
            assert gated.gate.open is not None
            share = gated.gate.open.mean(dim=0)
            shares.append(share)
            costs.append(torch.full_like(share, gated.cost))
        if not shares:
            fail("The network has no gates", fix="prepare it by Prune")
        p, cost = torch.cat(shares), torch.cat(costs)
        ramp = min(2.0 * context.progress, 1.0)
        kept = (cost * p).sum() / cost.sum()
        votes = (p * (1.0 - p)).mean()
        loss: Tensor = self.polarise * ramp * votes
        return loss + self.size * (kept - self.target) ** 2


class GateWatch:
    """A callback of `train`: forget what gates saw, so that networks can be copied."""

    def on_train_end(self, state: TrainState) -> None:
        """Drop the last pass."""
        for gated in layers_of(state.model, Gated).values():
            gated.gate.open = None
