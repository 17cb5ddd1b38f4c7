"""What the user gave, checked, centred and scaled; the part to learn from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.tensor.completion._kinds import RUN, SCATTERED
from eegtensor.tensor.completion.methods import Problem
from eegtensor.tensor.completion.spline import unit_positions

# A channel with fewer observed cells is a channel without data.
FEWEST = 8
# Finest step of a signal of unit power.
GRAIN = 2.0**-24
# Cells from which is learned at most, and samples of a piece of a long recording.
LEARN_CELLS = 600_000
PIECE = 4096
# Cells from which means and powers are taken at a time.
MOMENT_CELLS = 1 << 18
# Cells that are completed together, and samples on both sides that help.
PART_CELLS = 1 << 20
BESIDE = 512


class Prepared(NamedTuple):
    """What was given, and how to standardise a part of it.

    Attributes
    ----------
    original : Tensor, shape (n_trials, n_channels, n_times)
    seen : Tensor of bool, same shape
    live, varied : Tensor of bool, shape (n_channels,)
        Whether a channel holds data, and whether these are not all one value.
    mean : Tensor, shape (n_channels,), float64
        Zero for channels without data.
    scale : Tensor, shape (n_varied,), float64
        Standard deviations of the channels that vary.
    positions : Tensor, shape (n_channels, 3) | None
    steady : bool
        See `Problem`.
    """

    original: Tensor
    seen: Tensor
    live: Tensor
    varied: Tensor
    mean: Tensor
    scale: Tensor
    positions: Tensor | None
    steady: bool

    @property
    def shape(self) -> torch.Size:
        """Shape of all channels' signals."""
        return self.original.shape

    @property
    def problem(self) -> Problem:
        """Of the channels with data that vary, all trials and times."""
        return self.part(slice(None), slice(None))

    def part(self, trials: slice, times: slice) -> Problem:
        """Return the problem of some trials and times, standardised anew."""
        seen = self.seen[trials, :, times][:, self.varied]
        given = self.original[trials, :, times][:, self.varied].double()
        values = given.sub_(self.mean[self.varied, None]).div_(self.scale[:, None])
        # Rounding that depends on the unit would grow in the solver, which is of
        # single precision: cut here, results are the same in every unit and gain.
        values = values.div_(GRAIN).round_().mul_(GRAIN).masked_fill_(~seen, 0.0)
        places = None if self.positions is None else self.positions[self.varied]
        return Problem(values, seen, places, self.scale, self.steady, object())


def prepare(X: Tensor, mask: Any, positions: object) -> Prepared:
    """Return the problem that the user's arrays pose."""
    if X.ndim not in (2, 3) or 0 in X.shape:
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give (n_channels, n_times) or (n_trials, n_channels, n_times)",
        )
    seen = ~X.isnan()
    if mask is not None:
        if not isinstance(mask, Tensor):
            mask = np.asarray(mask)
        if tuple(mask.shape) != tuple(X.shape) or "bool" not in str(mask.dtype):
            fail(
                f"mask has shape {tuple(mask.shape)} and dtype {mask.dtype}, "
                f"X has shape {tuple(X.shape)}",
                fix="give a mask of bool in the shape of X, True where observed",
            )
        seen &= torch.as_tensor(mask, device=X.device)
    seen = seen.view(-1, *X.shape[-2:])
    original = X.reshape(seen.shape)
    found = [_moments(original[:, c], seen[:, c]) for c in _channels(original.shape)]
    count, mean, power, first, varied, infinite = map(
        torch.cat, zip(*found, strict=True)
    )
    if bool(infinite.any()):
        fail(
            f"channels {listing(infinite.nonzero()[:, 0].tolist())} hold infinity",
            fix="mark these cells as lost: mask=numpy.isfinite(X)",
        )
    # Squares of very large numbers are infinite, those of very small ones zero.
    beyond = ~power.isfinite() | (varied & (power < torch.finfo(power.dtype).tiny))
    if bool(beyond.any()):
        fail(
            f"channels {listing(beyond.nonzero()[:, 0].tolist())} have values whose "
            "squares leave the range of floating point",
            fix="give X in another unit",
        )
    live = count >= min(FEWEST, seen.shape[0] * seen.shape[2])
    if not bool(live.any()):
        fail(
            f"no channel holds data ({FEWEST} observed samples or more)",
            fix="look at mask: True is observed",
        )
    places = None if positions is None else _places(positions, X)
    if places is None and not bool(live.all()):
        fail(
            f"channels {listing((~live).nonzero()[:, 0].tolist())} hold no data "
            f"(fewer than {FEWEST} observed samples), and there are no positions",
            why="Such a channel can be told only from where it sits among the others",
            fix="give positions (set a montage), or drop these channels",
        )
    # A flat channel (the reference) is its value; as a signal of no power it would
    # only spoil the precision of the others.
    varied &= live
    mean = torch.where(live, torch.where(varied, mean, first.double()), 0.0)
    scale = power[varied].sqrt()
    steady = _steady(seen if bool(varied.all()) else seen[:, varied])
    return Prepared(original, seen, live, varied, mean, scale, places, steady)


def _channels(shape: torch.Size) -> Iterator[slice]:
    """Yield a few channels at a time: copies of them are to be small."""
    step = max(1, MOMENT_CELLS // (shape[0] * shape[2]))
    for at in range(0, shape[1], step):
        yield slice(at, at + step)


def _moments(X: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
    """Return count, mean, variance, largest, whether it varies, holds infinity."""
    count = seen.sum(dim=(0, 2))
    known = torch.where(seen, X, 0.0).double()
    mean = known.sum(dim=(0, 2)) / count.clamp_min(1)
    rest = torch.where(seen, known - mean[:, None], 0.0)
    power = rest.square().sum(dim=(0, 2)) / count.clamp_min(1)
    largest = torch.where(seen, X, -math.inf).amax(dim=(0, 2))
    varied = (seen & (X != largest[:, None])).any(dim=2).any(dim=0)
    infinite = (seen & X.isinf()).any(dim=2).any(dim=0)
    return count, mean, power, largest, varied, infinite


def _steady(seen: Tensor) -> bool:
    """Return whether channels are lost for a while rather than cell by cell."""
    changes = (seen[:, :, 1:] != seen[:, :, :-1]).any(dim=1).double().mean()
    lost = seen.numel() - int(seen.count_nonzero())
    empty = int((~seen.any(dim=1)).count_nonzero())
    # Runs in single channels rather than gaps in all or scattered cells.
    runs = lost - empty * seen.shape[1]
    return bool(changes < 0.5) and 2 * runs > lost


def _places(positions: object, X: Tensor) -> Tensor:
    places = unit_positions(positions)
    if len(places) != X.shape[-2]:
        fail(
            f"positions has {len(places)} rows for {X.shape[-2]} channels",
            fix="give x, y, z of every channel of X, in its order",
        )
    return places


class Excerpt(NamedTuple):
    """The part of a long recording that methods learn from.

    Attributes
    ----------
    problem : Problem
    kinds : ndarray of int8, shape of the problem
    """

    problem: Problem
    kinds: NDArray[np.int8]


def excerpt(prepared: Prepared, kinds: NDArray[np.int8]) -> Excerpt:
    """Return pieces of a recording: those with most losses, others spread evenly."""
    n_trials, n_channels, n_times = kinds.shape
    if kinds.size <= LEARN_CELLS:
        return Excerpt(prepared.problem, kinds)
    length = min(PIECE, n_times)
    starts = [
        (trial, min(begin, n_times - length))
        for trial in range(n_trials)
        for begin in range(0, n_times, length)
    ]
    wanted = min(len(starts), max(2, LEARN_CELLS // (n_channels * length)))
    spaced = np.linspace(0, len(starts) - 1, wanted).astype(int)
    counts = [
        [(kinds[t, :, b : b + length] == kind).sum() for t, b in starts]
        for kind in (SCATTERED, RUN, RUN + 1)
    ]
    most = [int(np.argmax(c)) for c in counts if max(c) > 0]
    chosen = list(dict.fromkeys([*most, *spaced.tolist()]))[:wanted]
    pieces = [(t, slice(b, b + length)) for t, b in (starts[i] for i in sorted(chosen))]

    cut = [prepared.part(slice(t, t + 1), times) for t, times in pieces]
    return Excerpt(
        cut[0]._replace(
            values=torch.cat([part.values for part in cut]),
            seen=torch.cat([part.seen for part in cut]),
        ),
        np.stack([kinds[t, :, times] for t, times in pieces]),
    )


class Part(NamedTuple):
    """A part of a long recording, with what stands beside it.

    Attributes
    ----------
    trials, times : slice
        Of the recording.
    inner : slice
        Of `times`: without what stands beside.
    """

    trials: slice
    times: slice
    inner: slice


def parts(shape: torch.Size) -> Iterator[Part]:
    """Yield parts that together hold every cell once, small enough for the memory."""
    n_trials, n_channels, n_times = shape
    length = n_times
    if n_channels * n_times > PART_CELLS:
        length = max(4 * BESIDE, PART_CELLS // n_channels)
    n = max(1, PART_CELLS // max(1, n_channels * n_times))
    for trial in range(0, n_trials, n):
        for begin in range(0, n_times, length):
            end = min(begin + length, n_times)
            first = max(0, begin - BESIDE)
            times = slice(first, min(end + BESIDE, n_times))
            inner = slice(begin - first, end - first)
            yield Part(slice(trial, trial + n), times, inner)
