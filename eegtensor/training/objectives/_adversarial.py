"""What objectives share that attack the trials themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import features_kept
from eegtensor.training.perturbations._adversary import (
    Budget,
    Raised,
    moved,
    raise_cross_entropy,
    signals_of,
    worst,
)
from eegtensor.training.perturbations.places import frozen
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


def attacked_pass(
    context: StepContext,
    batch: Batch,
    budget: Budget,
    raised: Raised = raise_cross_entropy,
) -> tuple[Batch, Any, Tensor | None]:
    """Attack the trials of a batch and pass them through the network.

    The attack is in evaluation statistics, which the step's own pass of the clean
    trials has moved already; the pass is a training pass whose statistics are thrown
    away.

    Returns
    -------
    attacked : Batch
    outputs : Any
        With their graph.
    features : Tensor | None
        What entered the head, where the run keeps it.
    """
    network, model = context.network, context.model
    with features_kept(context):
        with frozen(model):
            d = worst(network, batch, budget, raised, context.generator)
        scale = channel_scale(signals_of(batch, "An attack"))
        attacked = moved(batch, d.detach(), scale)
        with StatisticsGuard(model, "transient"):
            outputs = network(attacked)
        return attacked, outputs, network.features


def trains() -> bool:
    """Whether losses are asked for to train, and not only to evaluate."""
    return torch.is_grad_enabled()
