"""The passes over all recordings, and what is done about faulty ones."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from eegtensor._check import EEGTensorWarning, fail, listing
from eegtensor.io.errors import Fault, RecordingError, summarise
from eegtensor.io.events import EventFiles, Request, unknown_events
from eegtensor.io.filters import resampled_length
from eegtensor.io.harmonise import Picks, Plan, picked, plan_channels
from eegtensor.io.names import Label, Names, label_of
from eegtensor.io.quality import Quality, measure_quality
from eegtensor.io.scan import Scanned, check_claims, scan
from eegtensor.io.signals import Loaded, Settings, cut, load, reference_names

logger = logging.getLogger("eegtensor")

Cut = tuple[NDArray[np.float32], NDArray | None, pd.DataFrame]

# Other channels (stim, misc) have no amplitude that could be implausible.
_MEASURED = ("eeg", "seeg", "ecog", "dbs", "eog", "ecg", "emg")
_NO_EVENTS = (
    "name them with events= (codes, annotation names or a path template of event "
    "files); `eegtensor info FILE` shows what a file holds"
)


class Job:
    """One call of `read_trials`: its faults so far, and its passes.

    Parameters
    ----------
    on_bad, picks, channels, progress
        As in `eegtensor.io.read_trials`.
    """

    def __init__(
        self, on_bad: str, picks: Picks, channels: str, progress: bool
    ) -> None:
        self.on_bad = on_bad
        self.picks = picks
        self.channels = channels
        self.progress = progress
        self.faults: list[Fault] = []
        self._unreadable = False

    def scan_all(
        self, paths: Sequence[Path], names: Names, event_files: EventFiles
    ) -> list[Scanned]:
        """Read the headers; recordings that cannot be opened become faults.

        Raises
        ------
        EEGTensorError
            If two recordings claim the same subject, session and run.
        """
        scans: list[Scanned] = []
        unreadable: dict[Path, Label] = {}
        for path in self._bar(paths, "headers"):
            try:
                scanned = scan(path, names=names, event_files=event_files)
            except RecordingError as error:
                self._give_up(error)
                unreadable[path] = label_of(path, names)
                continue
            # Notes are for the log; what a user must act on is a fault.
            for note in scanned.notes:
                logger.info("%s: %s", path, note)
            scans.append(scanned)
        # An unreadable file claims its place too: a copy must not slip in for it.
        check_claims(scans, unreadable)
        self._unreadable = bool(unreadable)
        return scans

    def check_all(
        self,
        scans: Sequence[Scanned],
        request: Request | None,
        reference: Sequence[str] | str | None,
    ) -> list[Scanned]:
        """Return the recordings that can give trials, judged by their headers.

        Raises
        ------
        EEGTensorError
            If an event is asked for that no recording has.
        """
        self._check_request(scans, request)
        usable = []
        for s in scans:
            self.faults += s.faults
            if s.faults and self.on_bad != "warn":
                continue
            try:
                picked(
                    s.channels, self.picks, restorable=self.channels == "interpolate"
                )
                if reference is not None:
                    reference_names(s, reference)
                _check_events(s, request)
            except RecordingError as error:
                self._give_up(error)
                continue
            usable.append(s)
        return usable

    def check_windows(
        self, scans: Sequence[Scanned], settings: Settings
    ) -> list[Scanned]:
        """Return the recordings whose trials, cut before, hold the window."""
        usable = []
        for s in scans:
            try:
                _check_window(s, settings)
                usable.append(s)
            except RecordingError as error:
                self._give_up(error)
        return usable

    def _check_request(self, scans: Sequence[Scanned], request: Request | None) -> None:
        tables = [s.events for s in scans if s.events is not None]
        labels = {label for table in tables for label in table.labels}
        unknown = unknown_events(request, labels) if tables else []
        if not unknown:
            return
        known = sorted(label[0] for label in labels)
        # The missing class may be in a file that could not be read.
        if self._unreadable:
            logger.warning("no readable recording has the events %s", listing(unknown))
            return
        fail(
            f"No recording has the events {listing(unknown)}; there are "
            f"{listing(known, 30)}",
            fix="correct events=",
        )

    def plan(
        self, usable: Sequence[Scanned], settings: Settings
    ) -> tuple[list[Scanned], Plan]:
        """Return the recordings to cut, and their common channels.

        With ``on_bad="drop"`` the samples are read once for this, because a bad
        channel of one recording is dropped from all.
        """
        exclude: set[str] = set()
        # A channel minus itself is zero: it would make covariances singular.
        if settings.reference not in (None, "average"):
            for s in usable:
                exclude |= set(reference_names(s, settings.reference))
        kept = list(usable)
        if self.on_bad == "drop":
            kept = [
                s for s in map(self._without_bad, usable, [settings] * len(usable)) if s
            ]
            if not kept:
                raise self.error(None)
        plan = plan_channels(
            [s.channels for s in kept],
            picks=self.picks,
            channels=self.channels,
            exclude=exclude,
        )
        return kept, plan

    def _without_bad(self, s: Scanned, settings: Settings) -> Scanned | None:
        chosen = picked(
            s.channels, self.picks, restorable=self.channels == "interpolate"
        )
        names = [n for n in chosen if n not in s.channels.bads]
        try:
            names = _with_reference(names, s, settings)
            quality = _quality(load(s, names, settings.scale), s)
        except RecordingError as error:
            self._give_up(error)
            return None
        if not quality.bad.any():
            return s
        names = quality.ch_names
        fault = "; ".join(quality.describe())
        kept = [b for n, b in zip(names, quality.bad, strict=True) if n in chosen]
        # Only "average" can do without its bad channels.
        unreferenced = settings.reference not in (None, "average") and any(
            b and n in reference_names(s, settings.reference)
            for n, b in zip(names, quality.bad, strict=True)
        )
        # Dropping most of the channels for everybody would be the worse loss.
        if quality.suspect_units or sum(kept) > 0.5 * len(kept) or unreferenced:
            self.faults.append(
                Fault(str(s.path), f"left out, {fault}", quality.remedy())
            )
            return None
        bad = {n for n, b in zip(names, quality.bad, strict=True) if b}
        self.faults.append(Fault(str(s.path), f"channels dropped, {fault}", ""))
        return replace(s, channels=replace(s.channels, bads=s.channels.bads | bad))

    def cut_all(
        self, usable: Sequence[Scanned], plan: Plan, settings: Settings
    ) -> Iterator[tuple[Scanned, Cut]]:
        """Yield each recording's trials; one recording is in memory at a time."""
        for s in self._bar(usable, "trials"):
            names = _with_reference(plan.present[s.path], s, settings)
            try:
                loaded = load(s, names, settings.scale)
                if self.on_bad != "drop" and not self._accept(loaded, s):
                    continue
                trials = cut(loaded, s, plan, settings)
                # Else two recordings are in memory while the next one loads.
                del loaded
                yield s, trials
            except RecordingError as error:
                self._give_up(error)

    def _accept(self, loaded: Loaded, s: Scanned) -> bool:
        quality = _quality(loaded, s)
        if not quality.bad.any():
            return True
        fault = "; ".join(quality.describe())
        self.faults.append(Fault(str(s.path), fault, quality.remedy()))
        return self.on_bad == "warn"

    def _give_up(self, error: RecordingError) -> None:
        """Note why a recording gives no trials, instead of what was tolerable."""
        self.faults = [f for f in self.faults if f.path != error.path] + error.faults

    def error(self, trials: object) -> RecordingError:
        """Return the one error that lists all faulty recordings."""
        first = self.faults[0]
        return RecordingError(*first, faults=self.faults, trials=trials)  # type: ignore[arg-type]

    def warn(self) -> None:
        """Warn once of everything that was passed over."""
        if self.faults:
            done = "left out, or their bad channels"
            if self.on_bad == "warn":
                done = "read as they are where readable"
            warnings.warn(
                f"Faulty recordings, {done}:\n{summarise(self.faults)}",
                EEGTensorWarning,
                stacklevel=3,
            )

    def _bar(self, items: Sequence, what: str) -> Iterable:
        return tqdm(items, desc=what, unit="recording", disable=not self.progress)


def _with_reference(names: Sequence[str], s: Scanned, settings: Settings) -> list[str]:
    """Return the channels to load: those of the trials, then of the reference."""
    if settings.reference is None:
        return list(names)
    return list(dict.fromkeys([*names, *reference_names(s, settings.reference)]))


def _quality(loaded: Loaded, s: Scanned) -> Quality:
    # Of the reference as well: a NaN in it would be in every channel.
    kinds = dict(zip(s.channels.names, s.channels.types, strict=True))
    names = [n for n in loaded.names if kinds[n] in _MEASURED]
    X = loaded.X
    if names != loaded.names:
        X = X[..., [loaded.names.index(n) for n in names], :]
    return measure_quality(X, s.sfreq, names, loaded.usable(), s.unscaled)


def _check_events(s: Scanned, request: Request | None) -> None:
    if s.events is None and not s.stored:
        raise RecordingError(s.path, "it has no events", _NO_EVENTS)
    if s.events is None and request is not None:
        what = "continuous targets" if s.continuous_y else "no labels"
        raise RecordingError(
            s.path, f"its trials have {what}, so events= cannot choose", "omit events="
        )
    if s.n_wanted(request) == 0:
        assert s.events is not None
        counts = s.events.counts()
        raise RecordingError(
            s.path,
            f"it has none of the events asked for; its {s.events.source} hold "
            + listing((f"{k} ({n})" for k, n in counts.items()), 20),
            "correct events=, or leave it out with include=",
        )


def _check_window(s: Scanned, settings: Settings) -> None:
    if not s.stored:
        return
    n_times = round((settings.tmax - settings.tmin) * settings.sfreq)
    start = round(settings.tmin * settings.sfreq) - round(s.tmin * settings.sfreq)
    length = resampled_length(s.n_times, s.sfreq, settings.sfreq)
    if start < 0 or start + n_times > length:
        raise RecordingError(
            s.path,
            f"the window [{settings.tmin:g}, {settings.tmax:g}) s lies outside its "
            f"trials, which hold [{s.tmin:g}, {s.tmin + s.duration:g}) s",
            "choose tmin and tmax inside",
        )
