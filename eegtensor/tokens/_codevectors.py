"""What the codes of a tokenizer stand for, as vectors of one space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eegtensor.tokens._band_kind import BandKind
from eegtensor.tokens.bandrvq import BandCodec, widths
from eegtensor.tokens.learned import LearnedCodec, ids_of


def code_vectors(tokenizer: Any) -> Tensor | None:
    """Return the vectors that codes add up to, or None where none are known.

    Parameters
    ----------
    tokenizer : EEGTokenizer
        Fitted.

    Returns
    -------
    vectors : Tensor, shape (n_slots, largest alphabet, n_features) | None
        Of about mean square one, of kind "band-rvq" and "learned": coefficients of
        all bins, after the log energies of states where there are any.
    """
    codec = getattr(tokenizer, "codec_", None)
    if isinstance(codec, BandKind):
        return _of_bands(codec.bands)
    if isinstance(codec, LearnedCodec):
        return _of_steps(codec)
    return None


def mixes(tokenizer: Any) -> bool:
    """Return whether a tokenizer codes components in place of channels."""
    codec = getattr(tokenizer, "codec_", None)
    return getattr(codec, "mixing", None) is not None


def _of_bands(codec: BandCodec) -> Tensor:
    n_codes = max(codec.books[0].shape[1], len(codec.states))
    n_bands = codec.gains.shape[2]
    found = torch.zeros(codec.n_slots, n_codes, n_bands + sum(widths()))
    if codec.n_stated:
        states = codec.states
        if codec.together:
            states = codec.gains.clamp_min(1e-6).log().mean(dim=1)
        states = states - states.mean(dim=0)
        spread = states.square().mean().sqrt().clamp_min(1e-12)
        found[0, : len(states), :n_bands] = (states / spread).float()
    at = n_bands
    for band, book in enumerate(codec.books):
        first = 1 + band * codec.n_levels
        n_levels, size, width = book.shape
        found[first : first + n_levels, :size, at : at + width] = book.float()
        at += width
    return found


def _of_steps(codec: LearnedCodec) -> Tensor:
    n_codes = int(codec.alphabet[0])
    most = n_codes // 2
    codes = torch.arange(-most, most + 1)
    size = codec.energy.mean(dim=0).sqrt().clamp_min(1e-12)
    n_bins = codec.n_bins
    found = torch.zeros(n_bins, n_codes, n_bins)
    each = torch.arange(n_bins)
    # A slot is a bin: its codes lie along an axis of their own.
    values = codes[:, None] * (codec.step / size).float()
    found[each[:, None], ids_of(codes), each[:, None]] = values.mT
    return found
