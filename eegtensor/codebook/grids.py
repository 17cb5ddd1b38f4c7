"""Quantisers without a table, as modules: no code can die, none is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.codebook._book import Quantised, as_input, as_rows, batch_usage, gap
from eegtensor.codebook.lookup import check_finite
from eegtensor.codebook.scalar import (
    check_levels,
    finite_scalar,
    index_to_scalar,
    index_to_signs,
    lookup_free,
    lookup_free_penalty,
    scalar_to_index,
    signs_to_index,
)
from eegtensor.codebook.usage import Usage

# More codes than this are not counted.
_MOST_COUNTED = 1 << 18


class FiniteScalarQuantizer(nn.Module):
    """Every coordinate bounded and rounded to a few values.

    Parameters
    ----------
    levels : sequence of int
        Values of each coordinate; their product is the number of codes. The input
        should vary by about 1, whatever the unit of the signal.

    Notes
    -----
    Mentzer et al. 2024, "Finite scalar quantization". There is no loss to add.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = check_levels(levels)
        self.dim, self.n_codes = len(self.levels), math.prod(self.levels)

    def forward(self, z: Tensor) -> Quantised:
        """Return values, about within [-1, 1], for vectors (..., n_coordinates)."""
        rows = _rows(z, self.dim)
        values = finite_scalar(rows, self.levels)
        ids = scalar_to_index(values, self.levels)
        return Quantised(
            as_input(values, z),
            ids.view(z.shape[:-1]),
            values.new_zeros(()),
            _usage(ids, self.n_codes),
        )

    def decode(self, ids: Tensor) -> Tensor:
        """Return the float32 values of ids (...); -1 is zero."""
        return _sent(ids, index_to_scalar(ids.clamp_min(0), self.levels))

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"levels={self.levels}"


class LookupFreeQuantizer(nn.Module):
    """One bit a coordinate, its sign.

    Parameters
    ----------
    n_bits : int
    commitment : float
        Weight of ||z - sg(sign)||^2 in the loss.
    entropy : float
        Weight of `lookup_free_penalty`: sure bits, used alike.
    temperature : float
        Of that penalty. The input should vary by about 1.

    Notes
    -----
    Yu et al. 2024, "Language model beats diffusion", section 3.1.
    """

    def __init__(
        self,
        n_bits: int,
        *,
        commitment: float = 0.25,
        entropy: float = 0.1,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if not 1 <= n_bits <= 61:
            fail(f"n_bits={n_bits!r}", fix="give 1 to 61 bits")
        if commitment < 0 or entropy < 0 or temperature <= 0:
            fail(
                f"commitment={commitment!r}, entropy={entropy!r}, "
                f"temperature={temperature!r}",
                fix="give weights of 0 or more and a positive temperature",
            )
        self.dim, self.n_bits, self.n_codes = n_bits, n_bits, 2**n_bits
        self.commitment, self.entropy = commitment, entropy
        self.temperature = temperature

    def forward(self, z: Tensor) -> Quantised:
        """Return signs of vectors (..., n_bits)."""
        rows = _rows(z, self.dim)
        values = lookup_free(rows)
        ids = signs_to_index(values.detach())
        loss = self.commitment * gap(rows, values.detach())
        if self.entropy > 0 and rows.shape[0] > 0:
            penalty = lookup_free_penalty(rows, temperature=self.temperature)
            loss = loss + self.entropy * penalty
        return Quantised(
            as_input(values, z),
            ids.view(z.shape[:-1]),
            loss,
            _usage(ids, self.n_codes),
        )

    def decode(self, ids: Tensor) -> Tensor:
        """Return the float32 signs of ids (...); -1 is zero."""
        return _sent(ids, index_to_signs(ids.clamp_min(0), self.n_bits))

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"n_bits={self.n_bits}"


def _rows(z: Tensor, dim: int) -> Tensor:
    rows = as_rows(z, dim)
    check_finite(rows.detach(), "vectors", "find out where the network diverged")
    return rows


def _sent(ids: Tensor, values: Tensor) -> Tensor:
    return torch.where((ids >= 0)[..., None], values, 0.0)


def _usage(ids: Tensor, n_codes: int) -> Usage | None:
    if n_codes > _MOST_COUNTED:
        return None
    ones = torch.ones(ids.shape, device=ids.device)
    counts = torch.zeros(1, n_codes, device=ids.device)
    return batch_usage(counts.index_add_(1, ids, ones[None]))
