"""Scales of recordings."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._signals import Signals


def scaled(signals: Signals, scale: NDArray) -> NDArray:
    """Return signals divided by one scale a channel; a silent one stays zero."""
    safe = np.where(scale > 0, scale, 1.0)[:, None]
    # float32 of the ratio: what rounding in V and uV differs by falls away.
    return np.asarray((signals.X / safe).astype(np.float32), dtype=np.float64)


def check_rate(bits_per_second: float) -> float:
    """Return bits a second that are a number above zero."""
    try:
        found = float(bits_per_second)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 < found < math.inf:
        fail(f"bits_per_second={bits_per_second!r}", fix="give a number above 0")
    return found


def check_scale(scale: NDArray | float, n_channels: int) -> NDArray:
    """Return a given scale as one number a channel."""
    found = np.asarray(scale, dtype=np.float64)
    if found.shape not in ((), (n_channels,)) or not (
        np.isfinite(found).all() and (found >= 0).all()
    ):
        fine = np.isfinite(found) & (found >= 0)
        fail(
            f"scale has shape {found.shape} for {n_channels} channels"
            if fine.all()
            else f"scale holds {found[~fine].flat[0]:g}",
            fix="give one positive number a channel, in the unit of the recording",
        )
    return np.broadcast_to(found, (n_channels,)).copy()
