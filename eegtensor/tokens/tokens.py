"""Tokens: what a recording becomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._signals import check_sfreq, frame_length


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
    bits : ndarray, shape ([n_trials,] n_units, n_frames) | None
        What frames cost by the tokenizer's model; None where every token sent
        costs the logarithm of its alphabet.
    step : float | None
        Of kind "learned": side information, not counted as bits.
    made_by : str | None
        `name_` of the tokenizer; None where it is not known, and not checked.
    """

    ids: NDArray
    scale: NDArray
    sfreq: float
    ch_names: tuple[str, ...]
    n_times: int
    alphabet: NDArray
    bits: NDArray | None = None
    step: float | None = None
    made_by: str | None = None

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
        if self.bits is not None and np.shape(self.bits) != ids.shape[:-1]:
            fail(
                f"bits have shape {np.shape(self.bits)}, ids {ids.shape}",
                fix="give one number a unit and frame",
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        check_sfreq(self.sfreq)
        scale = np.asarray(self.scale)
        if scale.ndim != 1 or not (np.isfinite(scale) & (scale >= 0)).all():
            fail(
                f"scale has shape {scale.shape} and lies between {scale.min(initial=0)}"
                f" and {scale.max(initial=0)}",
                fix="give one positive number a channel, zero where it is silent",
            )
        if self.step is not None and not (
            isinstance(self.step, Real) and 0 < self.step < math.inf
        ):
            fail(f"step={self.step!r}", fix="give a number above 0, or None")
        if not isinstance(self.n_times, Integral) or self.n_times < 1:
            fail(f"n_times={self.n_times!r}", fix="give the samples of the recording")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        """Return the ids."""
        return np.array(self.ids, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        """Return the length of the first axis of the ids."""
        return len(self.ids)

    @property
    def bits_per_second(self) -> float:
        """Bits a second and channel.

        What the tokens cost by the tokenizer's model, or where it has none, log2 of
        its alphabet for every token sent.
        """
        ids = np.asarray(self.ids)
        bits = (
            ((ids >= 0) * np.log2(np.maximum(self.alphabet, 1))).sum()
            if self.bits is None
            else np.sum(self.bits)
        )
        n_trials = len(ids) if ids.ndim == 4 else 1
        seconds = n_trials * ids.shape[-2] * frame_length(self.sfreq) / self.sfreq
        return float(bits / seconds / len(self.scale))


def join(parts: Sequence[Tokens]) -> Tokens:
    """Return the tokens of recordings that follow each other, as one recording's.

    Parameters
    ----------
    parts : sequence of Tokens
        All but the last of whole seconds, of one scale, rate and channels.
    """
    if isinstance(parts, Tokens):
        return parts
    if not parts:
        fail("there are no tokens", fix="give at least one part")
    first = parts[0]
    length = frame_length(first.sfreq)
    for k, part in enumerate(parts):
        same = (
            np.array_equal(part.scale, first.scale)
            and (part.sfreq, part.ch_names, part.step, part.made_by)
            == (first.sfreq, first.ch_names, first.step, first.made_by)
            and np.array_equal(part.alphabet, first.alphabet)
            and np.shape(part.ids)[:-2] == np.shape(first.ids)[:-2]
        )
        whole = part.n_times % length == 0 or k == len(parts) - 1
        if not (same and whole):
            fail(
                f"part {k} does not follow part {max(k - 1, 0)}",
                why="It ends within a second"
                if same
                else "Its scale, rate, channels or tokenizer differ",
                fix="join parts of one stream, in their order",
            )
    bits = [part.bits for part in parts if part.bits is not None]
    return replace(
        first,
        ids=np.concatenate([part.ids for part in parts], axis=-2),
        n_times=sum(part.n_times for part in parts),
        bits=np.concatenate(bits, axis=-1) if bits else None,
    )
