"""What a recording has lost, and where its channels lie."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from eegtensor._check import fail, listing
from eegtensor.tensor.completion._prepare import FEWEST


def eeg_picks(info: mne.Info) -> NDArray:
    picks = mne.pick_types(info, eeg=True, exclude=())
    if len(picks) < 2:
        fail(
            f"There are {len(picks)} EEG channels",
            why="What one channel lost is restored from the others",
            fix="check the channel types (set_channel_types)",
        )
    return np.asarray(picks)


def bad_spans(raw: mne.io.BaseRaw) -> Any:
    """Yield index, start, stop and channels of each bad annotation."""
    sfreq = raw.info["sfreq"]
    for k, annotation in enumerate(raw.annotations):
        if not annotation["description"].upper().startswith("BAD"):
            continue
        # Counted from before the first sample of a recording that was cropped,
        # whether it has a date or not.
        onset = annotation["onset"] - raw.first_time
        start = max(0, round(onset * sfreq))
        stop = min(raw.n_times, round((onset + annotation["duration"]) * sfreq))
        if stop > start:
            yield k, start, stop, tuple(annotation.get("ch_names") or ())


def bad_spans_of_trials(epochs: mne.BaseEpochs) -> Any:
    """Yield index, trial, start, stop and channels of bad annotations."""
    if epochs.annotations is None:
        return
    sfreq, n_times = epochs.info["sfreq"], len(epochs.times)
    # Both count from before the first sample; events at the rate that was recorded.
    starts = epochs.events[:, 0] / epochs._raw_sfreq + epochs.times[0]
    for k, annotation in enumerate(epochs.annotations):
        if not annotation["description"].upper().startswith("BAD"):
            continue
        begin = np.round((annotation["onset"] - starts) * sfreq).astype(int)
        ends = annotation["onset"] + annotation["duration"] - starts
        stops = np.minimum(np.round(ends * sfreq).astype(int), n_times)
        names = tuple(annotation.get("ch_names") or ())
        for trial in np.flatnonzero((begin < n_times) & (stops > 0) & (stops > begin)):
            yield k, trial, max(0, begin[trial]), stops[trial], names


def long_gaps(lost: NDArray, limit: float) -> NDArray:
    """Return samples in gaps of all channels longer than a limit, (..., n_times)."""
    gap = lost.all(axis=-2)
    long = np.zeros_like(gap)
    for row, mark in zip(np.atleast_2d(gap), np.atleast_2d(long), strict=True):
        for start, stop in runs(row):
            mark[start:stop] = stop - start > limit
    return long


def runs(flags: NDArray) -> NDArray:
    """Return the start and stop of each run of True, shape (n_runs, 2)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return edges.reshape(-1, 2)


def electrode_directions(info: mne.Info) -> NDArray:
    """Return positions about the centre of the sphere that fits them best.

    Returns
    -------
    positions : ndarray, shape (n_channels, 3), metres
        NaN for channels without a position; for all of them where fewer than four
        have one.
    """
    places = np.array([ch["loc"][:3] for ch in info["chs"]])
    known = np.isfinite(places).all(axis=1) & places.any(axis=1)
    found = np.full_like(places, np.nan)
    if known.sum() < 4:
        return found
    placed = places[known]
    centre = placed.mean(axis=0)
    radius = np.linalg.norm(placed - centre, axis=1).mean()

    def distance(sphere: NDArray) -> NDArray:
        away: NDArray = np.linalg.norm(placed - sphere[:3], axis=1) - sphere[3]
        return away

    found[known] = placed - least_squares(distance, [*centre, radius]).x[:3]
    return found


def usable(
    lost: NDArray, positions: NDArray | None, names: Any
) -> tuple[NDArray, NDArray | None]:
    """Return the channels that are completed together, and their positions.

    Positions are needed where a channel has no data at all; channels without one
    are then left out, if they lost nothing themselves.
    """
    n = lost.shape[-2]
    # As `complete` counts: a few samples are no data yet.
    seen = (~lost).swapaxes(0, -2).reshape(n, -1)
    dead = seen.sum(axis=1) < min(FEWEST, seen.shape[1])
    placed = np.zeros(n, bool)
    if positions is not None:
        placed = np.isfinite(positions).all(axis=1)
    if placed.all():
        return np.arange(n), positions
    if not dead.any():
        return np.arange(n), None
    holes = lost.any(axis=-1)
    holes = holes if holes.ndim == 1 else holes.any(axis=0)
    nowhere = np.flatnonzero(~placed & (dead if not placed.any() else holes))
    if len(nowhere):
        which = [names[i] if names else str(i) for i in nowhere]
        fail(
            f"Positions of channels {listing(which)} are not known",
            why="A channel without any data is restored from where it sits among "
            "the others",
            fix="set a montage (raw.set_montage('standard_1005')), or drop them",
        )
    assert positions is not None
    return np.flatnonzero(placed), positions[placed]
