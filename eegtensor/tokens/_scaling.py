"""Scales of recordings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._signals import Signals


def scaled(signals: Signals, scale: NDArray) -> NDArray:
    """Return signals divided by one scale a channel; a silent one stays zero."""
    safe = np.where(scale > 0, scale, 1.0)[:, None]
    # float32 of the ratio: what rounding in V and uV differs by falls away.
    return np.asarray((signals.X / safe).astype(np.float32), dtype=np.float64)


def check_scale(scale: NDArray | float, n_channels: int) -> NDArray:
    """Return a given scale as one number a channel."""
    found = np.asarray(scale, dtype=np.float64)
    if found.shape not in ((), (n_channels,)) or not (
        np.isfinite(found).all() and (found >= 0).all()
    ):
        fail(
            f"scale has shape {found.shape} for {n_channels} channels",
            fix="give one positive number a channel, in the unit of the recording",
        )
    return np.broadcast_to(found, (n_channels,)).copy()
