"""Bands of a second's spectrum, each coded by levels of small codebooks.

Pure functions on coefficients of shape (n_frames, n_units, n_bins): frames of one
second, units that share a frame's bits (components of a spatial transform, or one
channel alone), bins of 0.5 Hz. One optional token a unit and frame, its state,
says how much energy each band has; or one token a frame, the state of all units.
Gains and the levels that every band gets follow from it, so a frame decodes by
itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook import (
    decode_residual,
    encode_residual,
    nearest_codes,
)
from eegtensor.tokens._bands import N_BINS, widths
from eegtensor.tokens._noise import token_noise

# Of a band's usual energy: below this a state does not tell energies apart.
_FLOOR = 1e-3


class BandCodec(NamedTuple):
    """A fitted codec.

    Attributes
    ----------
    spread : Tensor, shape (n_units, n_bands)
        Mean energy of a bin.
    states : Tensor, shape (n_states, n_bands) or (n_states, n_units * n_bands)
        Log energies, relative to the spread, that a state stands for; weighted.
    gains : Tensor, shape (n_states, 1, n_bands) or (n_states, n_units, n_bands)
        Energy of a state relative to the spread: of a unit, or of all.
    remaining : Tensor, shape (n_bands, n_levels + 1)
        Share of a band's energy that is left after 0, 1, ... levels, on vectors
        that were not trained on; flat from the first level that does not pay.
    books : tuple of Tensor, shape (n_levels, n_codes, n_bins_of_band)
        One a band, for coefficients divided by their spread.
    n_stated : int
        Units, from the first, that have a state; one where it is that of all.
    codes_per_frame : int
        Codes that the units of a frame share.
    beam : int
        Prefixes kept from level to level when coding.
    """

    spread: Tensor
    states: Tensor
    gains: Tensor
    remaining: Tensor
    books: tuple[Tensor, ...]
    n_stated: int
    codes_per_frame: int
    beam: int

    @property
    def together(self) -> bool:
        """Whether the first unit's state is that of all units."""
        return self.gains.shape[1] > 1

    @property
    def n_levels(self) -> int:
        """Levels that a band has at most."""
        return self.remaining.shape[1] - 1

    @property
    def n_slots(self) -> int:
        """Places of a unit and frame: its state, then levels band by band."""
        return 1 + len(self.books) * self.n_levels

    @property
    def bits_per_frame(self) -> float:
        """Bits of a frame's codes and states, each log2 of its alphabet."""
        bits = self.codes_per_frame * float(np.log2(self.books[0].shape[1]))
        if self.n_stated:
            bits += self.n_stated * float(np.log2(len(self.states)))
        return bits


def band_energies(coefs: Tensor) -> Tensor:
    """Return the mean energy of a bin in each band, (..., n_bands)."""
    parts = coefs.square().split(widths(), dim=-1)
    return torch.stack([p.mean(dim=-1) for p in parts], dim=-1)


def log_energies(energies: Tensor, spread: Tensor) -> Tensor:
    """Return log energies relative to the spread, wide bands weighing more."""
    weight = torch.tensor(widths(), dtype=energies.dtype, device=energies.device).sqrt()
    safe = torch.where(spread > 0, spread, 1.0)
    return (energies / safe + _FLOOR).log() * (weight / weight.mean())


def frame_logs(energies: Tensor, spread: Tensor) -> Tensor:
    """Return log energies of all units as one row, (n_frames, n_units * n_bands).

    Those of bands with more energy weigh more, and silence is no extreme: what is
    to be told apart is where codes are missing, not where none are needed.
    """
    width = torch.tensor(widths(), dtype=energies.dtype, device=energies.device)
    weight = (spread * width).sqrt()
    safe = torch.where(spread > 0, spread, 1.0)
    return ((energies / safe).log1p() * weight / weight.max()).flatten(1)


def states_of(coefs: Tensor, codec: BandCodec) -> Tensor:
    """Return each stated unit's state, (n_frames, n_units); -1 where it has none."""
    found = torch.full(coefs.shape[:2], -1, dtype=torch.int64, device=coefs.device)
    if codec.together:
        logs = frame_logs(band_energies(coefs), codec.spread)
        found[:, 0] = nearest_codes(logs, codec.states)
    elif codec.n_stated:
        n = codec.n_stated
        logs = log_energies(band_energies(coefs[:, :n]), codec.spread[:n])
        found[:, :n] = nearest_codes(logs, codec.states)
    return found


def expected(states: Tensor, codec: BandCodec) -> Tensor:
    """Return the energies that states promise, (n_frames, n_units, n_bands)."""
    spread = codec.spread.expand(*states.shape, -1)
    if not codec.n_stated:
        return spread
    if codec.together:
        return spread * codec.gains[states[:, 0]]
    gains = codec.gains[states.clamp_min(0), 0]
    return spread * torch.where((states >= 0)[..., None], gains, 1.0)


def levels_of(energies: Tensor, codec: BandCodec) -> Tensor:
    """Return the levels of each band, (n_frames, n_units, n_bands).

    The codes of a frame go where they lower its squared error most, greedily. A
    level never counts for more than the one before it, so that bands fill in order;
    one that would lower nothing is not sent, though bits be left.
    """
    n_frames, n_units, n_bands = energies.shape
    size = torch.tensor(widths(), dtype=energies.dtype, device=energies.device)
    fall = (-codec.remaining.diff(dim=1)).cummin(dim=1).values.clamp_min(0)
    gain = (energies * size)[..., None] * fall
    flat = gain.view(n_frames, -1)
    n_codes = min(codec.codes_per_frame, flat.shape[1])
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :n_codes]
    taken = torch.zeros_like(flat).scatter_(1, order, 1.0) * (flat > 0)
    return taken.view(n_frames, n_units, n_bands, -1).sum(dim=-1).long()


def encode_bands(coefs: Tensor, codec: BandCodec) -> Tensor:
    """Return the tokens of coefficients.

    Parameters
    ----------
    coefs : Tensor, shape (n_frames, n_units, n_bins)
    codec : BandCodec

    Returns
    -------
    ids : Tensor of int64, shape (n_frames, n_units, n_slots)
        Its state, then the levels of each band; -1 where nothing is sent.
    """
    if coefs.shape[1:] != (len(codec.spread), N_BINS):
        fail(
            f"coefficients have shape {tuple(coefs.shape)}, the codec has "
            f"{len(codec.spread)} units of {N_BINS} bins",
            fix="give the units that it was fitted on",
        )
    coefs = coefs.to(codec.spread)
    states = states_of(coefs, codec)
    energies = expected(states, codec)
    levels = levels_of(energies, codec)
    ids = torch.full(
        (*states.shape, len(codec.books), codec.n_levels),
        -1,
        dtype=torch.int64,
        device=coefs.device,
    )
    scale = torch.where(energies > 0, energies, 1.0).sqrt()
    for band, part in enumerate(coefs.split(widths(), dim=-1)):
        plain = part / scale[..., band, None]
        count = levels[..., band]
        # A beam looks for the best sum of exactly the levels that are sent.
        for n in count.unique().tolist():
            if n:
                mine = count == n
                ids[..., band, :n][mine] = encode_residual(
                    plain[mine], codec.books[band][:n], beam=codec.beam
                )
    return torch.cat([states[..., None], ids.flatten(2)], dim=-1)


def decode_bands(ids: Tensor, codec: BandCodec, *, fill: float = 0.0) -> Tensor:
    """Return the coefficients that tokens stand for.

    Parameters
    ----------
    ids : Tensor of int64, shape (n_frames, n_units, n_slots)
    codec : BandCodec
    fill : float
        Noise where energy was left out, in units of its training spread. It
        depends on a unit's own tokens alone.

    Returns
    -------
    coefs : Tensor, shape (n_frames, n_units, n_bins)
    """
    if ids.ndim != 3 or ids.shape[1:] != (len(codec.spread), codec.n_slots):
        fail(
            f"tokens have shape {tuple(ids.shape)}, the codec gives "
            f"(n_frames, {len(codec.spread)}, {codec.n_slots})",
            fix="decode with the tokenizer that encoded",
        )
    states, codes = ids[..., 0], ids[..., 1:]
    if codec.n_stated and not (
        bool((states[:, : codec.n_stated] >= 0).all())
        and int(states.max()) < len(codec.states)
    ):
        fail(
            f"states lie between {int(states.min())} and {int(states.max())}, the "
            f"codec has {len(codec.states)}",
            fix="decode with the tokenizer that encoded",
        )
    energies = expected(states, codec)
    codes = codes.view(*states.shape, len(codec.books), codec.n_levels)
    scale = energies.sqrt()
    parts = [
        decode_residual(codes[:, :, band], book) * scale[..., band, None]
        for band, book in enumerate(codec.books)
    ]
    coefs = torch.cat(parts, dim=-1)
    if fill:
        coefs = (
            coefs + fill * token_noise(ids) * _left_out(codes, energies, codec).sqrt()
        )
    return coefs


def _left_out(codes: Tensor, energies: Tensor, codec: BandCodec) -> Tensor:
    """Return the energy of every bin that no code tells of."""
    count = (codes >= 0).sum(dim=-1)
    band = torch.arange(len(codec.books), device=codes.device)
    left = energies * codec.remaining[band, count]
    return left.repeat_interleave(torch.tensor(widths(), device=codes.device), dim=-1)
