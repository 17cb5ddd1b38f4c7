"""Quantisers without a table: every coordinate is rounded by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook.lookup import check_ids


def check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of values of the coordinates, each at least two."""
    found = tuple(int(n) for n in levels)
    if not found or min(found) < 2:
        fail(f"levels={levels!r}", fix="give at least two values a coordinate")
    if math.prod(found) >= 2**62:
        fail(
            f"levels={levels!r} make {math.prod(found)} codes",
            fix="split the coordinates among several quantisers",
        )
    return found


def finite_scalar(z: Tensor, levels: Sequence[int]) -> Tensor:
    """Return z bounded and rounded to a few values in each coordinate.

    The gradient of rounding is taken as one (straight through). Source: Mentzer
    et al. 2024, "Finite scalar quantization", section 3.1.

    Parameters
    ----------
    z : Tensor, shape (..., n_coordinates)
    levels : sequence of int
        Values of each coordinate.

    Returns
    -------
    Tensor, same shape
        Values k / (n // 2), about within [-1, 1].
    """
    numbers = check_levels(levels)
    _check_width(z, len(numbers))
    n = torch.tensor(numbers, dtype=z.dtype, device=z.device)
    half = n.div(2, rounding_mode="floor")
    # An even number of values lies half a step beside zero.
    reach = (n - 1) * (1 + 1e-3) / 2
    offset = torch.where(n % 2 == 0, 0.5, 0.0)
    # Zero is coded as zero; of two values it would be the last one, out of reach.
    shift = torch.where(n == 2, 0.0, (offset / reach).atanh())
    bounded = (z + shift).tanh() * reach - offset
    return (bounded + (bounded.round() - bounded).detach()) / half


def scalar_to_index(values: Tensor, levels: Sequence[int]) -> Tensor:
    """Return the index, mixed radix, of values that `finite_scalar` returned."""
    numbers = check_levels(levels)
    _check_width(values, len(numbers))
    n = torch.tensor(numbers, device=values.device)
    half = n.div(2, rounding_mode="floor")
    digits = (values.detach() * half).round().to(torch.int64) + half
    return (digits * _radix(numbers, values.device)).sum(dim=-1)


def index_to_scalar(
    index: Tensor, levels: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the values of an index, the inverse of `scalar_to_index`."""
    numbers = check_levels(levels)
    check_ids(index, math.prod(numbers), least=0)
    n = torch.tensor(numbers, device=index.device)
    half = n.div(2, rounding_mode="floor")
    digits = (
        index[..., None].div(_radix(numbers, index.device), rounding_mode="floor") % n
    )
    return (digits - half).to(dtype) / half.to(dtype)


def lookup_free(z: Tensor) -> Tensor:
    """Return the signs of z, with the gradient of the identity (straight through).

    Source: Yu et al. 2024, "Language model beats diffusion", section 3.1.
    """
    signs = torch.where(z > 0, 1.0, -1.0).to(z)
    return z + (signs - z).detach()


def signs_to_index(signs: Tensor) -> Tensor:
    """Return the index whose bits are the signs, the first the least."""
    return scalar_to_index((signs > 0).to(torch.float32) - 1, [2] * signs.shape[-1])


def index_to_signs(index: Tensor, n_bits: int) -> Tensor:
    """Return the signs (-1 or 1) of an index, the inverse of `signs_to_index`."""
    return 2 * index_to_scalar(index, [2] * n_bits) + 1


def lookup_free_penalty(z: Tensor, *, temperature: float = 0.01) -> Tensor:
    """Return mean entropy of each bit less entropy of its mean, in nats.

    Low where every bit is sure and all codes are used alike. Bits are taken as
    independent, which is exact for the factorised form of the source (Yu et al.
    2024, equation 4).
    """
    p = torch.sigmoid(2 * z.reshape(-1, z.shape[-1]) / temperature)

    def entropy(q: Tensor) -> Tensor:
        return -(torch.special.xlogy(q, q) + torch.special.xlogy(1 - q, 1 - q))

    return (entropy(p).mean(dim=0) - entropy(p.mean(dim=0))).sum()


def _check_width(z: Tensor, width: int) -> None:
    if z.ndim < 1 or z.shape[-1] != width:
        fail(
            f"values have shape {tuple(z.shape)}, there are {width} levels",
            fix="give one number of levels for each coordinate",
        )


def _radix(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    steps = [math.prod(numbers[:k]) for k in range(len(numbers))]
    return torch.tensor(steps, dtype=torch.int64, device=device)
