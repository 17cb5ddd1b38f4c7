"""Bad segments of a recording: tables, and annotations as MNE writes them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd

from eegtensor._check import fail, listing


def add_segments(raw: mne.io.BaseRaw, path: Path) -> None:
    """Annotate bad segments of a table or of a file that MNE wrote."""
    if not path.is_file():
        fail(f"{path} is no file", fix="name a file of bad segments")
    if path.suffix in (".fif", ".gz") or _starts_as_mne(path):
        _add_annotations(raw, path)
        return
    try:
        table = pd.read_csv(path, sep=None, engine="python", comment="#")
    except (ValueError, csv.Error) as error:
        fail(
            f"{path} cannot be read as a table: {error}",
            fix="give columns with a header and commas or tabs between, in UTF-8",
            cause=error,
        )
    missing = {"onset", "duration"} - set(table.columns)
    if missing:
        fail(
            f"{path} has no column {listing(sorted(missing))}",
            fix="give onset and duration in seconds from the first sample, and if "
            "you like description and channel",
        )
    if len(table) and table["onset"].astype(str).str.match(r"\d{4}-\d\d-\d\d").all():
        table = _without_dates(table, raw)
    onset = pd.to_numeric(table["onset"], errors="coerce").to_numpy(float)
    duration = pd.to_numeric(table["duration"], errors="coerce").to_numpy(float)
    wrong = ~((onset < raw.n_times / raw.info["sfreq"]) & (onset + duration > 0))
    wrong |= ~((duration > 0) & np.isfinite(duration))
    if wrong.any():
        fail(
            f"{path}, rows {listing((np.flatnonzero(wrong) + 1).tolist())}: no stretch "
            f"of a recording of {raw.times[-1]:.2f} s",
            fix="give onset and duration in seconds from the first sample",
        )
    names = [_channels_of(row) for row in table.to_dict("records")]
    unknown = {name for row in names for name in row} - set(raw.ch_names)
    if unknown:
        fail(
            f"{path} names channel {listing(sorted(unknown))}, the recording does not",
            fix="choose among " + listing(raw.ch_names, limit=40),
        )
    raw.annotations.append(
        onset + raw.first_time,
        duration,
        ["BAD_segment"] * len(table),
        ch_names=names,
    )


def _starts_as_mne(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().startswith(b"# MNE-Annotations")


def _add_annotations(raw: mne.io.BaseRaw, path: Path) -> None:
    """Add annotations of a file that MNE wrote."""
    own = raw.annotations.copy()
    try:
        raw.set_annotations(mne.read_annotations(path))
    except (ValueError, RuntimeError, OSError) as error:
        fail(
            f"{path} does not hold annotations of this recording: {error}",
            fix="give a table with columns onset and duration, in seconds from the "
            "first sample, and if you like channel",
            cause=error,
        )
    # In place: a sum, set again, would be moved where the recording has no date.
    if len(own):
        raw.annotations.append(own.onset, own.duration, own.description, own.ch_names)


def _without_dates(table: pd.DataFrame, raw: mne.io.BaseRaw) -> pd.DataFrame:
    """Return what is bad in a table of annotations by MNE, in seconds.

    MNE counts from 1970 where the recording has no date, and reads the table back
    with its first row as the origin.
    """
    dates = pd.to_datetime(table["onset"], errors="coerce", utc=True)
    origin = pd.Timestamp(0, tz="UTC")
    late = 0.0
    if raw.info["meas_date"] is not None and bool((dates.dt.year > 1970).all()):
        origin, late = pd.Timestamp(raw.info["meas_date"]), raw.first_time
    table = table.assign(onset=(dates - origin).dt.total_seconds() - late)
    if "description" in table:
        bad = table["description"].astype(str).str.upper().str.startswith("BAD")
        table = table[bad]
    return table


def _channels_of(row: dict[Any, Any]) -> tuple[str, ...]:
    """Return the channels that a row names, separated by colons; none for all."""
    named = row.get("channel", row.get("ch_names"))
    if named is None or pd.isna(named):
        return ()
    return tuple(name.strip() for name in str(named).split(":") if name.strip())
