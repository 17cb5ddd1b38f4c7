"""Where a recording's events come from, and which of them become classes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import fail, listing
from eegtensor.io.errors import RecordingError
from eegtensor.io.names import Label, base_stem, stem

logger = logging.getLogger("eegtensor")

EventFiles = str | Callable[[Path], str | os.PathLike | None] | None
Request = dict[str, tuple[str, ...]]

# Annotations that mark spans or joints of the recording, never a trial.
_NOT_EVENTS = re.compile(r"(?i)^(bad|edge)|^boundary$")
_BRAINVISION_CODE = re.compile(r"^[^/]+/\D{0,3}\s*(\d+)$")
_PATH_LIKE = re.compile(r"(?i)[{/\\]|\.(fif|fif\.gz|tsv|txt|eve|lst|csv)$")


class EventTable(NamedTuple):
    """Events of one recording.

    Attributes
    ----------
    samples : ndarray, shape (n_events,), int64
        Sample of each event, counted from the recording's first sample.
    labels : list of tuple of str
        Names an event goes by; the first is its class where none is asked for.
    source : str
        Where they were found, in words.
    """

    samples: NDArray[np.int64]
    labels: list[tuple[str, ...]]
    source: str

    def counts(self) -> dict[str, int]:
        """Return how many events of each name there are, in order of the names."""
        names, n = np.unique([label[0] for label in self.labels], return_counts=True)
        return {str(a): int(b) for a, b in zip(names, n, strict=True)}


def find_events(
    path: Path, raw: mne.io.BaseRaw, label: Label, event_files: EventFiles = None
) -> EventTable | None:
    """Return a recording's events, or None where it has none.

    An event file that is named, or lies next to the recording (``X-eve.fif``
    for ``X_raw.fif``, BIDS ``_events.tsv``), goes before annotations, and these
    before stim channels: whoever wrote an event file meant it to be used.

    Raises
    ------
    RecordingError
        If an event file is missing or cannot be read.
    """
    file = _event_file(path, label, event_files)
    if file is not None:
        return _from_file(path, file, raw)
    # EDF and BDF readers may offer the same events in both forms: never add them.
    return _from_annotations(raw) or _from_stim(raw)


def _event_file(path: Path, label: Label, event_files: EventFiles) -> Path | None:
    if event_files is not None:
        if callable(event_files):
            named = event_files(path)
        else:
            fields = {**label._asdict(), "stem": stem(path), "folder": path.parent}
            try:
                named = event_files.format(**fields)
            except (KeyError, IndexError, ValueError) as error:
                fail(
                    f"The path template {event_files!r} has an unknown field: {error}",
                    fix="use " + listing("{" + name + "}" for name in fields),
                    cause=error,
                )
        if named is not None:
            file = path.parent / named
            if file.exists():
                return file
            raise RecordingError(
                path, f"its event file {file} does not exist", "correct events="
            )
    # "sub-1_raw.fif" goes with "sub-1-eve.fif", "sub-1_eeg.edf" with
    # "sub-1_events.tsv"; some write "sub-1_raw-eve.fif".
    base = base_stem(path)
    for name in (
        *(f"{b}{e}" for e in ("-eve.fif", "_eve.fif") for b in (base, stem(path))),
        *(f"{b}{e}.gz" for e in ("-eve.fif", "_eve.fif") for b in (base, stem(path))),
        *(f"{base}{e}" for e in ("-eve.txt", ".eve", "_events.tsv")),
    ):
        if (path.parent / name).exists():
            return path.parent / name
    return None


def _from_file(path: Path, file: Path, raw: mne.io.BaseRaw) -> EventTable:
    try:
        if file.suffix.lower() in (".tsv", ".csv"):
            return _from_table(path, file, float(raw.info["sfreq"]))
        rows = mne.read_events(file, verbose="ERROR")
    except RecordingError:
        raise
    except Exception as error:
        raise RecordingError(
            path,
            f"its event file {file.name!r} cannot be read "
            f"({type(error).__name__}: {error})",
            "mend the event file, or name another with events=",
        ) from error
    return _from_rows(rows, raw.first_samp, f"event file {file.name}")


def _from_rows(rows: NDArray, first_samp: int, source: str) -> EventTable:
    # Some event files are sorted by class.
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    samples = (rows[:, 0] - first_samp).astype(np.int64)
    return EventTable(samples, [(str(code),) for code in rows[:, 2]], source)


def _from_table(path: Path, file: Path, sfreq: float) -> EventTable:
    separator = "\t" if file.suffix.lower() == ".tsv" else ","
    # As text: pandas would read the code 03 as 3, and "NA" as missing.
    table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False)
    columns = [c for c in ("trial_type", "value") if c in table]
    if "onset" not in table or not columns:
        raise RecordingError(
            path,
            f"its event file {file.name!r} has the columns {listing(table.columns)}",
            "give it the columns onset (seconds) and trial_type or value",
        )
    onset = pd.to_numeric(table["onset"], errors="coerce").to_numpy(dtype=float)
    labels = []
    for row in table[columns].itertuples(index=False):
        known = [_whole(v) for v in row if v not in ("", "n/a", "nan")]
        labels.append(tuple(dict.fromkeys(known)))
    used = [
        i
        for i in np.argsort(onset, kind="stable").tolist()
        if np.isfinite(onset[i]) and labels[i] and not _NOT_EVENTS.match(labels[i][0])
    ]
    samples = np.round(onset[used] * sfreq).astype(np.int64)
    return EventTable(samples, [labels[i] for i in used], f"event file {file.name}")


def _whole(text: str) -> str:
    """Write "3.0", as spreadsheets do, as the code 3."""
    return re.sub(r"^(\d+)\.0+$", r"\1", text)


def onsets_of(raw: mne.io.BaseRaw) -> NDArray:
    """Return annotation onsets in seconds from the recording's first sample."""
    return raw.annotations.onset - raw.first_samp / float(raw.info["sfreq"])


def _from_annotations(raw: mne.io.BaseRaw) -> EventTable | None:
    names = [str(d) for d in raw.annotations.description]
    onset = onsets_of(raw)
    order = np.argsort(onset, kind="stable").tolist() if names else []
    used = [i for i in order if names[i] and not _NOT_EVENTS.match(names[i])]
    if not used:
        return None
    samples = np.round(onset[used] * float(raw.info["sfreq"])).astype(np.int64)
    return EventTable(
        samples, [_annotation_labels(names[i]) for i in used], "annotations"
    )


def _annotation_labels(name: str) -> tuple[str, ...]:
    tidy = " ".join(name.split())
    code = _BRAINVISION_CODE.match(name)
    return tuple(dict.fromkeys([name, tidy, *([str(int(code[1]))] if code else [])]))


def _from_stim(raw: mne.io.BaseRaw) -> EventTable | None:
    picks = mne.pick_types(raw.info, meg=False, stim=True)
    if not len(picks):
        return None
    channel = [raw.ch_names[i] for i in picks]
    try:
        # Codes may follow each other without a zero between, or last one sample.
        rows = mne.find_events(
            raw, channel, consecutive=True, shortest_event=1, verbose="ERROR"
        )
    except ValueError:
        # MNE refuses channels whose values are no trigger codes.
        return None
    if not len(rows):
        return None
    return _from_rows(rows, raw.first_samp, f"stim channel {listing(channel, 3)}")


def split_request(
    events: Any, event_files: EventFiles = None
) -> tuple[Request | None, EventFiles]:
    """Return the classes asked for, and where event files are.

    Parameters
    ----------
    events : None | dict | list | str | int | callable
        As `eegtensor.io.read_trials` takes it.
    event_files : str | callable | None

    Raises
    ------
    EEGTensorError
        If one event would belong to two classes.
    """
    if events is None:
        return None, event_files
    if callable(events):
        return None, events
    if isinstance(events, (str, int, float, np.number)):
        # Where a text could be both, it is a path: annotations can be given in a list.
        if isinstance(events, str) and _PATH_LIKE.search(events):
            return None, events
        events = [events]
    if isinstance(events, Mapping):
        request = {str(name): _texts(value) for name, value in events.items()}
    else:
        request = {text: (text,) for text in _texts(events)}
    owner: dict[str, str] = {}
    for name, values in request.items():
        for value in values:
            if owner.setdefault(value, name) != name:
                fail(
                    f"events= puts {value!r} into two classes, {owner[value]!r} "
                    f"and {name!r}",
                    fix="give every event to one class",
                )
    if not request:
        fail("events= is empty", fix="name the events that become classes, or None")
    return request, event_files


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(_whole(str(v)) for v in value)
    return (_whole(str(value)),)


def matches(value: str, labels: tuple[str, ...]) -> bool:
    """Return whether a requested code or description means this event.

    It does if it is one of the event's names, or if every part of it between
    slashes is a part of the name ("left" for "left/hand"), as in MNE.
    """
    if value in labels:
        return True
    return set(value.split("/")) <= set(labels[0].split("/"))


def assign_classes(
    labels: list[tuple[str, ...]], request: Request | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return which events are used, and the class of each of these.

    Raises
    ------
    EEGTensorError
        If an event belongs to two classes.
    """
    index: list[int] = []
    names: list[str] = []
    known: dict[tuple[str, ...], str | None] = {}
    for i, label in enumerate(labels):
        if label not in known:
            known[label] = _class_of(label, request)
        name = known[label]
        if name is not None:
            index.append(i)
            names.append(name)
    return np.asarray(index, dtype=np.int64), names


def _class_of(label: tuple[str, ...], request: Request | None) -> str | None:
    if request is None:
        return label[0]
    # An exact name goes before a part of a name, so that "left" can be asked
    # for beside "left/hand".
    for by in (lambda v: v in label, lambda v: matches(v, label)):
        found = [n for n, values in request.items() if any(map(by, values))]
        if len(found) > 1:
            fail(
                f"The event {label[0]!r} belongs to the classes {listing(found)}",
                fix="name events in events= in full, so that each has one class",
            )
        if found:
            return found[0]
    return None


def unknown_events(
    request: Request | None, labels: Iterable[tuple[str, ...]]
) -> list[str]:
    """Return the requested codes and descriptions that match no event at all."""
    if request is None:
        return []
    distinct = set(labels)
    return [
        value
        for values in request.values()
        for value in values
        if not any(matches(value, label) for label in distinct)
    ]
