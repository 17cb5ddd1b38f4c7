"""GraNd: the length of a trial's gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.device import device_of
from eegtensor.training.network import Network, chunks
from eegtensor.training.scores.el2n import el2n
from eegtensor.training.statistics import StatisticsGuard, evaluating


def last_layer_grand(logits: Tensor, features: Tensor, y: Tensor) -> Tensor:
    """Return the length of a linear head's gradient of each trial's cross-entropy.

    It is exactly EL2N sqrt(1 + |h|^2), h what enters a head with bias.

    Parameters
    ----------
    logits : Tensor, shape (n_trials, n_classes)
    features : Tensor, shape (n_trials, n_features)
    y : Tensor of int64, shape (n_trials,)

    Returns
    -------
    scores : Tensor, shape (n_trials,)
    """
    return el2n(logits, y) * (1.0 + features.square().sum(1)).sqrt()


def grand(model: nn.Module, data: Batch, *, batch_size: int = 32) -> Tensor:
    """Return the length of the gradient of each trial's cross-entropy.

    The gradient is the Riemannian one of all parameters, its length that of the
    product metric, in evaluation statistics and without dropout. Average scores of
    networks from several starts, at the start or after a few epochs.

    Parameters
    ----------
    model : torch.nn.Module
    data : Batch
    batch_size : int
        Trials whose gradients are held at a time.

    Returns
    -------
    scores : Tensor, shape (n_trials,)
        NaN where the class is not known.

    References
    ----------
    M. Paul, S. Ganguli and G. K. Dziugaite, "Deep learning on a data diet: finding
    important examples early in training", NeurIPS 2021, definition 1.
    """
    y, network = labels_of(data, "GraNd"), Network(model)
    found = []
    with StatisticsGuard(model, "eval"), evaluating(model), torch.enable_grad():
        for part in chunks(data, batch_size):
            batch = part.to(device_of(model))
            labels = labels_of(batch, "GraNd").clamp_min(0)
            losses = F.cross_entropy(network(batch), labels, reduction="none")
            found.append(_lengths(losses, network))
    return torch.cat(found).to(y.device).masked_fill(y < 0, torch.nan)


def _lengths(losses: Tensor, network: Network) -> Tensor:
    """Return the length of the gradient of each of some losses."""
    space = network.space
    leaves = list(space.leaves.values())
    eye = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
    try:
        rows: Any = torch.autograd.grad(
            losses,
            leaves,
            eye,
            is_grads_batched=True,
            allow_unused=True,
            retain_graph=True,
        )
    except (RuntimeError, NotImplementedError):
        # Some backward passes know no batch of gradients.
        each: Any = [
            torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
            for loss in losses
        ]
        rows = tuple(
            None if column[0] is None else torch.stack(column)
            for column in zip(*each, strict=True)
        )
    points, squares = space.points(), losses.new_zeros(len(losses)).double()
    for name, g in zip(space.leaves, rows, strict=True):
        if g is None:
            continue
        up = torch.stack([space.adapters[name].rgrad(points[name], row) for row in g])
        # <rgrad g, rgrad g> in the metric is <g, rgrad g>.
        squares = squares + (g.double() * up.double()).flatten(1).sum(1)
    return squares.clamp_min(0.0).sqrt()
