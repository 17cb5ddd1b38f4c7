"""What a codec makes of signals."""

from __future__ import annotations

from typing import NamedTuple

from numpy.typing import NDArray


class Coded(NamedTuple):
    """Ids and what goes with them.

    Attributes
    ----------
    ids : ndarray of int32, shape (n_trials, n_units, n_frames, n_slots)
    bits : ndarray, shape (n_trials, n_units, n_frames) | None
        What they cost, where that is not the logarithm of the alphabet.
    step : float | None
        Of a quantiser, where recordings have their own.
    """

    ids: NDArray
    bits: NDArray | None = None
    step: float | None = None
