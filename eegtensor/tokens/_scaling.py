"""Scales of recordings."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._signals import Signals

_FIX = "give one positive number a channel, in the unit of the recording"


def scaled(signals: Signals, scale: NDArray) -> NDArray:
    """Return signals divided by one scale a channel; zero where it is silent."""
    loud = (scale > 0)[:, None]
    found = np.zeros(signals.X.shape, dtype=np.float32)
    # float32 of the ratio: what rounding in V and uV differs by falls away.
    with np.errstate(over="ignore"):
        np.divide(signals.X, scale[:, None], out=found, where=loud, casting="same_kind")
    if not np.isfinite(found).all():
        fail("the recording has values of more than 1e38 of its scale", fix=_FIX)
    return found.astype(np.float64)


def check_rate(bits_per_second: float) -> float:
    """Return bits a second that are a number above zero."""
    try:
        found = float(bits_per_second)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 < found < math.inf:
        fail(f"bits_per_second={bits_per_second!r}", fix="give a number above 0")
    return found


def check_scale(scale: NDArray | float, signals: Signals) -> NDArray:
    """Return a given scale of signals as one number a channel.

    Raises
    ------
    EEGTensorError
        If it has another shape, a number is not finite or below zero, or all are
        zero where signals are not silent.
    """
    n_channels = signals.X.shape[1]
    try:
        found = np.asarray(scale, dtype=np.float64)
    except (TypeError, ValueError) as error:
        fail(f"scale={scale!r}", fix=_FIX, cause=error)
    if found.shape not in ((), (n_channels,)):
        fail(f"scale has shape {found.shape} for {n_channels} channels", fix=_FIX)
    fine = np.isfinite(found) & (found >= 0)
    if not fine.all():
        fail(f"scale holds {found[~fine].flat[0]:g}", fix=_FIX)
    if not found.any() and (signals.X != signals.X[..., :1]).any():
        fail("scale is 0", why="All that is coded would be silence", fix=_FIX)
    return np.broadcast_to(found, (n_channels,)).copy()
