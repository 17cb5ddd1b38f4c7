"""One step: passes, perturbations, gradients, optimizer, average."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor

from eegtensor.training.plugs import (
    Plugs,
    apply_delta,
    mix_gradients,
    transform_gradients,
)
from eegtensor.training.protocols import StepContext
from eegtensor.training.statistics import Mode, StatisticsGuard, copy_statistics
from eegtensor.training.workers import Workers


def take_step(
    context: StepContext,
    optimizer: torch.optim.Optimizer,
    plugs: Plugs,
    *,
    accumulate: int = 1,
    sign: float = 1.0,
    workers: Workers | None = None,
) -> Tensor:
    """Make one step and return its loss, detached.

    Parameters
    ----------
    context : StepContext
    optimizer : torch.optim.Optimizer
    plugs : Plugs
    accumulate : int
        Parts of the batch that pass one after the other; their gradients add up.
    sign : float
        Factor of the gradients.
    workers : Workers | None
        Processes among which the batch is cut.
    """
    model = context.model
    context.clean = context.batch
    clean_statistics = plugs.clean_statistics and any(True for _ in model.buffers())
    with ExitStack() as reverts:
        # Before the first pass: the second starts from the statistics it started from.
        start = None if plugs.second is None else copy_statistics(model)
        for perturbation in plugs.first:
            mode: Mode = "transient" if perturbation.extra_gradients else "commit"
            with StatisticsGuard(model, mode):
                delta = perturbation.sample(context)
            apply_delta(delta, context, reverts)
        optimizer.zero_grad()
        with StatisticsGuard(model, "transient" if clean_statistics else "commit"):
            loss = _pass(context, accumulate, workers)
        if plugs.second is not None:
            delta = plugs.second.sample(context)
            gradients = [(p, p.grad) for p in _stepped(optimizer)]
            apply_delta(delta, context, reverts)
            optimizer.zero_grad()
            with StatisticsGuard(model, "transient", start=start):
                _pass(context, accumulate, workers)
            mix_gradients(gradients, getattr(plugs.second, "mix", 1.0))
    if clean_statistics:
        # After the reverts: no hook of a latent perturbation is left.
        with torch.no_grad():
            context.network(context.clean)
    if plugs.grad_transform is not None:
        transform_gradients(plugs.grad_transform, context)
    if sign != 1.0:
        # After the transform, which may add terms of its own passes.
        for p in _stepped(optimizer):
            if p.grad is not None:
                p.grad *= sign
    optimizer.step()
    if plugs.averager is not None:
        plugs.averager.observe(model, context.step)
    return loss


def _stepped(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Return all parameters of an optimizer: those of objectives too."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _pass(context: StepContext, accumulate: int, workers: Workers | None) -> Tensor:
    """Add the gradients of the batch to the parameters' and return its loss."""
    loss = _own_pass(context, accumulate)
    if workers is None:
        return loss
    return workers.add_up(context.model, loss, len(context.batch))


def _own_pass(context: StepContext, accumulate: int) -> Tensor:
    if accumulate == 1:
        loss = context.loss(context.batch)
        loss.backward()
        return loss.detach()
    whole, total = context.batch, None
    try:
        for part in whole.parts(accumulate):
            context.batch = part
            loss = context.loss(part) * (len(part) / len(whole))
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
    finally:
        context.batch = whole
    assert total is not None
    return total
