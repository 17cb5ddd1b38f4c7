"""Recordings of files, as the tokenizer takes them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eegtensor._check import EEGTensorWarning, fail

# Drifts of an amplifier would take the bits of the EEG.
HIGH_PASS = 0.5


def is_path(x: Any) -> bool:
    """Return whether something names a file or folder."""
    return isinstance(x, (str, os.PathLike))


def check_alike(many: Sequence[Any]) -> None:
    """Raise where paths stand beside recordings."""
    n = sum(is_path(one) for one in many)
    if n and n < len(many):
        fail(
            f"{n} paths stand beside {len(many) - n} recordings",
            fix="open the files first, or give paths alone",
        )


def only_file(path: str | os.PathLike[str]) -> Any:
    """Return the recording that a path names, if it is one."""
    from eegtensor.io.discover import find_recordings

    found = find_recordings([path])[0]
    if len(found) > 1:
        fail(
            f"{path} holds {len(found)} recordings",
            why="Tokens are of one",
            fix="encode them one after the other",
        )
    return open_file(found[0])


def open_files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Any]:
    """Yield the recordings of files and folders, EEG channels, high-passed.

    Channels that the file marks as bad are left out.

    Raises
    ------
    EEGTensorError
        If nothing is found, a file cannot be read, or none of its channels is EEG.
    """
    from eegtensor.io.discover import find_recordings

    for path in find_recordings(list(paths))[0]:
        yield open_file(path)


def open_file(path: Path) -> Any:
    """Return the recording of one file, see `open_files`.

    A file of which a part can be read gives that part, and a warning.
    """
    import mne

    from eegtensor.io.discover import suffix_of
    from eegtensor.io.errors import RecordingError
    from eegtensor.io.explain import explain
    from eegtensor.io.formats import open_recording

    try:
        opened = open_recording(path)
    except RecordingError as error:
        raise RecordingError(path, error.fault, _ours(error.remedy)) from error
    raw = opened.signal
    if not isinstance(raw, mne.io.BaseRaw):
        fail(f"{path} holds trials", fix="read them with read_trials, and give Trials")
    picks = mne.pick_types(raw.info, eeg=True, exclude="bads")
    if not len(picks):
        fail(f"{path} has no EEG channel", fix="set its channel types")
    for fault in opened.faults:
        warnings.warn(
            f"{path} is read as far as it can be: {fault.fault}",
            EEGTensorWarning,
            stacklevel=4,
        )
    raw = raw.copy().pick(picks)
    try:
        raw.load_data(verbose="ERROR")
    # Readers pass on whatever they meet in the middle of a damaged file.
    except Exception as error:
        kind = suffix_of(path).lstrip(".").upper()
        found = explain(path, error, kind)
        raise RecordingError(path, found.fault, _ours(found.remedy)) from error
    return raw.filter(HIGH_PASS, None, verbose="ERROR")


def _ours(remedy: str) -> str:
    """Return a remedy without an option that only readers of trials have."""
    return remedy.replace(" with include=", ": name the others alone")
