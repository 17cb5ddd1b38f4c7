"""Steps of a single weight of a network, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from eegtensor._check import check_count
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.network import Network, chunks
from eegtensor.training.perturbations._adversary import (
    Budget,
    moved,
    signals_of,
    worst,
)
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.samplers.shuffle import ShuffleSampler
from eegtensor.training.space import ParamSpace


class OneWeight:
    """Passes over trials in batches, in evaluation mode."""

    def __init__(self, network: Network, batch_size: int, seed: int) -> None:
        self.network, self.seed = network, seed
        self.batch_size = check_count("batch_size", batch_size)

    def attacked(self, data: Batch, budget: Budget) -> Batch:
        """Return trials attacked at the network as it is."""
        g = torch.Generator(data.device).manual_seed(self.seed)
        # Of all trials together: budgets are in standard deviations over these.
        scale = channel_scale(signals_of(data, "RiFT"))
        rows = [
            worst(self.network, part, budget, generator=g, scale=scale)
            for part in chunks(data, self.batch_size)
        ]
        return moved(data, torch.cat(rows), scale)

    @torch.no_grad()
    def loss(self, data: Batch) -> float:
        """Return the mean loss of trials with a label."""
        parts = chunks(data, self.batch_size)
        total = sum(float(self._loss(part, "sum")) for part in parts)
        known = int((labels_of(data, "RiFT") >= 0).sum())
        return total / max(known, 1)

    @torch.no_grad()
    def accuracy(self, data: Batch) -> float:
        """Return the share of trials with a label that are classified right."""
        y = labels_of(data, "RiFT")
        rows = [self.network(part).argmax(1) for part in chunks(data, self.batch_size)]
        return float((torch.cat(rows) == y)[y >= 0].double().mean())

    def epoch(
        self,
        data: Batch,
        space: ParamSpace,
        name: str,
        step: Callable[[Tensor], Tensor],
        epoch: int,
    ) -> None:
        """Let one weight make a step for each batch of an epoch."""
        sampler = ShuffleSampler(
            len(data), batch_size=self.batch_size, random_state=self.seed
        )
        for index in sampler.indices(epoch + 1):
            with torch.enable_grad():
                loss = self._loss(data.pick(index.to(data.device)), "mean")
            (gradient,) = torch.autograd.grad(loss, space.leaves[name])
            space.assign(space.points() | {name: step(gradient.detach())})

    def _loss(self, data: Batch, reduction: str) -> Tensor:
        y = labels_of(data, "RiFT")
        return cross_entropy(
            self.network(data), y, reduction=reduction, ignore_index=UNLABELLED
        )


class Climb:
    """Ascent of one weight within a share of its norm."""

    def __init__(self, space: ParamSpace, name: str, radius: float, lr: float) -> None:
        self.adapter, self.lr = space.adapters[name], lr
        self.base = space.points()[name].clone()
        self.u = torch.zeros_like(self.base)
        self.radius = radius * self._norm(self.base)

    def __call__(self, gradient: Tensor) -> Tensor:
        self.u = self.u + self.lr * self.adapter.rgrad(self.base, gradient)
        factor = self.radius / self._norm(self.u).clamp_min(1e-30)
        self.u = self.u * factor.clamp_max(1.0).to(self.u)
        return self.adapter.retract(self.base, self.u)

    def _norm(self, u: Tensor) -> Tensor:
        return self.adapter.inner(self.base, u, u).double().clamp_min(0.0).sqrt()


class Tune:
    """SGD with momentum of one weight."""

    def __init__(
        self, space: ParamSpace, name: str, lr: float, momentum: float, decay: float
    ) -> None:
        self.space, self.name, self.lr, self.momentum = space, name, lr, momentum
        self.adapter = space.adapters[name]
        self.decay = decay if self.adapter.name == "euclidean" else 0.0
        self.buffer: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        p = self.space.points()[self.name]
        gradient = gradient + self.decay * p
        old = self.buffer
        # Euclidean coordinates: momenta need no transport in these.
        self.buffer = gradient if old is None else self.momentum * old + gradient
        return self.adapter.retract(p, -self.lr * self.adapter.rgrad(p, self.buffer))
