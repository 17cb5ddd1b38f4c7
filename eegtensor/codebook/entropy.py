"""Entropy of quantised numbers: a mixture of Gaussians on the integers.

A coefficient is divided by a step and rounded towards zero: codes with
``|q| >= 1`` hold ``[|q| - rounding, |q| + 1 - rounding)``, zero holds the rest.
Its probability follows from a scale (the step is one) and a few fixed ratios
that make tails heavier than a Gaussian's. Scales are cut to a grid, and
probabilities to multiples of 2^-16, so that the bits counted are those that
`eegtensor.codebook.ranges` writes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Scales of the tables: 8 an octave, from 2^-6 to 2^12 steps.
_PER_OCTAVE, _LOWEST, _HIGHEST = 8, -6, 12
PRECISION = 16


class CodeTables(NamedTuple):
    """What codes cost and stand for, one row a scale.

    Attributes
    ----------
    starts : Tensor of int64, shape (n_scales, n_codes + 1)
        Cumulative counts; the last is 2^16.
    bits : Tensor, shape (n_scales, n_codes)
    means : Tensor, shape (n_scales, n_codes)
        Of what a code holds, in steps.
    spread : Tensor, shape (n_scales,)
        Standard deviation of what zero holds, in steps.
    """

    starts: Tensor
    bits: Tensor
    means: Tensor
    spread: Tensor

    @property
    def largest(self) -> int:
        """The largest code; the smallest is its negative."""
        return self.bits.shape[1] // 2


def quantise(values: Tensor, rounding: float, largest: int) -> Tensor:
    """Return the codes of values in steps, int64 within +-largest."""
    size = torch.floor(values.abs() + rounding).clamp_max(largest)
    return (values.sign() * size).to(torch.int64)


def code_log_probability(
    q: Tensor,
    log_scale: Tensor,
    log_weights: Tensor,
    log_ratios: Tensor,
    rounding: float,
) -> Tensor:
    """Return log probabilities of codes, of the shape of q.

    Parameters
    ----------
    q : Tensor, shape (...)
    log_scale : Tensor, shape (...)
        Natural logarithm of the scale in steps.
    log_weights, log_ratios : Tensor, shape (n_parts,)
        Of the mixture; scales are multiplied by the ratios.
    rounding : float
    """
    low, high = _edges(q, rounding)
    scale = (log_scale[..., None] + log_ratios).exp()
    parts = _mass(low[..., None] / scale, high[..., None] / scale)
    return torch.logsumexp(log_weights + parts.clamp_min(1e-30).log(), dim=-1)


def scale_index(log_scale: Tensor) -> Tensor:
    """Return the rows of `code_tables` that scales belong to, int64."""
    index = torch.round((log_scale / math.log(2) - _LOWEST) * _PER_OCTAVE)
    return index.clamp(0, (_HIGHEST - _LOWEST) * _PER_OCTAVE).to(torch.int64)


def code_tables(
    log_weights: Tensor, log_ratios: Tensor, rounding: float, largest: int
) -> CodeTables:
    """Return the tables of codes from -largest to largest, float64."""
    weights = log_weights.double().softmax(dim=0)
    rows = torch.arange((_HIGHEST - _LOWEST) * _PER_OCTAVE + 1, dtype=torch.float64)
    scale = (
        torch.exp2(rows / _PER_OCTAVE + _LOWEST)[:, None] * log_ratios.double().exp()
    )
    q = torch.arange(-largest, largest + 1, dtype=torch.float64)
    low, high = _edges(q, rounding)
    # The last codes hold all that is beyond them.
    high[q.abs() == largest] = math.inf
    low, high = low[None, :, None], high[None, :, None]
    mass = _mass(low / scale[:, None], high / scale[:, None])
    p = (weights * mass).sum(dim=-1)
    size = _first_moment(low / scale[:, None], high / scale[:, None]) * scale[:, None]
    sizes = (weights * size).sum(dim=-1) / p.clamp_min(1e-300)
    # Where probability underflows a code stands for its nearer edge.
    edge = low[0, :, 0].clamp_min(0)
    beyond = torch.where(torch.isfinite(high[0, :, 0]), high[0, :, 0], edge + 1)
    sizes = torch.where(p > 1e-200, sizes.maximum(edge).minimum(beyond), edge)
    zero = 1 - rounding
    inside = _second_moment(zero / scale) * scale.square()
    spread = (weights * inside).sum(dim=-1) / p[:, largest].clamp_min(1e-300)
    counts = _counts(p)
    starts = torch.nn.functional.pad(counts.cumsum(dim=1), (1, 0))
    return CodeTables(
        starts,
        PRECISION - counts.double().log2(),
        torch.where(q == 0, 0.0, sizes * q.sign()),
        spread.clamp(0, zero**2).sqrt(),
    )


def _edges(q: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Return the edges of |value| that codes hold; zero's lower one is negative."""
    size = q.abs()
    high = size + (1 - rounding)
    return torch.where(size > 0, size - rounding, -high), high


def _mass(low: Tensor, high: Tensor) -> Tensor:
    # From the upper tail: differences near one would lose all digits.
    return torch.special.ndtr(-low) - torch.special.ndtr(-high)


def _first_moment(low: Tensor, high: Tensor) -> Tensor:
    """Return the integral of t times the unit Gaussian."""
    return (torch.exp(-low.square() / 2) - torch.exp(-high.square() / 2)) / math.sqrt(
        2 * math.pi
    )


def _second_moment(high: Tensor) -> Tensor:
    """Return the integral of t^2 times the unit Gaussian from -high to high."""
    density = torch.exp(-high.square() / 2) / math.sqrt(2 * math.pi)
    return torch.special.erf(high / math.sqrt(2)) - 2 * high * density


def _counts(p: Tensor) -> Tensor:
    """Return counts of 2^16 in all, one at least for every code."""
    total = 1 << PRECISION
    p = p / p.sum(dim=1, keepdim=True)
    counts = (p * (total - p.shape[1])).floor().to(torch.int64) + 1
    largest = p.argmax(dim=1, keepdim=True)
    return counts.scatter_add(1, largest, total - counts.sum(dim=1, keepdim=True))
