"""The first pass: headers, labels, events and conflicts, before samples are read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np

from eegtensor._check import fail, listing
from eegtensor.domains import missing_rows
from eegtensor.io.errors import Fault, RecordingError
from eegtensor.io.events import (
    EventFiles,
    EventTable,
    Request,
    assign_classes,
    find_events,
)
from eegtensor.io.formats import open_recording, reading
from eegtensor.io.harmonise import Channels, channels_of
from eegtensor.io.names import Label, Names, label_of
from eegtensor.io.stored import StoredTrials

logger = logging.getLogger("eegtensor")


@dataclass
class Scanned:
    """What a recording's header says; no samples."""

    path: Path
    format: str
    label: Label
    claims: list[Label]
    channels: Channels
    sfreq: float
    n_times: int
    events: EventTable | None
    stored: bool
    tmin: float
    faults: list[Fault]
    notes: list[str]
    n_stored: int = 0
    continuous_y: bool = False
    unscaled: frozenset[str] = frozenset()

    def n_wanted(self, request: Request | None) -> int:
        """Return how many events are asked for."""
        if self.events is None:
            return self.n_stored
        return len(assign_classes(self.events.labels, request)[0])

    @property
    def duration(self) -> float:
        """Seconds of the recording, or of one of its stored trials."""
        return self.n_times / self.sfreq


def scan(path: Path, *, names: Names = None, event_files: EventFiles = None) -> Scanned:
    """Read one recording's header.

    Raises
    ------
    RecordingError
        If it cannot be opened.
    """
    label = label_of(path, names)
    signal, kind, notes, faults, unscaled = open_recording(path)
    claims = [label]
    y_is_continuous = False
    if isinstance(signal, StoredTrials):
        n_times, tmin = signal.n_times, signal.tmin
        claims = stored_labels(path, signal, label)
        events, y_is_continuous = _stored_events(signal)
        conflicts = [c for c in dict.fromkeys(claims) if c[:3] != label[:3]]
        if conflicts and _named(path, names):
            notes = [*notes, f"its own labels count, not the path's: {conflicts[0]}"]
    else:
        n_times, tmin = signal.n_times, 0.0
        with reading(path, kind):
            events = find_events(path, signal, label, event_files)
    channels = channels_of(path, signal.info)
    by_source = dict(zip(channels.sources, channels.names, strict=True))
    return Scanned(
        path=path,
        format=kind,
        label=claims[0],
        claims=list(dict.fromkeys(claims)),
        channels=channels,
        sfreq=float(signal.info["sfreq"]),
        n_times=n_times,
        events=events,
        stored=isinstance(signal, StoredTrials),
        n_stored=len(signal) if isinstance(signal, StoredTrials) else 0,
        tmin=tmin,
        faults=faults,
        notes=notes,
        continuous_y=y_is_continuous,
        unscaled=frozenset(by_source[n] for n in unscaled if n in by_source),
    )


def _named(path: Path, names: Names) -> bool:
    return names is not None or "sub-" in path.as_posix()


def stored_labels(path: Path, stored: StoredTrials, label: Label) -> list[Label]:
    """Return each stored trial's label: the file's own, else the path's.

    Raises
    ------
    RecordingError
        If the file leaves one out.
    """
    columns = []
    for key in Label._fields:
        values = [getattr(label, key)] * len(stored)
        if key in stored.metadata:
            values = stored.metadata[key].tolist()
        missing = missing_rows(values)
        if missing:
            raise RecordingError(
                path,
                f"its column {key!r} is missing for trials {listing(missing)}",
                f"fill {key} for every trial, or leave the column out",
            )
        columns.append([str(v) for v in values])
    return [Label(*row) for row in zip(*columns, strict=True)]


def _stored_events(stored: StoredTrials) -> tuple[EventTable | None, bool]:
    if stored.y is None:
        return None, False
    if stored.y.dtype.kind == "f":
        return None, True
    codes = {name: code for code, name in stored.aliases.items()}
    labels: list[tuple[str, ...]] = [
        (name, codes[name]) if name in codes else (name,) for name in map(str, stored.y)
    ]
    samples = np.arange(len(stored), dtype=np.int64)
    return EventTable(samples, labels, "labels of the stored trials"), False


def check_claims(scans: Sequence[Scanned], unreadable: dict[Path, Label]) -> None:
    """Raise where two recordings claim the same subject, session and run.

    Raises
    ------
    EEGTensorError
        Naming both files.
    """
    # The dataset is the same for all, and a task does not make another sitting.
    owner: dict[tuple[str, str, str], tuple[Path, Label]] = {}
    claimed = [(scan.path, c) for scan in scans for c in scan.claims]
    for path, label in [*claimed, *unreadable.items()]:
        key = (label.subject, label.session, label.run)
        other, other_label = owner.setdefault(key, (path, label))
        if other == path:
            continue
        hint = ""
        if other_label.task != label.task:
            hint = f"; their tasks differ ({other_label.task!r} and {label.task!r})"
        fail(
            f"Two recordings claim {label}: {other} and {path}{hint}",
            why="There is one recording per subject, session and run",
            fix="choose with include= (such as include='*"
            f"{''.join(other.suffixes) or other.name}'), or say with names= how "
            "their paths differ",
        )


def check_rates(scans: Sequence[Scanned], sfreq: float | None) -> None:
    """Raise where sampling rates differ and none is asked for."""
    rates: dict[float, list[str]] = {}
    for s in scans:
        rates.setdefault(s.sfreq, []).append(s.path.name)
    if sfreq is None and len(rates) > 1:
        fail(
            "The recordings have different sampling rates: "
            + "; ".join(f"{rate:g} Hz in {listing(f, 3)}" for rate, f in rates.items()),
            fix=f"resample with sfreq={min(rates):g}",
        )


def open_again(path: Path) -> mne.io.BaseRaw | StoredTrials:
    """Open a recording that was scanned before, to read its samples."""
    return open_recording(path).signal
