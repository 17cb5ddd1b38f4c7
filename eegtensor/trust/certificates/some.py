"""SOME: several heads that smooth each other, trained on noisy copies."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from eegtensor._check import check_count, check_number, fail
from eegtensor.training import UNLABELLED, Batch, StatisticsGuard, StepContext
from eegtensor.training.batch import labels_of
from eegtensor.training.network import find_head, inner_module
from eegtensor.training.perturbations.scales import channel_scale


class HeadSum(nn.Module):
    """Several heads on the same features; their logits are added up.

    Parameters
    ----------
    heads : iterable of torch.nn.Module
    """

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def each(self, h: Tensor) -> Tensor:
        """Return the logits of each head, shape (n_heads, batch, n_outputs)."""
        return torch.stack([head(h) for head in self.heads])

    def forward(self, h: Tensor) -> Tensor:
        """Return the sum of the heads' logits, shape (batch, n_outputs)."""
        return self.each(h).sum(dim=0)

    def cosines(self) -> Tensor:
        """Return the cosine of the weights of every pair of heads, (n_pairs,)."""
        rows = [
            torch.cat([p.flatten() for p in head.parameters()]) for head in self.heads
        ]
        unit = nn.functional.normalize(torch.stack(rows), dim=1)
        i, j = torch.triu_indices(len(rows), len(rows), 1, device=unit.device)
        return (unit[i] * unit[j]).sum(dim=1)


def with_heads(
    model: nn.Module,
    n_heads: int = 5,
    *,
    generator: torch.Generator | None = None,
    spread: float = 1.0,
) -> nn.Module:
    """Return a copy of a network whose head is a sum of several.

    Parameters
    ----------
    model : torch.nn.Module
    n_heads : int
    generator : torch.Generator | None
        Of what is added to the copies of the head: heads that start alike would
        stay alike.
    spread : float
        Size of that, in root mean squares of each weight tensor.

    Raises
    ------
    EEGTensorError
        If the network has no head, or its head no weights.
    """
    check_count("n_heads", n_heads)
    model = copy.deepcopy(model)
    head = find_head(model)
    if not list(head.parameters()):
        fail("The head has no weights", fix="choose a network with head='linear'")
    heads = [copy.deepcopy(head) for _ in range(n_heads)]
    with torch.no_grad():
        for p in (p for one in heads[1:] for p in one.parameters()):
            noise = torch.randn(p.shape, dtype=p.dtype, generator=generator).to(p)
            p.add_(noise * (spread * p.square().mean().sqrt()))
    for parent in inner_module(model).modules():
        for name, child in parent.named_children():
            if child is head:
                setattr(parent, name, HeadSum(heads))
                return model
    fail("The head is the network itself", fix="put it behind a module of features")


def pace(epoch: int, n_epochs: int, n_classes: int, last: float) -> float:
    """Return lambda of an epoch, from 1: -log10(a t + b), ln K first and `last` last.

    References
    ----------
    K. Fang et al., "Towards robust neural networks via orthogonal diversity / self-
    paced smoothed multi-head ensemble" (SPACTE, SOME), eq. of the pace.
    """
    first = 10.0 ** -math.log(n_classes)
    share = (epoch - 1) / (n_epochs - 1) if n_epochs > 1 else 1.0
    return -math.log10(first + share * (10.0**-last - first))


def peer_weights(losses: Tensor, lam: float) -> Tensor:
    """Return the weight of each trial for each head, from its neighbour's loss.

    1 where the head before it has a loss below lambda, else
    (1 + exp(-lam)) / (1 + exp(L - lam)) of its own loss L.

    Parameters
    ----------
    losses : Tensor, shape (n_heads, n_trials)
    lam : float
    """
    before = losses.roll(1, dims=0)
    own = (1.0 + math.exp(-lam)) * torch.sigmoid(lam - losses)
    return torch.where(before < lam, torch.ones_like(own), own).detach()


class SOME:
    """Cross-entropy of every head on noisy copies, weighted by its neighbour.

    For networks of `with_heads`. What a head cannot learn, and its neighbour neither,
    counts for less; the squared cosines between heads keep them apart.

    Parameters
    ----------
    sigma : float
        Of the noise, in standard deviations of the channel.
    copies : int
        Noisy copies of a trial.
    last : float
        Lambda of the last epoch: 1.2 for sigma .25, .8 for .5 and 1.
    cosine : float
        Weight of the sum of squared cosines.

    Notes
    -----
    `copies` forward passes beside the loop's own, in which statistics move. Networks
    that take trials: front="conv" of TSMNet.

    References
    ----------
    K. Fang et al., "On multi-head ensemble of smoothed classifiers for certified
    robustness", arXiv 2211.10882.
    """

    per_trial = False
    training_only = True
    needs = ("features",)

    def __init__(
        self,
        sigma: float = 0.25,
        copies: int = 2,
        last: float = 1.2,
        cosine: float = 1.0,
    ) -> None:
        self.sigma = check_number("sigma", sigma, above=0.0)
        self.copies = check_count("copies", copies)
        self.last = check_number("last", last, above=0.0)
        self.cosine = check_number("cosine", cosine, least=0.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of all heads, a scalar."""
        head = context.network.head
        if not isinstance(head, HeadSum):
            fail(
                f"The network's head is a {type(head).__name__}",
                why="SOME trains several heads on the same features",
                fix="train with_heads(network)",
            )
        y = labels_of(batch, "SOME")
        known = y != UNLABELLED
        target = torch.where(known, y, 0)
        total = 0.0 * outputs.sum()
        losses: Any = 0.0
        with StatisticsGuard(model, "transient"):
            for noisy in self._noisy(batch, context):
                context.network(noisy)
                each = head.each(context.features).double()
                losses = losses + torch.stack(
                    [cross_entropy(z, target, reduction="none") for z in each]
                )
        losses = losses / self.copies
        lam = pace(context.epoch, context.n_epochs, outputs.shape[1], self.last)
        weights = peer_weights(losses, lam) * known
        # The mean over heads and trials that have a label.
        mean = (weights * losses).sum() / (len(losses) * known.sum().clamp_min(1))
        return total + mean + self.cosine * head.cosines().square().sum()

    def _noisy(self, batch: Batch, context: StepContext) -> Iterator[Batch]:
        from dataclasses import replace

        x, scale = batch.x, self.sigma * channel_scale(batch.x)
        for _ in range(self.copies):
            z = torch.randn(
                x.shape, dtype=x.dtype, device=x.device, generator=context.generator
            )
            yield replace(batch, x=x + scale * z)
