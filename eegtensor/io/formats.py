"""Open one recording with the reader of MNE that is right for it."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np

from eegtensor._check import EEGTensorError
from eegtensor.io.discover import (
    FOLDER_SUFFIXES,
    NAMED_ONLY,
    NOT_SIGNALS,
    suffix_of,
)
from eegtensor.io.errors import Fault, RecordingError
from eegtensor.io.explain import CUT_SHORT, FRESH_COPY, explain, notes_of
from eegtensor.io.integrity import check_file
from eegtensor.io.sidecars import apply_channels_table
from eegtensor.io.stored import (
    StoredTrials,
    open_npz,
    open_trial_store,
    trials_of_epochs,
)
from eegtensor.store import is_store

logger = logging.getLogger("eegtensor")

Reader = Callable[[Path], mne.io.BaseRaw]

_NAMES = {
    ".edf": "EDF",
    ".bdf": "BDF",
    ".gdf": "GDF",
    ".vhdr": "BrainVision",
    ".ahdr": "BrainVision",
    ".set": "EEGLAB",
    ".cnt": "CNT",
    ".fif": "FIF",
    ".fif.gz": "FIF",
    ".mff": "EGI MFF",
    ".raw": "EGI",
    ".egi": "EGI",
    ".data": "Nicolet",
    ".eeg": "Nihon Kohden",
    ".lay": "Persyst",
    ".cdt": "Curry",
    ".dat": "Curry or BCI2000",
    ".mat": "FieldTrip",
    ".nedf": "NEDF",
    ".npz": "npz trials",
}
_EPOCHS_NAME = re.compile(r"(?i)[-_]epo\.fif(\.gz)?$")
_WHOLE_NAME = {
    "ecg": re.compile(r"(?i)^(ecg|ekg)\d*([ _-].*)?$"),
    "eog": re.compile(r"(?i)^((h|v|left|right|l|r)?[ _-]?eog)[ _-]?\w{0,5}([ _-].*)?$"),
    "emg": re.compile(r"(?i)^emg\d*([ _-].*)?$"),
    "misc": re.compile(
        r"(?i)^(resp(iration)?|gsr|eda|temp(erature)?|spo2|photic|dc\d+|"
        r"d?trig(ger)?|status|marker|event)\d*([ _-].*)?$"
    ),
}


class Opened(NamedTuple):
    """A recording whose header is read; samples are read when asked for."""

    signal: mne.io.BaseRaw | StoredTrials
    format: str
    notes: list[str]
    faults: list[Fault]
    unscaled: frozenset[str] = frozenset()


def open_recording(path: Path) -> Opened:
    """Open one recording and read its header.

    Returns
    -------
    opened : Opened
        A continuous recording (`mne.io.Raw`) or trials cut before
        (`StoredTrials`), the reader's remarks, and faults that can be read over.

    Raises
    ------
    RecordingError
        Whatever is wrong, in words.
    """
    suffix = suffix_of(path)
    if is_store(path):
        return Opened(open_trial_store(path), "eegtensor store", [], [])
    # A Neuralynx recording is a folder of channels.
    if path.suffix.lower() == ".ncs":
        path = path.parent
    name = _NAMES.get(suffix, suffix.lstrip(".").upper() or "EEG")
    if re.fullmatch(r"\.ns[1-6]", suffix):
        name = "NSx"
    if path.is_dir() and suffix not in FOLDER_SUFFIXES:
        name = "Neuralynx"
    if not path.exists():
        raise RecordingError(path, "there is no such file", "correct the path")
    with reading(path, name) as messages:
        findings = check_file(path, suffix)
        signal = open_npz(path) if suffix == ".npz" else _read(path, suffix)
        if isinstance(signal, mne.io.BaseRaw):
            _check_continuous(path, signal)
            retyped = _retype(signal)
            tabled = apply_channels_table(path, signal)
    notes = findings.notes + notes_of(messages)
    faults = findings.faults + _faults_of(path, messages)
    if isinstance(signal, mne.io.BaseRaw):
        if retyped:
            notes.append("not EEG by their names: " + ", ".join(retyped))
        notes += tabled
    return Opened(signal, name, notes, faults, _unscaled(messages))


@contextmanager
def reading(path: Path, name: str) -> Iterator[list[str]]:
    """Run a reader: collect what it says, explain what it raises.

    Yields
    ------
    messages : list of str
        Warnings and log lines, complete when the block ends.

    Raises
    ------
    RecordingError
    """
    messages: list[str] = []
    with (
        warnings.catch_warnings(record=True) as caught,
        # Some readers warn, some log: both are collected.
        mne.utils.use_log_level("WARNING"),
        mne.utils.catch_logging() as log,
        np.errstate(all="ignore"),
        # MNE's Persyst reader prints.
        redirect_stdout(log),
    ):
        warnings.simplefilter("always")
        try:
            yield messages
        except EEGTensorError:
            # Already in words: a setting is wrong, not the file.
            raise
        except Exception as error:
            spoken = [str(w.message) for w in caught]
            raise explain(path, error, name, spoken) from error
        finally:
            messages += [" ".join(str(w.message).split()) for w in caught]
            messages += [
                line
                for line in log.getvalue().splitlines()
                if not any(line.strip() in message for message in messages)
            ]


def _read(path: Path, suffix: str) -> mne.io.BaseRaw | StoredTrials:
    if path.is_dir() and suffix not in FOLDER_SUFFIXES:
        return mne.io.read_raw_neuralynx(path, preload=False)
    if suffix in (".fif", ".fif.gz"):
        return _read_fif(path)
    if suffix == ".set":
        return _read_eeglab(path)
    if suffix == ".cnt":
        return _read_cnt(path)
    if suffix in (".raw", ".egi"):
        # read_raw does not know these suffixes.
        return mne.io.read_raw_egi(path, preload=False)
    if suffix == ".data":
        return mne.io.read_raw_nicolet(path, ch_type="eeg", preload=False)
    if re.fullmatch(r"\.ns[1-6]", suffix):
        return mne.io.read_raw_nsx(path, preload=False)
    if suffix == ".mat":
        return _read_fieldtrip(path)
    if suffix in _NAMES or suffix in FOLDER_SUFFIXES or suffix in NAMED_ONLY:
        return mne.io.read_raw(path, preload=False)
    try:
        return mne.io.read_raw(path, preload=False)
    except ValueError as error:
        if "Unsupported file type" not in str(error):
            raise
        raise RecordingError(
            path,
            f"it is no recording in a known format ({suffix or 'no suffix'})",
            "name the recording's header file, or export it as EDF or BrainVision",
        ) from error


def _read_fif(path: Path) -> mne.io.BaseRaw | StoredTrials:
    if NOT_SIGNALS.search(path.name):
        raise RecordingError(
            path,
            "by its name it holds no signals (events, averages, a montage ...)",
            "name the recording; an event file is given with events=",
        )
    if not _EPOCHS_NAME.search(path.name):
        try:
            return mne.io.read_raw_fif(path, preload=False)
        except ValueError as error:
            # Epochs whose name does not say so.
            if "No raw data" not in str(error):
                raise
    return trials_of_epochs(mne.read_epochs(path, preload=False), path)


def _read_eeglab(path: Path) -> mne.io.BaseRaw | StoredTrials:
    # MNE offers no other way to ask which of the two a .set file holds.
    try:
        return mne.io.read_raw_eeglab(path, preload=False)
    except TypeError as error:
        if "number of trials" not in str(error):
            raise
    return trials_of_epochs(mne.io.read_epochs_eeglab(path), path)


def _read_fieldtrip(path: Path) -> mne.io.BaseRaw | StoredTrials:
    try:
        return mne.io.read_raw_fieldtrip(path, info=None)
    except RuntimeError as error:
        if "trial" not in str(error):
            raise
    return trials_of_epochs(mne.read_epochs_fieldtrip(path, info=None), path)


def _read_cnt(path: Path) -> mne.io.BaseRaw:
    """Tell Neuroscan from ANT by content: ANT's library crashes on the other."""
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic[:4] in (b"RIFF", b"RF64"):
        return mne.io.read_raw_ant(path, preload=False)
    if magic != b"Version ":
        raise RecordingError(
            path, "it is neither a Neuroscan nor an ANT .cnt file", FRESH_COPY
        )
    try:
        return mne.io.read_raw_cnt(path, preload=False)
    except RuntimeError as error:
        if "data_format" not in str(error):
            raise
    _check_cnt_size(path)
    # 32-bit samples read as 16-bit ones alternate between high and low words.
    roughness = {}
    for data_format in ("int16", "int32"):
        raw = mne.io.read_raw_cnt(path, data_format=data_format, preload=True)
        # Relative to the spread: a wrong width changes the unit as well.
        X = raw.get_data()
        spread = np.maximum(X.std(axis=1), np.finfo(float).tiny)
        roughness[data_format] = float(np.median(np.diff(X).std(axis=1) / spread))
    best, other = sorted(roughness, key=roughness.__getitem__)
    if roughness[best] > 0.5 * roughness[other]:
        raise RecordingError(
            path,
            "its header does not say whether samples have 16 or 32 bits, and "
            "neither reads as a smooth signal",
            "export the recording as EDF or BrainVision with its own software",
        )
    warnings.warn(f"samples are read as {best}, which is smooth", stacklevel=2)
    return mne.io.read_raw_cnt(path, data_format=best, preload=False)


def _check_cnt_size(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(900)
    n_channels = int.from_bytes(head[370:372], "little")
    n_samples = int.from_bytes(head[864:868], "little")
    promised = 900 + n_channels * (75 + 2 * n_samples)
    size = path.stat().st_size
    if size < promised:
        raise RecordingError(
            path,
            f"it is cut short, or its header is damaged: it promises {promised} bytes "
            f"or more, {size} are there",
            FRESH_COPY,
        )


def _check_continuous(path: Path, raw: mne.io.BaseRaw) -> None:
    if not raw.ch_names:
        raise RecordingError(
            path,
            "it holds annotations and no signal channels",
            "read the recording it belongs to; leave this file out with include=",
        )
    if raw.n_times < 1:
        raise RecordingError(path, "it holds no samples", FRESH_COPY)
    sfreq = float(raw.info["sfreq"])
    if not 0 < sfreq < 1e6:
        raise RecordingError(
            path, f"its header is damaged: the rate reads {sfreq:g} Hz", FRESH_COPY
        )


def _retype(raw: mne.io.BaseRaw) -> list[str]:
    """Give channels their type where the format calls everything EEG."""
    types = {}
    for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True):
        if kind != "eeg":
            continue
        bare = re.sub(r"(?i)^(eeg|pol)[ _-]+", "", name.strip())
        for other, pattern in _WHOLE_NAME.items():
            if pattern.match(bare):
                types[name] = other
    if types:
        # MNE warns of volts becoming NA; the samples stay as they are.
        raw.set_channel_types(types, on_unit_change="ignore")
    return list(types)


def _faults_of(path: Path, messages: list[str]) -> list[Fault]:
    """Return faults that a reader mentions in a warning and reads over."""
    faults = []
    for message in messages:
        if "Invalid tag with only" in message:
            faults.append(Fault(str(path), CUT_SHORT, FRESH_COPY))
    return list(dict.fromkeys(faults))


def _unscaled(messages: list[str]) -> frozenset[str]:
    """Return the channels whose physical range the header leaves out."""
    found: set[str] = set()
    for message in messages:
        match = re.search(r"Physical range is not defined in .*?: (.*)", message)
        if match:
            found |= {name.strip() for name in match[1].split(",")}
    return frozenset(found)
