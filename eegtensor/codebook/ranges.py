"""A range coder of many lanes: codes of known probability to bytes and back.

Asymmetric numeral systems (Duda 2013, arXiv:1311.2540), with a state of 32 bits a
lane and words of 16 bits. A lane is a stream of its own; all take their steps
together, so that NumPy works on lanes at once.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.codebook.entropy import PRECISION

_WORD = 16
# States stay in [2^16, 2^32): below, a word is read; above, one is written.
_LEAST = np.uint64(1 << _WORD)


def write_ranges(starts: NDArray, counts: NDArray) -> bytes:
    """Return the bytes of steps.

    Parameters
    ----------
    starts, counts : ndarray of int, shape (n_steps, n_lanes)
        A code's part of 2^16, as `code_tables` cuts it.
    """
    starts, counts = np.asarray(starts, np.uint64), np.asarray(counts, np.uint64)
    n_steps, n_lanes = starts.shape
    state = np.full(n_lanes, _LEAST)
    words = np.zeros((n_steps, n_lanes), np.uint16)
    written = np.zeros((n_steps, n_lanes), bool)
    shift, bits = np.uint64(_WORD), np.uint64(PRECISION)
    for step in range(n_steps - 1, -1, -1):
        start, count = starts[step], counts[step]
        over = state >= (count << np.uint64(32 - PRECISION))
        written[step] = over
        words[step] = state & np.uint64(0xFFFF)
        state = np.where(over, state >> shift, state)
        state = (state // count << bits) + state % count + start
    lanes = [words[written[:, k], k] for k in range(n_lanes)]
    head = struct.pack(f"<{n_lanes}I", *(len(lane) for lane in lanes))
    return b"".join(
        [
            head,
            state.astype("<u4").tobytes(),
            *(w.astype("<u2").tobytes() for w in lanes),
        ]
    )


class RangeReader:
    """Reads what `write_ranges` wrote, step by step.

    Parameters
    ----------
    data : bytes
    n_lanes : int
    """

    def __init__(self, data: bytes, n_lanes: int) -> None:
        head = 8 * n_lanes
        lengths = (
            np.frombuffer(data[: head // 2], "<u4").astype(np.int64)
            if len(data) >= head
            else np.zeros(0, np.int64)
        )
        if len(lengths) != n_lanes or len(data) != head + 2 * int(lengths.sum()):
            fail(
                f"{len(data)} bytes are not those of {n_lanes} lanes",
                fix="give the bytes that were written, whole",
            )
        self._state = np.frombuffer(data[head // 2 : head], "<u4").astype(np.uint64)
        self._words = np.frombuffer(data[head:], "<u2").astype(np.uint64)
        self._end = np.cumsum(lengths)
        self._at = self._end - lengths

    def peek(self) -> NDArray:
        """Return a number below 2^16 a lane: the code whose part it lies in is next."""
        return np.asarray(self._state & np.uint64((1 << PRECISION) - 1)).astype(
            np.int64
        )

    def step(self, starts: NDArray, counts: NDArray) -> None:
        """Go on behind a code a lane, (n_lanes,) each."""
        start, count = np.asarray(starts, np.uint64), np.asarray(counts, np.uint64)
        low = self._state & np.uint64((1 << PRECISION) - 1)
        self._state = count * (self._state >> np.uint64(PRECISION)) + low - start
        due = self._state < _LEAST
        if (due & (self._at >= self._end)).any():
            fail("the bytes end too early", fix="give the bytes that were written")
        # Lanes at their end read a word that is not used.
        at = np.minimum(self._at, max(len(self._words) - 1, 0))
        if due.any():
            word = self._words[at]
            shifted = (self._state << np.uint64(_WORD)) | word
            self._state = np.where(due, shifted, self._state)
            self._at = self._at + due
