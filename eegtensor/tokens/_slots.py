"""What the slots of a tokenizer are, in words."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from eegtensor.tokens._band_kind import BandKind
from eegtensor.tokens._bands import EDGES, edges_to
from eegtensor.tokens._neural_codec import NeuralCodec
from eegtensor.tokens.learned import LearnedCodec


class SlotGroup(NamedTuple):
    """Slots that belong together.

    Attributes
    ----------
    name : str
        Such as a band.
    first, stop : int
        The slots, from the first to the one before `stop`.
    """

    name: str
    first: int
    stop: int


def slot_groups(tokenizer: Any, n_slots: int) -> list[SlotGroup]:
    """Return the groups of a tokenizer's slots; one group where nothing is known.

    Parameters
    ----------
    tokenizer : EEGTokenizer | None
    n_slots : int
    """
    codec = getattr(tokenizer, "codec_", None)
    if isinstance(codec, BandKind):
        n = codec.bands.n_levels
        bands = [
            SlotGroup(_hertz(EDGES[b], EDGES[b + 1]), 1 + b * n, 1 + (b + 1) * n)
            for b in range(len(codec.bands.books))
        ]
        return [SlotGroup("state", 0, 1), *bands]
    if isinstance(codec, LearnedCodec):
        edges = edges_to(n_slots)
        return [SlotGroup(_hertz(a, b), a, b) for a, b in pairwise(edges)]
    if isinstance(codec, NeuralCodec):
        n = codec.model.size.n_levels
        starts = np.arange(0, n_slots, n).tolist()
        many = len(starts) > 1
        return [
            SlotGroup(f"branch {i + 1}" if many else "levels", a, a + n)
            for i, a in enumerate(starts)
        ]
    return [SlotGroup("slots", 0, n_slots)]


def _hertz(first: int, stop: int) -> str:
    """Return edges in bins of 0.5 Hz as words."""
    return f"{first / 2:g}\u2013{stop / 2:g} Hz"
