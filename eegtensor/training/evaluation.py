"""Losses and scores of trials that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network, chunks
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.protocols import Objective, StepContext
from eegtensor.training.statistics import evaluating

Metric = Callable[[Tensor, Batch], Tensor]


def evaluate(
    model: nn.Module,
    data: Batch,
    objective: Objective | Sequence[Objective | tuple[float, Objective]] | WeightedSum,
    *,
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int = 512,
) -> dict[str, float]:
    """Return ``{"loss": ...}`` and metrics of trials, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
    data : Batch
        On any device; batches of it go to the model's.
    objective : Objective | sequence of Objective or (weight, Objective)
        Those with `training_only` are left out.
    metrics : mapping of str to callable | None
        Functions of all outputs and the whole batch, such as `balanced_accuracy`.
    batch_size : int
        Trials at a time; all at once if an objective or metric is of a whole batch.
    """
    loss = objective if isinstance(objective, WeightedSum) else WeightedSum(objective)
    loss = loss.evaluated()
    if loss.scalar_terms or metrics:
        # Of a part they would be another number, not a part of theirs.
        batch_size = len(data)
    network = Network(model, keeps_features=loss.needs_features)
    device = device_of(model)
    total = torch.zeros((), dtype=torch.float64, device=device)
    scores: dict[str, float] = {}
    with torch.no_grad(), evaluating(model, *loss.modules):
        for part in chunks(data, batch_size):
            batch = part.to(device)
            outputs = network(batch)
            # The last batch may be smaller: its mean counts for less.
            total += loss(batch, outputs, StepContext(network, loss, batch)) * len(part)
            for name, metric in (metrics or {}).items():
                scores[name] = float(metric(outputs, batch))
    return {"loss": float(total) / len(data), **scores}


def balanced_accuracy(outputs: Tensor, batch: Batch) -> Tensor:
    """Return the mean recall of the classes that occur, for logits (n, n_classes)."""
    if batch.y is None:
        fail("Balanced accuracy got trials without labels", fix="give y to the Batch")
    classes = torch.arange(outputs.shape[1], device=outputs.device)
    truth = (batch.y[:, None] == classes).double()
    hits = (outputs.argmax(dim=1) == batch.y).double() @ truth
    # A class without trials has no recall.
    occurs = truth.sum(dim=0) > 0
    return (hits[occurs] / truth.sum(dim=0)[occurs]).mean()
