"""What is lost: kinds of cells, and observed cells to hide in the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEEN, SCATTERED, RUN, GAP, CHANNEL = range(5)
NAMES = {SCATTERED: "scattered", RUN: "run", GAP: "gap", CHANNEL: "channel"}
# Samples from which a loss in one channel counts as a run.
RUN_LENGTH = 16
# Share of the observed cells that is hidden to learn how well a kind is restored.
HIDDEN = 0.05
MOST_GAPS = 24


def kinds_of(seen: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return the kind of every cell, shape (n_trials, n_channels, n_times).

    Parameters
    ----------
    seen : ndarray of bool, shape (n_trials, n_channels, n_times)
        Channels with no data at all are not among them.

    Notes
    -----
    A gap has no channel; a run is lost in one channel for at least 16 samples;
    both only where the set of lost channels stays for a while. All else is
    scattered: at 95 % of random loss most cells have long neighbours too.
    """
    lost = ~seen
    changed = np.zeros((len(seen), seen.shape[2]))
    changed[:, 1:] = (lost[:, :, 1:] != lost[:, :, :-1]).any(axis=1)
    steady = _moving_mean(changed, RUN_LENGTH) < 0.5
    gap = lost.all(axis=1) & steady
    kinds = np.where(lost, np.int8(SCATTERED), np.int8(SEEN))
    # Channel by channel: labels of runs have eight bytes a cell.
    for c in range(lost.shape[1]):
        long = _run_lengths(lost[:, c]) >= RUN_LENGTH
        kinds[:, c][lost[:, c] & long & steady] = RUN
    kinds[np.broadcast_to(gap[:, None], lost.shape)] = GAP
    return kinds


def _moving_mean(x: NDArray, width: int) -> NDArray:
    padded = np.pad(x, [(0, 0), (width // 2 + 1, width - width // 2 - 1)], mode="edge")
    total = np.cumsum(padded, axis=1)
    return (total[:, width:] - total[:, :-width]) / width


def _labels(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for every True cell the number of its run along the last axis."""
    starts = flags.copy()
    starts[..., 1:] &= ~flags[..., :-1]
    return np.where(flags, np.cumsum(starts.ravel()).reshape(flags.shape), 0)


def _run_lengths(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    labels = _labels(flags)
    lengths = np.bincount(labels.ravel())
    lengths[0] = 0
    return lengths[labels]


def hide(
    seen: NDArray[np.bool_], kinds: NDArray[np.int8], rng: np.random.Generator
) -> NDArray[np.int8]:
    """Choose observed cells to hide, in the same kinds of pattern as those lost.

    The mask itself, moved in time and to other trials, says which; runs are kept
    whole, and thinned until few observed cells are hidden.

    Returns
    -------
    hidden : ndarray of int8, same shape
        The kind that a hidden cell stands for, 0 where nothing is hidden.
    """
    hidden = np.zeros_like(kinds)
    if (kinds == GAP).any():
        hidden[_hidden_gaps(seen, kinds, rng)] = GAP
    for kind in (RUN, SCATTERED):
        if (kinds == kind).any():
            moved = _moved(seen & (hidden == 0), kinds == kind, rng)
            hidden[moved] = kind
    return hidden


def _moved(
    seen: NDArray[np.bool_], lost: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    budget = HIDDEN * seen.sum()
    chosen = np.zeros_like(seen)
    for _ in range(8):
        shift = int(rng.integers(1, lost.shape[2])) if lost.shape[2] > 1 else 0
        moved = np.roll(lost[rng.permutation(len(lost))], shift, axis=2)
        target = moved & seen & ~chosen
        room = budget - chosen.sum()
        labels = _labels(moved)
        share = min(1.0, room / max(int(target.sum()), 1))
        keep = rng.random(int(labels.max()) + 1) < share
        if not (keep[1:] & (np.bincount(labels.ravel())[1:] > 0)).any():
            keep[rng.integers(len(keep))] = True
        chosen |= target & keep[labels]
        if chosen.sum() >= 0.8 * budget:
            break
    return chosen


def _hidden_gaps(
    seen: NDArray[np.bool_], kinds: NDArray[np.int8], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Hide whole columns: stretches as long as the gaps, away from all gaps."""
    gap = (kinds == GAP).all(axis=1)
    lengths = np.unique(_labels(gap)[gap], return_counts=True)[1]
    taken = np.pad(gap, [(0, 0), (1, 1)], constant_values=True)
    chosen = np.zeros_like(gap)
    budget = max(HIDDEN * gap.size, float(lengths.min()))
    for length in rng.choice(lengths, size=min(MOST_GAPS, 4 * len(lengths))):
        if chosen.sum() + length > budget and chosen.any():
            break
        # Free stretches of three lengths: the hidden one in the middle.
        room = 3 * int(length)
        count = np.cumsum(np.pad(taken, [(0, 0), (1, 0)]), axis=1)
        if count.shape[1] <= room:
            continue
        free = np.argwhere(count[:, room:] - count[:, :-room] == 0)
        if not len(free):
            continue
        trial, start = free[rng.integers(len(free))]
        begin = start + length - 1
        chosen[trial, begin : begin + length] = True
        taken[trial, begin + 1 : begin + 1 + length] = True
    return np.asarray(chosen[:, None] & seen)
