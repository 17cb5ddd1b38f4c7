"""The second pass: one recording's samples, filtered and cut into trials."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import listing
from eegtensor.io.errors import RecordingError
from eegtensor.io.events import Request, assign_classes, onsets_of
from eegtensor.io.filters import (
    Band,
    filtered_channels,
    resampled_length,
    resampling_ratio,
    subtract_reference,
)
from eegtensor.io.formats import reading
from eegtensor.io.harmonise import Plan, canonical_name
from eegtensor.io.montage import interpolation_matrix
from eegtensor.io.scan import Scanned, open_again, stored_labels
from eegtensor.io.stored import StoredTrials

logger = logging.getLogger("eegtensor")


@dataclass(frozen=True)
class Settings:
    """How every recording is cut."""

    tmin: float
    tmax: float
    bands: Sequence[Band]
    sfreq: float
    request: Request | None
    reference: Sequence[str] | str | None
    scale: float


class Loaded(NamedTuple):
    """Samples of one recording.

    Attributes
    ----------
    X : ndarray, shape (..., n_channels, n_times), float64
        Volts; trials lie on the first axis of a recording that was cut before.
    names : list of str
        Canonical names of its channels.
    bad_spans : ndarray, shape (n_spans, 2)
        Samples [start, stop) annotated as bad.
    joints : list of int
        Samples at which the recording was interrupted.
    stored : StoredTrials | None
    """

    X: NDArray
    names: list[str]
    bad_spans: NDArray
    joints: list[int]
    stored: StoredTrials | None

    def usable(self) -> NDArray | None:
        """Return which samples lie outside the bad spans (continuous only)."""
        if self.stored is not None or not len(self.bad_spans):
            return None
        use = np.ones(self.X.shape[-1], dtype=bool)
        for start, stop in self.bad_spans:
            use[max(0, start) : max(0, stop)] = False
        return use


def load(scanned: Scanned, names: Sequence[str], scale: float = 1.0) -> Loaded:
    """Read the samples of some channels.

    Parameters
    ----------
    scanned : Scanned
    names : sequence of str
        Canonical names.
    scale : float
        Volts per unit of the file's values.

    Raises
    ------
    RecordingError
        If the samples cannot be read.
    """
    c = scanned.channels
    if not names:
        raise RecordingError(
            scanned.path,
            f"all its channels to be read are marked bad ({listing(sorted(c.bads))})",
            "leave it out with include=, or correct its list of bad channels",
        )
    index = {name: i for i, name in enumerate(c.names)}
    signal = open_again(scanned.path)
    if isinstance(signal, StoredTrials):
        with reading(scanned.path, scanned.format):
            X = signal.load()
        if list(names) != c.names:
            X = X[:, [index[name] for name in names]]
        # Whoever cut the trials has left bad spans out.
        spans, joints = np.zeros((0, 2), dtype=int), list[int]()
        stored: StoredTrials | None = signal
    else:
        with reading(scanned.path, scanned.format):
            X = signal.get_data(picks=[index[name] for name in names])
            spans, joints = _interruptions(signal)
        stored = None
    if stored is None and X.shape[-1] != scanned.n_times:
        raise RecordingError(
            scanned.path,
            f"its header promises {scanned.n_times} samples, {X.shape[-1]} are there",
            "get a fresh copy of the file",
        )
    if scale != 1.0:
        # In place: a recording may fill half of the memory.
        X *= scale
    return Loaded(X, list(names), spans, joints, stored)


def _interruptions(raw: mne.io.BaseRaw) -> tuple[NDArray, list[int]]:
    """Return spans annotated as bad, and samples where the recording was joined."""
    sfreq = float(raw.info["sfreq"])
    start = onsets_of(raw)
    stop = start + raw.annotations.duration
    spans, joints = [], []
    for name, a, b in zip(raw.annotations.description, start, stop, strict=True):
        kind = str(name).lower()
        first, last = round(a * sfreq), round(b * sfreq)
        if kind.startswith("bad"):
            spans.append((first, max(last, first + 1)))
        # EEGLAB's word and MNE's for where pieces were joined.
        if kind == "boundary" or kind.startswith("edge"):
            joints.append(first)
        # A pause of the recorder, filled with zeros by MNE.
        if kind.startswith("bad_acq_skip"):
            joints += [first, last]
    return np.asarray(spans, dtype=int).reshape(-1, 2), joints


def cut(
    loaded: Loaded, scanned: Scanned, plan: Plan, settings: Settings
) -> tuple[NDArray[np.float32], NDArray | None, pd.DataFrame]:
    """Return one recording's trials.

    Returns
    -------
    X : ndarray, shape (n_trials, n_bands * n_channels, n_times), float32
    y : ndarray, shape (n_trials,) | None
    metadata : DataFrame

    Raises
    ------
    RecordingError
        If no trial is left.
    """
    X = loaded.X
    # Before interpolation, which would count some channels twice in the mean.
    if settings.reference is not None:
        subtract_reference(X, _reference_rows(loaded, scanned, settings.reference))
    X = _arrange(X, loaded.names, plan, scanned)
    if loaded.stored is not None:
        return _cut_stored(X, loaded.stored, scanned, settings)
    return _cut_continuous(X, loaded, scanned, settings)


def reference_names(scanned: Scanned, reference: Sequence[str] | str) -> list[str]:
    """Return the channels whose mean is the reference.

    Raises
    ------
    RecordingError
        If the recording lacks one.
    """
    c = scanned.channels
    if reference == "average":
        return [
            n
            for n, kind in zip(c.names, c.types, strict=True)
            if kind == "eeg" and n not in c.bads
        ]
    asked = [reference] if isinstance(reference, str) else list(reference)
    by_fold = {n.casefold(): n for n in c.names}
    found = [by_fold.get(canonical_name(name).casefold()) for name in asked]
    missing = [name for name, got in zip(asked, found, strict=True) if got is None]
    if missing:
        raise RecordingError(
            scanned.path,
            f"it has no reference channel {listing(missing)}; it has "
            f"{listing(c.names, 40)}",
            "name channels that every recording has, or reference='average'",
        )
    return [name for name in found if name is not None]


def _reference_rows(
    loaded: Loaded, scanned: Scanned, reference: Sequence[str] | str
) -> list[int]:
    return [
        loaded.names.index(name)
        for name in reference_names(scanned, reference)
        if name in loaded.names
    ]


def _arrange(X: NDArray, names: list[str], plan: Plan, scanned: Scanned) -> NDArray:
    """Bring channels into the plan's order; interpolate those it lacks."""
    missing = plan.missing(scanned.path)
    if not missing:
        if names == plan.names:
            return X
        return X[..., [names.index(n) for n in plan.names], :]
    present = plan.present[scanned.path]
    have = X[..., [names.index(n) for n in present], :]
    W = interpolation_matrix(present, missing, plan.positions)
    # Before filtering: both are linear, and this costs one band only.
    restored = np.concatenate([have, W @ have], axis=-2)
    order = [*present, *missing]
    return restored[..., [order.index(n) for n in plan.names], :]


def _cut_continuous(
    X: NDArray, loaded: Loaded, scanned: Scanned, settings: Settings
) -> tuple[NDArray[np.float32], NDArray | None, pd.DataFrame]:
    assert scanned.events is not None
    old, new = scanned.sfreq, settings.sfreq
    index, names = assign_classes(scanned.events.labels, settings.request)
    events = scanned.events.samples[index]
    n_times = round((settings.tmax - settings.tmin) * new)
    # The event is moved to the new grid first, so that every trial of a class
    # is cut at the same distance from its event; by the ratio that `resample`
    # uses, else the event drifts from the signal where new / old is rounded.
    ratio = float(resampling_ratio(old, new))
    centre = np.round(events * ratio).astype(np.int64)
    start = centre + round(settings.tmin * new)
    stop = start + n_times
    length = resampled_length(X.shape[-1], old, new)
    inside = (start >= 0) & (stop <= length)
    clean = ~_touches(start / ratio, stop / ratio, loaded)
    keep = np.flatnonzero(inside & clean)
    dropped = (int((~inside).sum()), int((inside & ~clean).sum()))
    if not len(keep):
        raise RecordingError(
            scanned.path,
            f"none of its {len(events)} trials is left: {dropped[0]} leave the "
            f"recording of {scanned.duration:g} s, {dropped[1]} overlap spans "
            "annotated as bad",
            "choose another window (tmin=, tmax=)",
        )
    if any(dropped):
        logger.warning(
            "%s: %d of %d trials dropped (%d leave the recording, %d overlap spans "
            "annotated as bad)",
            scanned.path,
            sum(dropped),
            len(events),
            *dropped,
        )
    shape = (len(keep), len(settings.bands) * X.shape[0], n_times)
    trials = np.empty(shape, dtype=np.float32)
    for row, x in filtered_channels(X, settings.bands, old, new, loaded.joints):
        for i, k in enumerate(keep):
            trials[i, row] = x[start[k] : stop[k]]
    y = np.asarray(names, dtype=str)[keep]
    metadata = _label_columns([scanned.label] * len(keep))
    metadata["onset"] = events[keep] / old
    return trials, y, metadata


def _touches(start: NDArray, stop: NDArray, loaded: Loaded) -> NDArray:
    """Return which windows [start, stop), in samples, meet a bad span or a joint."""
    hit = np.zeros(len(start), dtype=bool)
    for a, b in loaded.bad_spans:
        hit |= (start < b) & (stop > a)
    for joint in loaded.joints:
        hit |= (start < joint) & (stop > joint)
    return hit


def _cut_stored(
    X: NDArray, stored: StoredTrials, scanned: Scanned, settings: Settings
) -> tuple[NDArray[np.float32], NDArray | None, pd.DataFrame]:
    old, new = scanned.sfreq, settings.sfreq
    if scanned.events is None:
        index, y = np.arange(len(stored)), stored.y
    else:
        index, names = assign_classes(scanned.events.labels, settings.request)
        y = np.asarray(names, dtype=str)
    if not len(index):
        raise RecordingError(
            scanned.path, "none of its trials is asked for", "correct events="
        )
    # Both rounded as for continuous signals, so that either way gives one window.
    start = round(settings.tmin * new) - round(stored.tmin * new)
    n_times = round((settings.tmax - settings.tmin) * new)
    shape = (len(index), len(settings.bands) * X.shape[1], n_times)
    trials = np.empty(shape, dtype=np.float32)
    for row, x in filtered_channels(X[index], settings.bands, old, new):
        trials[:, row] = x[:, start : start + n_times]
    labels = stored_labels(scanned.path, stored, scanned.label)
    metadata = _label_columns([labels[i] for i in index])
    rows = stored.metadata.iloc[index].reset_index(drop=True)
    for column in rows.columns:
        if column not in metadata:
            metadata[column] = rows[column]
    return trials, y, metadata


def _label_columns(labels: Sequence) -> pd.DataFrame:
    return pd.DataFrame(labels, columns=["subject", "session", "run", "task"])
