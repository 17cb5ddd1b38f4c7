"""Fit the band codec: spreads, states, books, and how many states pay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook import (
    decode_residual,
    encode_residual,
    fit_residual,
    kmeans,
    nearest_codes,
)
from eegtensor.tokens._bands import EDGES, widths
from eegtensor.tokens.bandrvq import (
    BandCodec,
    band_energies,
    decode_bands,
    encode_bands,
    expected,
    frame_logs,
    log_energies,
    states_of,
)

N_CODES = 256
_CODE_BITS = 8
# Training vectors of a book, and of the books that only choose the states.
_VECTORS, _FEW = 8_000, 4_000
# A level, and those after it, are not used unless they leave less than this share.
_PAYS = 0.95
# Of training vectors, one in so many is moved out in bands of so many bins.
_OUTLIERS, _NARROW = 20, 4
# Vectors that were not trained on and tell what each level leaves.
_HELD = 4_000
# Frames of usual energy that a state of all units is taken to have besides.
_USUAL = 4.0


class States(NamedTuple):
    """How many states there are.

    Attributes
    ----------
    n_states : int
    n_stated : int
        Units that have one.
    together : bool
        Whether one state is that of all units.
    """

    n_states: int
    n_stated: int
    together: bool = False


def levels_for(bits_per_second: float, n_units: int) -> int:
    """Return how many levels a band may need: wide bands saturate at high rates."""
    most = 8 if bits_per_second <= 208 else 16
    return max(1, min(most, int(bits_per_second * n_units // _CODE_BITS)))


def candidates(n_units: int) -> list[States]:
    """Return the numbers of states worth trying for units that share bits."""
    if n_units == 1:
        return [States(0, 0), States(16, 1), States(256, 1)]
    few, half = max(1, n_units // 4), max(1, n_units // 2)
    # Where bits are few, small alphabets; otherwise they are too coarse to pay.
    return [
        *(States(0, 0), States(4, half), States(4, n_units)),
        *(States(n, m) for n in (16, 64) for m in (few, n_units)),
        States(256, 1, together=True),
    ]


def fit_bands(
    coefs: Tensor,
    bits_per_frame: float,
    states: States,
    *,
    n_levels: int,
    random_state: int,
    n_vectors: int = _VECTORS,
    max_iter: int = 8,
    beam: int = 4,
) -> BandCodec:
    """Fit a codec for frames of a number of bits.

    Parameters
    ----------
    coefs : Tensor, shape (n_frames, n_units, n_bins)
    bits_per_frame : float
        For all units together; never exceeded.
    states : States
    n_levels : int
        Levels of a band at most.
    random_state : int
    n_vectors : int
        Training vectors of a band.
    max_iter : int
        Of k-means.
    beam : int
        See `BandCodec`.
    """
    spent = states.n_stated * math.log2(max(states.n_states, 1))
    n_codes = int((bits_per_frame - spent) / _CODE_BITS + 1e-9)
    if n_codes < 1:
        fail(
            f"{bits_per_frame:g} bits a second leave no code beside {spent:g} of "
            "states",
            fix="raise bits_per_second, or lower n_states",
        )
    coefs = coefs.double()
    spread = band_energies(coefs).mean(dim=0)
    codec = BandCodec(
        spread=spread,
        states=spread.new_zeros(0, len(EDGES) - 1),
        gains=spread.new_ones(0, 1, len(EDGES) - 1),
        remaining=spread.new_ones(len(EDGES) - 1, n_levels + 1),
        books=(),
        n_stated=0,
        codes_per_frame=n_codes,
        beam=beam,
    )
    if states.n_stated:
        codec = _fit_states(coefs, codec, states, n_vectors, random_state)
    energies = expected(states_of(coefs, codec), codec)
    generator = torch.Generator().manual_seed(random_state)
    books, remaining = [], []
    for band, part in enumerate(coefs.split(widths(), dim=-1)):
        weight = energies[..., band].flatten()
        rows = part.flatten(0, 1) / torch.where(weight > 0, weight, 1.0)[:, None].sqrt()
        train, held = _draw(rows, weight, n_vectors, generator)
        book = fit_residual(
            train.float(),
            N_CODES,
            n_levels,
            later=_outliers(train.float(), generator),
            max_iter=max_iter,
            random_state=random_state + 1000 * band,
        ).double()
        books.append(book)
        remaining.append(_remaining(held, book))
    return codec._replace(books=tuple(books), remaining=torch.stack(remaining))


def choose_states(
    train: Tensor,
    held: Tensor,
    bits_per_frame: float,
    candidates: Sequence[States],
    *,
    n_levels: int,
    random_state: int,
) -> States:
    """Return the candidate with the least squared error on held-out frames."""
    best, least = candidates[0], float("inf")
    for states in candidates:
        bits = states.n_stated * math.log2(max(states.n_states, 1))
        if bits_per_frame - bits < _CODE_BITS:
            continue
        codec = fit_bands(
            train,
            bits_per_frame,
            states,
            n_levels=n_levels,
            random_state=random_state,
            n_vectors=_FEW,
            max_iter=4,
            beam=1,
        )
        rebuilt = decode_bands(encode_bands(held, codec), codec)
        error = float((held.double() - rebuilt).square().sum())
        if error < least:
            best, least = states, error
    return best


def _fit_states(
    coefs: Tensor, codec: BandCodec, states: States, n_vectors: int, seed: int
) -> BandCodec:
    n = len(codec.spread) if states.together else states.n_stated
    energies, spread = band_energies(coefs[:, :n]), codec.spread[:n]
    relative = energies / torch.where(spread > 0, spread, 1.0)
    if states.together:
        logs = frame_logs(energies, spread)
    else:
        logs = log_energies(energies, spread).flatten(0, 1)
        relative = relative.flatten(0, 1)[:, None]
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randperm(len(logs), generator=generator)[:n_vectors]
    found = kmeans(logs[pick], states.n_states, max_iter=30, random_state=seed)
    member = nearest_codes(logs, found.codes)
    # The mean of energies, not of their logs: it is what the books must span.
    shape = (states.n_states, *relative.shape[1:])
    total = spread.new_zeros(shape).index_add_(0, member, relative)
    count = torch.bincount(member, minlength=states.n_states)
    # A state of all has few frames: some of the usual keep it from extremes.
    usual = _USUAL if states.together else 0.0
    mean = (total + usual) / (count + usual).clamp_min(1)[:, None, None]
    gains = torch.where(count[:, None, None] > 0, mean, 1.0)
    return codec._replace(states=found.codes, gains=gains, n_stated=states.n_stated)


def _draw(
    rows: Tensor, weight: Tensor, n_vectors: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return vectors to train on, and others that tell what levels are worth."""
    top = weight.quantile(0.9) if len(weight) < 1 << 24 else weight.mean() * 2
    # Where there is energy there are codes; without a cap the largest had them all.
    p = torch.minimum(weight, top)
    if not bool((p > 0).any()):
        p = torch.ones_like(p)
    n = min(n_vectors + _HELD, int((p > 0).sum()))
    pick = torch.multinomial(p, n, replacement=False, generator=generator)
    n_held = min(_HELD, n // 4)
    if not n_held:
        return rows[pick], rows[pick]
    return rows[pick[n_held:]], rows[pick[:n_held]]


def _outliers(rows: Tensor, generator: torch.Generator) -> Tensor | None:
    """Return vectors further out than those given, for narrow bands.

    There a level leaves an eighth of a vector's energy, but nearly all of what lies
    beyond its codes: one vector in a hundred had nine tenths of the error.
    """
    n = len(rows) // _OUTLIERS
    if rows.shape[1] > _NARROW or not n:
        return None
    pick = torch.randperm(len(rows), generator=generator)[:n]
    return rows[pick] * torch.rand(n, 1, generator=generator).exp()


def _remaining(rows: Tensor, book: Tensor) -> Tensor:
    """Return the share of energy left after 0, 1, ... levels, flat where none pays."""
    ids = encode_residual(rows, book)
    total = rows.square().sum().clamp_min(torch.finfo(rows.dtype).tiny)
    left = [total]
    for level in range(1, len(book) + 1):
        left.append((rows - decode_residual(ids[:, :level], book)).square().sum())
    errors = torch.stack(left) / total
    useless = (errors[1:] > _PAYS * errors[:-1]).long().cumsum(dim=0) > 0
    last = int((~useless).sum())
    errors[last:] = errors[last].clone()
    return errors
