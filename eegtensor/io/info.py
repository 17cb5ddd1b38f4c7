"""`recording_info`: what one file holds, in plain fields."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from eegtensor._check import fail
from eegtensor.io.discover import is_recording_folder
from eegtensor.io.events import EventFiles
from eegtensor.io.harmonise import picked
from eegtensor.io.names import Names
from eegtensor.io.quality import Quality, measure_quality
from eegtensor.io.scan import scan
from eegtensor.io.signals import load


@dataclass(frozen=True)
class RecordingInfo:
    """What one recording holds.

    Attributes
    ----------
    path, format : str
    kind : str
        "continuous" or "trials".
    subject, session, run, task : str
        As read from the path, or as the file itself says.
    channels : dict of str to int
        How many of each type.
    ch_names : list of str
    sfreq : float
        Hertz.
    duration : float
        Seconds of the recording, or of one trial.
    n_trials : int | None
        Of a file of trials.
    events : dict of str to int
        How often each event occurs.
    events_source : str
        Where the events stand.
    quality : Quality
        Of the EEG channels.
    faults : list of str
        What `eegtensor.io.read_trials` would stop at with on_bad="raise".
    remedies : list of str
    notes : list of str
        What the reader remarked.
    """

    path: str
    format: str
    kind: str
    subject: str
    session: str
    run: str
    task: str
    channels: dict[str, int]
    ch_names: list[str]
    sfreq: float
    duration: float
    n_trials: int | None
    events: dict[str, int]
    events_source: str
    quality: Quality | None
    faults: list[str]
    remedies: list[str]
    notes: list[str]

    def __str__(self) -> str:
        """Return what `eegtensor info` prints."""
        channels = ", ".join(f"{n} {kind}" for kind, n in self.channels.items())
        person = f"subject {self.subject}, session {self.session}, run {self.run}"
        lines = [
            self.path,
            f"  format    {self.format}, {self.kind}",
            f"  person    {person}",
            f"  channels  {channels}: {' '.join(self.ch_names)}",
            f"  time      {self.duration:g} s at {self.sfreq:g} Hz",
        ]
        if self.n_trials is not None:
            lines[-1] += f" a trial, {self.n_trials} trials"
        events = ", ".join(f"{name} x {n}" for name, n in self.events.items())
        source = f" ({self.events_source})" if self.events_source else ""
        lines.append(f"  events    {events or 'none'}{source}")
        lines += [f"  note      {note}" for note in self.notes]
        lines += [f"  fault     {fault}" for fault in self.faults]
        lines += [f"            what to do: {remedy}" for remedy in self.remedies]
        if not self.faults:
            lines.append("  faults    none found")
        return "\n".join(lines)


def recording_info(
    path: str | os.PathLike, *, names: Names = None, event_files: EventFiles = None
) -> RecordingInfo:
    """Return what one recording holds, its faults included.

    Parameters
    ----------
    path : path-like
        One recording, in any format that `eegtensor.io.read_trials` reads.
    names, event_files
        As in `eegtensor.io.read_trials`.

    Raises
    ------
    RecordingError
        If the file cannot be read at all.
    """
    path = Path(path)
    if path.is_dir() and not is_recording_folder(path):
        fail(f"{path} is a folder", fix="name one recording in it")
    scanned = scan(path, names=names, event_files=event_files)
    faults = [f.fault for f in scanned.faults]
    remedies = [f.remedy for f in scanned.faults]
    # Stim and misc channels have no quality to speak of.
    kinds = Counter(scanned.channels.types)
    quality = None
    if kinds.keys() & {"eeg", "seeg", "ecog", "dbs"}:
        eeg = [
            n for n in picked(scanned.channels, None) if n not in scanned.channels.bads
        ]
        loaded = load(scanned, eeg)
        # Without `scale`: the report is of the file, not of a reading of it.
        quality = measure_quality(
            loaded.X, scanned.sfreq, eeg, loaded.usable(), scanned.unscaled
        )
        faults += quality.describe()
        remedies += [quality.remedy()] if quality.bad.any() else []
    else:
        faults.append("no EEG channels")
        remedies.append("name channels with picks=")
    return RecordingInfo(
        path=str(path),
        format=scanned.format,
        kind="trials" if scanned.stored else "continuous",
        **scanned.label._asdict(),
        channels=dict(kinds),
        ch_names=list(scanned.channels.sources),
        sfreq=scanned.sfreq,
        duration=scanned.duration,
        n_trials=scanned.n_stored if scanned.stored else None,
        events=scanned.events.counts() if scanned.events else {},
        events_source=scanned.events.source if scanned.events else "",
        quality=quality,
        faults=faults,
        remedies=list(dict.fromkeys(remedies)),
        notes=scanned.notes,
    )
