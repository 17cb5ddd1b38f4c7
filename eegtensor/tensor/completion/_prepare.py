"""What the user gave, checked, centred and scaled; the part to learn from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

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
# Cells from which is learned at most, and samples of a piece of a long recording.
LEARN_CELLS = 600_000
PIECE = 4096
# Cells that are completed together, and samples on both sides that help.
PART_CELLS = 1 << 20
BESIDE = 512


class Prepared(NamedTuple):
    """The problem, and how to turn its solution into what the user gets.

    Attributes
    ----------
    problem : Problem
        Of the channels with data that vary.
    live, varied : Tensor of bool, shape (n_channels,)
        Whether a channel holds data, and whether these are not all one value.
    mean : Tensor, shape (n_channels,)
        Zero for channels without data.
    original : Tensor, shape (n_trials, n_channels, n_times)
    seen : Tensor of bool, same shape
    positions : Tensor, shape (n_channels, 3) | None
    """

    problem: Problem
    live: Tensor
    varied: Tensor
    mean: Tensor
    original: Tensor
    seen: Tensor
    positions: Tensor | None

    @property
    def shape(self) -> torch.Size:
        """Shape of all channels' signals."""
        return self.original.shape


def prepare(X: Tensor, mask: Tensor | None, positions: object) -> Prepared:
    """Return the problem that the user's arrays pose."""
    if X.ndim not in (2, 3) or 0 in X.shape:
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give (n_channels, n_times) or (n_trials, n_channels, n_times)",
        )
    seen = ~X.isnan()
    if mask is not None:
        given = torch.as_tensor(mask, device=X.device)
        if given.shape != X.shape or given.dtype != torch.bool:
            fail(
                f"mask has shape {tuple(given.shape)} and dtype {given.dtype}, "
                f"X has shape {tuple(X.shape)}",
                fix="give a mask of bool in the shape of X, True where observed",
            )
        seen = seen & given
    seen = seen.view(-1, *X.shape[-2:])
    original = X.reshape(seen.shape)
    infinite = (seen & original.isinf()).any(dim=2).any(dim=0)
    if bool(infinite.any()):
        fail(
            f"channels {listing(infinite.nonzero()[:, 0].tolist())} hold infinity",
            fix="mark these cells as lost: mask=numpy.isfinite(X)",
        )
    count = seen.sum(dim=(0, 2))
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
    known = torch.where(seen, original, 0.0).double()
    mean = known.sum(dim=(0, 2)) / count.clamp_min(1)
    mean = torch.where(live, mean, 0.0)
    # A flat channel (the reference) is its value; as a signal of no power it would
    # only spoil the precision of the others.
    first = torch.where(seen, original, -math.inf).amax(dim=(0, 2))
    varied = live & (seen & (original != first[:, None])).any(dim=2).any(dim=0)
    mean = torch.where(live & ~varied, first.double(), mean)
    known = torch.where(seen, known - mean[:, None], 0.0)[:, varied]
    scale = ((known**2).sum(dim=(0, 2)) / count[varied]).sqrt()
    some = seen[:, varied]
    changes = (some[:, :, 1:] != some[:, :, :-1]).any(dim=1).double().mean()
    empty = (~some).all(dim=1)
    # Runs in single channels rather than gaps in all or scattered cells.
    runs = (~some).sum() - empty.sum() * some.shape[1]
    steady = bool(changes < 0.5) and bool(2 * runs > (~some).sum())
    here = None if places is None else places[varied]
    problem = Problem(known / scale[:, None], some, here, scale, steady)
    return Prepared(problem, live, varied, mean, original, seen, places)


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


def excerpt(problem: Problem, kinds: NDArray[np.int8]) -> Excerpt:
    """Return pieces of a recording: those with most losses, others spread evenly."""
    n_trials, n_channels, n_times = problem.values.shape
    if problem.values.numel() <= LEARN_CELLS:
        return Excerpt(problem, kinds)
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

    def cut(signals: Tensor) -> Tensor:
        return torch.stack([signals[t, :, times] for t, times in pieces])

    return Excerpt(
        problem._replace(
            values=cut(problem.values), seen=cut(problem.seen), origin=object()
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
