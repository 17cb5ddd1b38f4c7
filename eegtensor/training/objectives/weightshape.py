"""Weights of a shape that rounding harms little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number
from eegtensor.training.adapters import is_manifold_parameter
from eegtensor.training.batch import Batch

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


def moments(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the skewness and the kurtosis of a weight's numbers (3 of a normal)."""
    wide = weight - weight.mean()
    spread = wide.square().mean().clamp_min(torch.finfo(wide.dtype).tiny).sqrt()
    unit = wide / spread
    return unit.pow(3).mean(), unit.pow(4).mean()


class WeightShape:
    """Draws weights to the evenly spread shape that few bits tell best.

    The mean over layers of ``kurtosis (K - target)^2 + skewness S^2``, with kurtosis K
    and skewness S of all numbers of a layer's `weight` (of two axes or more). The first
    layer is left out, as are weights on manifolds, whose numbers are not free.

    Parameters
    ----------
    kurtosis, skewness : float
        Weights of the two parts.
    target : float
        1.8 is that of an even spread.

    References
    ----------
    K. Xu et al., "EQ-Net: elastic quantization neural networks", ICCV 2023, eq. 6 to 8;
    M. Shkolnik et al., "Robust quantization: one model to rule them all",
    NeurIPS 2020.
    """

    per_trial = False
    training_only = True

    def __init__(
        self, kurtosis: float = 1.0, skewness: float = 1.0, target: float = 1.8
    ) -> None:
        self.kurtosis = check_number("kurtosis", kurtosis, least=0.0)
        self.skewness = check_number("skewness", skewness, least=0.0)
        self.target = check_number("target", target, least=1.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the mean over layers, a scalar; 0 where there is one layer."""
        found = [
            (self.kurtosis * (k - self.target) ** 2 + self.skewness * s**2)
            for s, k in map(moments, _weights(model)[1:])
        ]
        if not found:
            return next(model.parameters()).new_zeros(())
        return torch.stack(found).mean()


def _weights(model: nn.Module) -> list[Tensor]:
    return [
        p
        for name, p in model.named_parameters()
        if name.rpartition(".")[2] == "weight"
        and p.ndim >= 2
        and p.requires_grad
        and not is_manifold_parameter(p)
    ]
