"""A seed from whatever a caller gives."""

from __future__ import annotations

import numpy as np
import torch

from eegtensor._check import RandomState, as_generator


def as_seed(random_state: RandomState | torch.Generator) -> int:
    """Return a seed: the number given, one drawn from the generator, or a fresh one."""
    if isinstance(random_state, torch.Generator):
        device = random_state.device
        return int(torch.randint(2**62, (1,), generator=random_state, device=device))
    if isinstance(random_state, (int, np.integer)) and random_state >= 0:
        return int(random_state)
    return int(as_generator(random_state).integers(2**62))


def reseed(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of one device.

    torch.manual_seed seeds every GPU, also those that no `fork_rng` puts back.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
