"""The step of a recording: the least that its rate pays for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from eegtensor._check import fail

if TYPE_CHECKING:
    from eegtensor.tokens.learned import LearnedCodec

# Steps that a recording may have, 64 an octave around that of the fit.
_GRID = 64
_FARTHEST = 6 * _GRID
_TRIES = 24
_NEAR_ENOUGH = 0.985
# Frames that are enough to tell what activity costs.
_STRETCH = 12
# Coefficients that tell how active a recording is.
_SAMPLE = 1 << 15
# Of a square, so that coefficients of half a step cost little.
_SPREAD = 2.0


def within_rate(codec: LearnedCodec, lanes: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the least step of the grid whose bits are within the rate.

    Bits are nearly in proportion to `activity`, which is cheap: it says which
    step to look at, and the bits there how far it is out.
    """
    few = lanes[:, :: max(1, lanes.numel() // _SAMPLE)]
    asked = codec.bits_per_second
    per_activity = _bits_per_activity(codec, lanes, few)
    # Exponents that cost too much, and that do not: the answer lies between.
    over, within = -_FARTHEST - 1, _FARTHEST + 1
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(_TRIES):
        k = _grid_step(codec, few, asked / per_activity)
        if k >= within:
            k = within - 1
        elif k <= over:
            # Where nothing moves the activity, as in silence, far ahead.
            k = over + 1 if within <= _FARTHEST else over + _GRID // 2
        if not over < k < within:
            break
        step = codec.step * 2 ** (k / _GRID)
        codes = codec.codes(lanes, step)
        bits = codec.costs(codes, step).bits
        spent = float(bits.sum()) / lanes.shape[:3].numel()
        if spent > asked:
            over = k
        else:
            within, best = k, (step, codes, bits)
            if spent >= _NEAR_ENOUGH * asked:
                break
        # Aimed a little low: over the rate is not allowed.
        per_activity = 1.003 * spent / max(activity(few, step), 1e-12)
    if best is None:
        fail(
            f"the recording costs more than {asked:g} bit/s/channel",
            why="Its energies are unlike those of the recordings of the fit",
            fix="fit on recordings like it, or ask for more bits",
        )
    return best


def _bits_per_activity(codec: LearnedCodec, lanes: Tensor, few: Tensor) -> float:
    """Return what activity costs in a stretch of long lanes; else in the fit."""
    n_frames = lanes.shape[1]
    if n_frames < 4 * _STRETCH:
        return codec.bits_per_activity
    first = (n_frames - n_frames // 4) // 2
    stretch = lanes[:, first : first + n_frames // 4]
    k = _grid_step(codec, few, codec.bits_per_second / codec.bits_per_activity)
    step = codec.step * 2 ** (k / _GRID)
    codes = codec.codes(stretch, step)
    spent = float(codec.costs(codes, step).bits.mean())
    return spent / max(activity(stretch, step), 1e-12)


def _grid_step(codec: LearnedCodec, few: Tensor, most: float) -> int:
    """Return the least exponent of the grid that is no more active."""
    low, high = -_FARTHEST, _FARTHEST
    while low < high:
        middle = (low + high) // 2
        if activity(few, codec.step * 2 ** (middle / _GRID)) <= most:
            high = middle
        else:
            low = middle + 1
    return low


def activity(lanes: Tensor, step: float) -> float:
    """Return bits a second that coefficients of known energy would cost."""
    size = (lanes / step).square().mul_(_SPREAD).log1p().mean()
    return float(size) * lanes.shape[-1] / (2 * math.log(2))
