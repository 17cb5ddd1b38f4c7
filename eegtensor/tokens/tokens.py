"""Tokens: what a recording becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._signals import frame_length


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of a recording or of trials; ``np.asarray`` gives the ids.

    Attributes
    ----------
    ids : ndarray of int32, shape ([n_trials,] n_units, n_frames, n_slots)
        Units are channels, or components of a spatial tokenizer; frames are
        seconds; the first slot is the unit's state, others the levels of each
        band. -1 where nothing is sent.
    scale : ndarray, shape (n_channels,)
        In the unit of the recording: side information, not counted as bits.
    sfreq : float
        Hertz, of the recording.
    ch_names : tuple of str
        Empty where unknown.
    n_times : int
        Samples of the recording; the last frame may reach beyond.
    alphabet : ndarray of int, shape (n_slots,)
        How many ids each slot can have.
    """

    ids: NDArray
    scale: NDArray
    sfreq: float
    ch_names: tuple[str, ...]
    n_times: int
    alphabet: NDArray

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        ids = np.asarray(self.ids)
        if ids.ndim not in (3, 4) or ids.dtype.kind not in "iu":
            fail(
                f"ids have shape {ids.shape} and dtype {ids.dtype}",
                fix="give integers of shape ([n_trials,] n_units, n_frames, n_slots)",
            )
        if ids.shape[-1] != len(self.alphabet):
            fail(
                f"ids have {ids.shape[-1]} slots, the alphabet {len(self.alphabet)}",
                fix="give the size of every slot",
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        """Return the ids."""
        return np.array(self.ids, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        """Return the length of the first axis of the ids."""
        return len(self.ids)

    @property
    def bits_per_second(self) -> float:
        """Bits a second and channel: log2 of its alphabet for every token sent."""
        ids = np.asarray(self.ids)
        bits = ((ids >= 0) * np.log2(np.maximum(self.alphabet, 1))).sum()
        n_trials = len(ids) if ids.ndim == 4 else 1
        seconds = n_trials * ids.shape[-2] * frame_length(self.sfreq) / self.sfreq
        return float(bits / seconds / len(self.scale))
