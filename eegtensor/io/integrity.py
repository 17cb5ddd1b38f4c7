"""Damage that readers pass over or misname: sizes, companions, line ends.

Every check reads a header and the file's size, never the samples.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from eegtensor.io.errors import Fault, RecordingError
from eegtensor.io.explain import FRESH_COPY, READ_AS_IS


class Findings(NamedTuple):
    """What was found: `faults` can be read over, `notes` are for the log."""

    faults: list[Fault]
    notes: list[str]


def check_file(path: Path, suffix: str) -> Findings:
    """Check a recording's file before a reader opens it.

    Raises
    ------
    RecordingError
        If nothing can be read from it.
    """
    if path.is_dir():
        return Findings([], [])
    size = path.stat().st_size
    if size == 0:
        raise RecordingError(path, "the file is empty (0 bytes)", FRESH_COPY)
    if suffix in (".edf", ".bdf"):
        return _check_edf(path, size, suffix)
    if suffix in (".vhdr", ".ahdr"):
        return _check_brainvision(path)
    if suffix == ".gdf":
        _check_gdf(path, size)
    if suffix == ".cnt":
        _check_riff(path, size)
    return Findings([], [])


def _check_edf(path: Path, size: int, suffix: str) -> Findings:
    kind = suffix[1:].upper()
    with open(path, "rb") as file:
        head = file.read(256)
        magic = b"\xffBIOSEMI" if kind == "BDF" else b"0       "
        if head[:8] != magic:
            raise RecordingError(
                path,
                f"it is no {kind} file: it does not begin with the {kind} version",
                FRESH_COPY,
            )
        if len(head) < 256:
            raise _cut_header(path, size, 256)
        n_signals = _header_int(path, head[252:256], "number of signals")
        n_bytes = _header_int(path, head[184:192], "number of header bytes")
        n_records = _header_int(path, head[236:244], "number of data records")
        seconds = _header_float(path, head[244:252], "duration of a data record")
        if n_signals < 1 or n_bytes != 256 * (n_signals + 1) or seconds < 0:
            raise RecordingError(
                path,
                f"its header contradicts itself: {n_signals} signals, {n_bytes} "
                f"header bytes, data records of {seconds:g} s",
                FRESH_COPY,
            )
        if size < n_bytes:
            raise _cut_header(path, size, n_bytes)
        signals = file.read(n_bytes - 256)
        # A mebibyte has thousands of line feeds: enough to tell, and quick to read.
        body = file.read(1 << 20)
    if _line_ends_damaged(body):
        raise RecordingError(
            path,
            "every line feed in its binary data is preceded by a carriage return: "
            "git or a text-mode transfer damaged it",
            "fetch it again as a binary file (git: add '*.edf -text' to "
            ".gitattributes)",
        )
    # Per signal: label 16, transducer 80, dimension 8, four limits 8 each,
    # prefilter 80, then the samples per data record.
    lengths = [
        _header_int(path, signals[i : i + 8], "samples per data record")
        for i in range(216 * n_signals, 224 * n_signals, 8)
    ]
    if min(lengths) < 1:
        raise RecordingError(
            path, "its header promises signals without samples", FRESH_COPY
        )
    # BDF samples have 24 bits.
    record = sum(lengths) * (3 if kind == "BDF" else 2)
    there = (size - n_bytes) / record
    if there < 1:
        raise RecordingError(
            path,
            f"it holds a header and {there:.2g} of its first data record only",
            FRESH_COPY,
        )
    return _records_findings(path, n_records, there)


def _records_findings(path: Path, promised: int, there: float) -> Findings:
    # -1 is what EDF prescribes while a recording runs.
    if promised < 0:
        note = "the recorder never wrote the number of data records; it is inferred"
        return Findings([], [note])
    if there < promised:
        fault = (
            f"it is cut short: the header promises {promised} data records, the "
            f"file holds {there:.4g}"
        )
        return Findings([Fault(str(path), fault, f"{READ_AS_IS}; or {FRESH_COPY}")], [])
    if there > promised:
        return Findings([], [f"{there - promised:.4g} data records past the last"])
    return Findings([], [])


def _cut_header(path: Path, size: int, wanted: int) -> RecordingError:
    return RecordingError(
        path,
        f"it ends within its header ({size} of at least {wanted} bytes)",
        FRESH_COPY,
    )


def _header_float(path: Path, field: bytes, what: str) -> float:
    text = field.decode("latin1").strip("\0 ")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e15:
        raise RecordingError(
            path, f"its header is damaged: the {what} reads {text!r}", FRESH_COPY
        )
    return value


def _header_int(path: Path, field: bytes, what: str) -> int:
    value = _header_float(path, field, what)
    if value != int(value):
        raise RecordingError(
            path, f"its header is damaged: the {what} reads {value:g}", FRESH_COPY
        )
    return int(value)


def _line_ends_damaged(body: bytes) -> bool:
    # In untouched binary data one line feed in 256 has one before it.
    line_feeds = body.count(b"\n")
    return line_feeds > 20 and body.count(b"\r\n") == line_feeds


def _check_brainvision(path: Path) -> Findings:
    # latin1 decodes any bytes; keys and file names are ASCII mostly.
    text = path.read_bytes().decode("latin1")

    def entry(key: str) -> str | None:
        match = re.search(rf"(?im)^\s*{key}\s*=\s*(.*?)\s*$", text)
        # The header may write its own name as $b.
        return match[1].replace("$b", path.stem) if match and match[1] else None

    faults: list[Fault] = []
    marker, data = entry("MarkerFile"), entry("DataFile")
    if marker and not (path.parent / marker).exists():
        faults.append(
            Fault(
                str(path),
                f"its marker file {marker!r} is missing, and with it the events",
                f"put the marker file beside it; {READ_AS_IS}, without those events",
            )
        )
    if data and not (path.parent / data).exists():
        raise RecordingError(
            path,
            f"its data file {data!r} is missing",
            f"put {data!r} beside {path.name!r}; if it was renamed, rename it back "
            "or correct DataFile= in the header",
        )
    widths = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
    width = widths.get((entry("BinaryFormat") or "").upper())
    channels = entry("NumberOfChannels") or ""
    binary = (entry("DataFormat") or "BINARY").upper() == "BINARY"
    if data and binary and width and channels.isdigit() and int(channels):
        # A V-Amp file (.ahdr) holds one channel more than its header names.
        frame = width * (int(channels) + (path.suffix.lower() == ".ahdr"))
        n_times, rest = divmod((path.parent / data).stat().st_size, frame)
        if marker and not rest and (path.parent / marker).exists():
            faults += _late_markers(path, path.parent / marker, n_times)
        if rest:
            faults.append(
                Fault(
                    str(path),
                    f"its data file {data!r} is cut short or damaged: {rest} bytes "
                    f"are left over after the last whole sample of {frame} bytes",
                    f"{READ_AS_IS}; or get a fresh copy of the data file",
                )
            )
    return Findings(faults, [])


def _late_markers(path: Path, marker: Path, n_times: int) -> list[Fault]:
    """Return a fault if markers lie beyond the last sample: the data were cut."""
    text = marker.read_bytes().decode("latin1")
    positions = re.findall(r"(?m)^\s*Mk\d+\s*=[^,]*,[^,]*,\s*(\d+)", text)
    late = sum(int(position) > n_times for position in positions)
    if not late:
        return []
    return [
        Fault(
            str(path),
            f"its data are cut short: {late} of its {len(positions)} markers lie "
            f"beyond the last of {n_times} samples",
            f"{READ_AS_IS}; or {FRESH_COPY}",
        )
    ]


def _check_gdf(path: Path, size: int) -> None:
    with open(path, "rb") as file:
        head = file.read(256)
    if head[:3] != b"GDF":
        raise RecordingError(
            path, "it is no GDF file: it does not begin with GDF", FRESH_COPY
        )
    if len(head) < 256:
        raise _cut_header(path, size, 256)
    # Version 1 keeps 4 bytes for the number of signals, version 2 keeps 2.
    width = 4 if head[4:5] == b"1" else 2
    n_signals = int.from_bytes(head[252 : 252 + width], "little")
    wanted = 256 * (n_signals + 1)
    if n_signals < 1 or size <= wanted:
        raise _cut_header(path, size, wanted)


def _check_riff(path: Path, size: int) -> None:
    """Check a container's promised size: the ANT library crashes on less."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF":
        promised = int.from_bytes(head[4:8], "little") + 8
    elif head[:4] == b"RF64":
        promised = int.from_bytes(head[4:12], "little") + 12
    else:
        return
    if size < promised:
        raise RecordingError(
            path,
            f"it is cut short: {size} of {promised} bytes are there",
            FRESH_COPY,
        )
