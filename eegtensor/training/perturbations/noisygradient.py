"""Noisy gradient descent: large batches with the gradient noise of small ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from eegtensor._check import check_count, check_option
from eegtensor.training.batch import Batch

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class _Weighted:
    """A batch with other weights of its trials."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def apply(self) -> Batch:
        """Return the batch."""
        return self.batch

    def revert(self) -> None:
        """Do nothing: the loop still has the batch as it came."""


class NoisyGradient:
    """Random weights of trials, so that a batch of B has the noise of one of b.

    The loss of trial i is multiplied by ``1 + sqrt(B / b) e_i`` with e of mean 0
    and variance 1, centred over the batch: the gradient is unbiased, and its
    covariance is that of b trials drawn from the B. One gradient a step.

    Parameters
    ----------
    ghost_batch : int | None
        b; a tenth of the batch by default, as in the paper (100 of 1000).
    noise : "normal" | "signs"

    Raises
    ------
    EEGTensorError
        If ghost_batch is less than 1.

    References
    ----------
    J. Wu, W. Hu, H. Xiong, J. Huan, V. Braverman and Z. Zhu, "On the noisy gradient
    descent that generalizes as SGD", ICML 2020.
    """

    where: Literal["input"] = "input"
    extra_gradients = 0
    needs = ("losses of trials",)

    def __init__(self, ghost_batch: int | None = None, noise: str = "normal") -> None:
        if ghost_batch is not None:
            check_count("ghost_batch", ghost_batch)
        self.ghost_batch = ghost_batch
        self.noise = check_option("noise", noise, ("normal", "signs"))

    def sample(self, context: StepContext) -> _Weighted:
        """Return the batch with weights drawn anew."""
        batch, n = context.batch, len(context.batch)
        e = torch.empty(n, device=batch.device)
        if self.noise == "normal":
            e.normal_(generator=context.generator)
        else:
            e.bernoulli_(0.5, generator=context.generator).mul_(2.0).sub_(1.0)
        ghost = max(n / 10, 1.0) if self.ghost_batch is None else self.ghost_batch
        weight = 1.0 + (n / ghost) ** 0.5 * (e - e.mean())
        if batch.weight is not None:
            weight = weight * batch.weight
        return _Weighted(replace(batch, weight=weight))
