"""What the codes of a tokenizer stand for, as vectors of one space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eegtensor.tokens.bandrvq import BandCodec, widths


def code_vectors(tokenizer: Any) -> Tensor | None:
    """Return the vectors that codes add up to, or None where none are known.

    Parameters
    ----------
    tokenizer : EEGTokenizer
        Fitted.

    Returns
    -------
    vectors : Tensor, shape (n_slots, largest alphabet, n_features) | None
        Of a band codec: log energies of its states, then coefficients of all
        bands, of about mean square one each.
    """
    codec = getattr(tokenizer, "codec_", None)
    if not isinstance(codec, BandCodec):
        return None
    n_codes = max(codec.books[0].shape[1], len(codec.states))
    n_bands = codec.states.shape[1]
    found = torch.zeros(codec.n_slots, n_codes, n_bands + sum(widths()))
    if codec.n_stated:
        states = codec.states - codec.states.mean(dim=0)
        spread = states.square().mean().sqrt().clamp_min(1e-12)
        found[0, : len(states), :n_bands] = (states / spread).float()
    at = n_bands
    for band, book in enumerate(codec.books):
        first = 1 + band * codec.n_levels
        n_levels, size, width = book.shape
        found[first : first + n_levels, :size, at : at + width] = book.float()
        at += width
    return found
