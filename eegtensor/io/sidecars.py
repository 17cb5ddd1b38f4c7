"""The BIDS table of channels beside a recording: types, and which are bad."""

from __future__ import annotations

from pathlib import Path

import mne
import pandas as pd

from eegtensor._check import listing
from eegtensor.io.errors import RecordingError
from eegtensor.io.names import base_stem

# BIDS channel types (specification 1.10, EEG and iEEG) -> MNE's.
_TYPES = {
    "EEG": "eeg",
    "ECOG": "ecog",
    "SEEG": "seeg",
    "DBS": "dbs",
    "EOG": "eog",
    "HEOG": "eog",
    "VEOG": "eog",
    "EYEGAZE": "misc",
    "PUPIL": "misc",
    "ECG": "ecg",
    "EMG": "emg",
    "RESP": "resp",
    "GSR": "gsr",
    "TEMP": "temperature",
    "TRIG": "stim",
    "MISC": "misc",
    "REF": "misc",
    "AUDIO": "misc",
    "OTHER": "misc",
    "SYSCLOCK": "misc",
}


def apply_channels_table(path: Path, raw: mne.io.BaseRaw) -> list[str]:
    """Give channels the type and the status of ``_channels.tsv``, if it is there.

    Returns
    -------
    notes : list of str
        What was changed.

    Raises
    ------
    RecordingError
        If the table cannot be read.
    """
    file = path.parent / f"{base_stem(path)}_channels.tsv"
    if not file.is_file():
        return []
    try:
        table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
        names = table["name"].str.strip().tolist()
    except (ValueError, KeyError, OSError, UnicodeDecodeError) as error:
        raise RecordingError(
            path,
            f"its channel table {file.name!r} cannot be read "
            f"({type(error).__name__}: {error})",
            "give it the tab-separated columns name, type and status",
        ) from error
    notes = []
    now = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    if "type" in table:
        # Types that MNE has no word for keep what the reader said.
        kinds = (_TYPES.get(kind.strip().upper()) for kind in table["type"])
        types = {
            name: kind
            for name, kind in zip(names, kinds, strict=True)
            if name in now and kind is not None and kind != now[name]
        }
        if types:
            raw.set_channel_types(types, on_unit_change="ignore", verbose="ERROR")
            notes.append(f"types of {listing(types, 20)} from {file.name}")
    if "status" in table:
        status = table["status"].str.strip().str.lower()
        bad = [n for n, s in zip(names, status, strict=True) if s == "bad" and n in now]
        if bad:
            raw.info["bads"] = list(dict.fromkeys([*raw.info["bads"], *bad]))
            notes.append(f"{listing(bad, 20)} bad by {file.name}")
    return notes
