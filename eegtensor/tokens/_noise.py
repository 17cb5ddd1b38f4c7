"""Noise that fills what tokens do not tell: a function of the tokens alone."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor.tokens._bands import N_BINS

# Rows of the table that noise is taken from.
_ROWS = 4096


def token_noise(ids: Tensor, n_bins: int = N_BINS) -> Tensor:
    """Return unit noise (..., n_bins), the row of a fixed table that ids point at."""
    table = torch.cat([_table(k) for k in range(-(-n_bins // N_BINS))], dim=1)
    table = table[:, :n_bins]
    # A polynomial of the tokens modulo a prime: int64 never overflows.
    prime, at = 2_147_483_647, torch.zeros_like(ids[..., 0])
    for slot in ids.unbind(dim=-1):
        at = (at * 1_000_003 + slot + 2) % prime
    return table.to(ids.device)[at % _ROWS]


def _table(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(_ROWS, N_BINS, generator=generator, dtype=torch.float64)
