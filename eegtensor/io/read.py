"""`read_trials`: recordings of many people in, domain-labelled trials out."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np

from eegtensor._check import check_option, fail
from eegtensor.io.discover import Include, PathLike, find_recordings
from eegtensor.io.events import EventFiles, split_request
from eegtensor.io.filters import Band, band_name, check_bands, check_nyquist
from eegtensor.io.harmonise import Picks
from eegtensor.io.job import Job
from eegtensor.io.montage import make_info
from eegtensor.io.names import Names
from eegtensor.io.scan import check_rates
from eegtensor.io.signals import Settings
from eegtensor.io.sinks import MemorySink, StoreSink
from eegtensor.trials import Trials

logger = logging.getLogger("eegtensor")

_ENTITY_FOLDER = re.compile(r"(?i)^((sub|ses|run|task)-.*|eeg|ieeg|meg)$")


def read_trials(
    paths: PathLike | Iterable[PathLike],
    *,
    events: Any = None,
    tmin: float,
    tmax: float,
    band: Band | None = None,
    bands: Sequence[Band] | None = None,
    sfreq: float | None = None,
    picks: Picks = None,
    reference: str | Sequence[str] | None = None,
    on_bad: str = "raise",
    include: Include = None,
    names: Names = None,
    channels: str = "intersection",
    dataset: str | None = None,
    store: str | os.PathLike | None = None,
    progress: bool = False,
    event_files: EventFiles = None,
    scale: float = 1.0,
) -> Trials:
    """Read recordings of one or more people and cut them into trials.

    One recording is in memory at a time.

    Parameters
    ----------
    paths : path-like or list of path-like
        Files, globs and folders (searched recursively) of anything
        `mne.io.read_raw` reads, epochs files, stores, and ``.npz`` trials: X
        (n_trials, n_channels, n_times), scale (volts per unit of X), y, sfreq,
        ch_names, and per trial or for all subject, session, run; sample 0 is
        t = 0. A BIDS ``_channels.tsv`` beside a recording gives its channels
        their types and says which are bad.
    events : None | dict | list | str | callable
        ``{class name: code, annotation or list of them}``, a list of codes or
        annotations, or where event files are: a path template ("{stem}.eve";
        fields stem, folder, subject, session, run, task) or a function. None
        takes all events: those of an event file next to the recording, else
        annotations except BAD, EDGE and boundary, else stim channels; classes
        are then named as the events.
    tmin, tmax : float
        Window [tmin, tmax) in seconds from the event: round((tmax - tmin) *
        sfreq) samples from round(tmin * sfreq) on.
    band : (low, high) | None
        Hertz; Butterworth of order 4, zero phase, on the continuous signal
        before resampling and cutting (trials cut before: each as a whole). An
        end may be None.
    bands : list of (low, high) | None
        A filter bank instead: filtered versions stacked on the channel axis
        as "Oz 12.5-13.5Hz", all channels of the first band first.
    sfreq : float | None
        Rate to resample to, hertz; needed where rates differ.
    picks : str | list of str | None
        Channel names or types; None takes all EEG channels.
    reference : "average" | str | list of str | None
        Channels whose mean is subtracted ("average": all good EEG channels of
        the recording, picked or not); channels named are not kept. Its
        channels are checked as those picked; "drop" leaves a recording out
        whose named reference is bad.
    on_bad : "raise" | "drop" | "warn"
        What to do with recordings that cannot be read, are damaged, or have
        flat, saturated, non-finite or implausibly large or small channels.
        "raise" raises one error at the end, which lists them and keeps the
        trials of the others in ``.trials``. "drop" leaves damaged recordings
        out, bad channels, and recordings with more than half of their channels
        bad, and warns (it reads every recording twice). "warn" keeps all that
        is readable.
    include : str | list of str | callable | None
        Globs or a function that choose among the recordings found.
    names : str | callable | None
        Where subject, session and run stand: a template such as
        "S{subject}_{session}.edf" or a function from path to dict. None reads
        BIDS entities; without any, the file's name is the subject.
    channels : "intersection" | "interpolate"
        Keep the channels that all have, or restore missing ones by spherical
        splines.
    dataset : str | None
        Name of the dataset, also where files name one themselves; None takes
        the file's own, else the folder's.
    store : path-like | None
        Write a memory-mapped store there and return it opened.
    progress : bool
        Show a progress bar.
    event_files : str | callable | None
        Path template or function where `events` names classes as well.
    scale : float
        Volts per unit of the values that the files claim to be volts.

    Returns
    -------
    trials : Trials
        X is float32, in volts; metadata has the columns dataset, subject,
        session, run, task ("" where unknown), recording (its file) and, where
        known, onset (seconds).

    Raises
    ------
    RecordingError
        If recordings are unusable; it names each with its fault and remedy.
    EEGTensorError
        If settings are wrong or recordings contradict each other.
    """
    check_option("on_bad", on_bad, ("raise", "drop", "warn"))
    check_option("channels", channels, ("intersection", "interpolate"))
    if not (_is_number(tmin) and _is_number(tmax) and tmin < tmax):
        fail(
            f"The window [{tmin!r}, {tmax!r}) is empty",
            fix="give tmin < tmax in seconds",
        )
    if sfreq is not None and not (_is_number(sfreq) and sfreq > 0):
        fail(f"sfreq={sfreq!r} is no rate", fix="give hertz, or None to keep the rate")
    if not (_is_number(scale) and scale > 0):
        fail(f"scale={scale!r} is no factor", fix="give volts per unit, above 0")
    for option, value in {
        "include": include,
        "names": names,
        "reference": reference,
    }.items():
        if not (value is None or callable(value) or isinstance(value, (str, Sequence))):
            fail(
                f"{option}= is a {type(value).__name__}", fix="give text, see the help"
            )
    filters = check_bands(band, bands)
    request, event_files = split_request(events, event_files)
    # Headers first, samples last: a wrong setting fails in seconds, not hours.
    found, root = find_recordings(paths, include)
    job = Job(on_bad, picks, channels, progress)
    scans = job.scan_all(found, names, event_files)
    usable = job.check_all(scans, request, reference)
    check_rates(usable, sfreq)
    rate = sfreq or (usable[0].sfreq if usable else 0.0)
    for s in usable:
        check_nyquist(filters, s.sfreq, s.path)
    if usable:
        check_nyquist(filters, rate, "the trials after resampling")
        if round((tmax - tmin) * rate) < 1:
            fail(
                f"The window [{tmin:g}, {tmax:g}) s holds no sample at {rate:g} Hz",
                fix="give tmin and tmax in seconds, not in samples or milliseconds",
            )
    settings = Settings(tmin, tmax, filters, rate, request, reference, scale)
    usable = job.check_windows(usable, settings)
    if not usable:
        raise job.error(None)
    if filters != [(None, None)] and any(s.stored for s in usable):
        logger.info("trials that were cut before are filtered each as a whole")
    usable, plan = job.plan(usable, settings)
    words = [band_name(b) for b in filters] if bands is not None else [""]
    info = make_info(plan.names, plan.types, rate, plan.positions, words)
    if band is not None:
        _note_filter(info, filters[0])
    # Dropped trials make it fewer.
    n_most = sum(s.n_wanted(request) for s in usable)
    name = dataset or _dataset_name(root)
    with MemorySink(n_most) if store is None else StoreSink(store) as sink:
        for scanned, (X, y, metadata) in job.cut_all(usable, plan, settings):
            # A file's own datasets are kept apart, unless one name is asked for.
            if dataset is not None or "dataset" not in metadata:
                metadata["dataset"] = name
            metadata["recording"] = _place(scanned.path, root)
            sink.append(X, y, metadata)
        trials = sink.finish(info, tmin)
    if trials is None or (on_bad == "raise" and job.faults):
        raise job.error(trials)
    job.warn()
    return trials


def _note_filter(info: mne.Info, band: Band) -> None:
    low, high = band
    # MNE locks these fields against hand edits; our own filters made them true.
    with info._unlock():
        info["highpass"] = low or 0.0
        info["lowpass"] = high or info["sfreq"] / 2


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and bool(
        np.isfinite(value)
    )


def _place(path: Path, root: Path) -> str:
    """Return a recording's path below the root; it names it on every machine."""
    place = path.resolve()
    # A link may lead outside the root, and a store may be the root itself.
    inside = place.is_relative_to(root) and place != root
    return (place.relative_to(root) if inside else Path(place.name)).as_posix()


def _dataset_name(root: Path) -> str:
    """Return the name of the folder that is no subject's, session's or modality's."""
    for folder in (root, *root.parents):
        if folder.name and not _ENTITY_FOLDER.match(folder.name):
            return folder.name
    return ""
