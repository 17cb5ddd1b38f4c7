"""The BIDS table of channels beside a recording."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mne
import pytest

from eegtensor.io import RecordingError, read_trials

Maker = Callable[..., mne.io.RawArray]
Saver = Callable[..., Path]
WINDOW = {"tmin": 0.0, "tmax": 1.0}


def table(path: Path, rows: list[str]) -> None:
    name = path.name.replace("_raw.fif", "_channels.tsv")
    (path.parent / name).write_text("\n".join(["name\ttype\tstatus", *rows]))


def test_types_and_bad_channels_are_taken(
    make_raw: Maker, save: Saver, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(make_raw(), "sub-1/sub-1_task-mi_raw.fif")
    assert read_trials(path, **WINDOW).ch_names == ["Fz", "C3", "Cz", "C4", "Pz"]
    table(path, ["Fz\tVEOG\tgood", "C3\tEEG\tbad", "Nothere\tEEG\tbad"])
    with caplog.at_level(logging.INFO, logger="eegtensor"):
        assert read_trials(path, **WINDOW).ch_names == ["Cz", "C4", "Pz"]
    assert "types of Fz from" in caplog.text and "C3 bad by" in caplog.text


def test_a_table_without_names_is_an_error(make_raw: Maker, save: Saver) -> None:
    path = save(make_raw(), "sub-1/sub-1_task-mi_raw.fif")
    (path.parent / "sub-1_task-mi_channels.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(RecordingError, match=r"_channels.tsv.*name, type and status"):
        read_trials(path, **WINDOW)
