"""What the codes of a tokenizer stand for, as vectors of one space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eegtensor.tokens._band_kind import BandKind
from eegtensor.tokens._bands import edges_to, widths
from eegtensor.tokens.bandrvq import BandCodec
from eegtensor.tokens.learned import LearnedCodec, ids_of

# Weight of sizes beside coefficients.
_SIZES = 0.3


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
        all bins, after the log energies of states where there are any, and how large
        codes are in each band.

    Notes
    -----
    Codes of one size in opposite phase have opposite coefficients: a product with
    them tells phases, but never that a second is loud or quiet. Sizes do.
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
    found = torch.zeros(codec.n_slots, n_codes, 2 * n_bands + sum(widths()))
    if codec.n_stated:
        states = codec.states
        if codec.together:
            states = codec.gains.clamp_min(1e-6).log().mean(dim=1)
        states = states - states.mean(dim=0)
        spread = states.square().mean().sqrt().clamp_min(1e-12)
        found[0, : len(states), :n_bands] = (states / spread).float()
    at = 2 * n_bands
    for band, book in enumerate(codec.books):
        first = 1 + band * codec.n_levels
        n_levels, size, width = book.shape
        mine = found[first : first + n_levels, :size]
        mine[..., at : at + width] = book.float()
        mine[..., n_bands + band] = _sizes(book).float()
        at += width
    return found


def _of_steps(codec: LearnedCodec) -> Tensor:
    n_codes = int(codec.alphabet[0])
    most = n_codes // 2
    codes = torch.arange(-most, most + 1)
    size = codec.energy.mean(dim=0).sqrt().clamp_min(1e-12)
    n_bins = codec.n_bins
    edges = torch.tensor(edges_to(n_bins)[1:-1])
    each = torch.arange(n_bins)
    band = torch.bucketize(each, edges, right=True)
    n_bands = len(edges) + 1
    found = torch.zeros(n_bins, n_codes, n_bands + n_bins)
    # A slot is a bin: its codes lie along an axis of their own. Most are of sizes
    # that never occur, and would outweigh all others in a sum.
    values = (codes[:, None] * (codec.step / size).clamp_max(1.0).float()).asinh()
    found[each[:, None], ids_of(codes), n_bands + each[:, None]] = values.mT
    found[each[:, None], ids_of(codes), band[:, None]] = _SIZES * values.abs().mT
    return found


def _sizes(book: Tensor) -> Tensor:
    """Return the energies of codes, (n_levels, n_codes), alike in mean and spread."""
    energy = book.square().sum(dim=-1)
    spread = energy.std(dim=1, keepdim=True, correction=0)
    apart = energy - energy.mean(dim=1, keepdim=True)
    return _SIZES * apart / torch.where(spread > 0, spread, 1.0)
