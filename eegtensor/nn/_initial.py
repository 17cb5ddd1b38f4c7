"""Initial weights: the same for a seed, whatever the dtype and the device."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian(*shape: int, generator: torch.Generator | None) -> Tensor:
    """Return standard normal numbers, float64, on the generator's device."""
    place = None if generator is None else generator.device
    # Always in float64: a float32 network starts at the same weights, rounded.
    return torch.randn(*shape, dtype=torch.float64, generator=generator, device=place)


def fill_uniform(
    *parameters: Tensor | None, fan_in: int, generator: torch.Generator | None
) -> None:
    """Draw parameters uniform within 1 / sqrt(fan_in), as torch's layers do."""
    # A generator draws on its own device alone, wherever the weights are.
    place = None if generator is None else generator.device
    bound = fan_in**-0.5
    with torch.no_grad():
        for p in parameters:
            if p is not None:
                unit = torch.rand(
                    p.shape, dtype=torch.float64, generator=generator, device=place
                )
                p.copy_(bound * (2.0 * unit - 1.0))
