"""What a reader's exception or warning means, in words for its user."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from eegtensor.io.errors import RecordingError

FRESH_COPY = "get a fresh copy of the file, or leave it out with include="
CUT_SHORT = "it is cut short: the file ends in the middle of its data"
READ_AS_IS = "on_bad='warn' (--on-bad warn) reads what is there"

# Warnings that mean nothing for the trials that are cut.
_HARMLESS = re.compile(
    r"unclosed file|Invalid measurement date|mixed sampling frequencies|"
    r"does not conform to MNE naming|This filename .* does not conform|"
    r"Limited \d+ annotation|"
    r"Number of records from the header|invalid value encountered|"
    r"not referenced to the same electrode|Unable to process|"
    r"MarkerFile .* not found|no longer be supported",
    re.IGNORECASE,
)


def explain(
    path: Path, error: Exception, format_name: str, messages: Sequence[str] = ()
) -> RecordingError:
    """Return the `RecordingError` that says what a reader's exception means.

    Parameters
    ----------
    path : Path
    error : Exception
        Whatever MNE or a package behind it raised.
    format_name : str
        As in "EDF".
    messages : sequence of str
        What the reader said before it gave up.
    """
    if isinstance(error, RecordingError):
        return error
    text = " ".join(str(error).split())
    fault, remedy = _words(path, error, text, format_name)
    # The exception that follows names an innocent part of the FIF tree.
    if any("Invalid tag with only" in message for message in messages):
        fault, remedy = CUT_SHORT, FRESH_COPY
    explained = RecordingError(path, fault, remedy)
    explained.__cause__ = error
    return explained


def _words(path: Path, error: Exception, text: str, kind: str) -> tuple[str, str]:
    package = re.search(r"pip install ([\w-]+)|No module named '([\w.]+)'", text)
    # MNE words a missing package as a RuntimeError.
    if package and isinstance(error, (ImportError, RuntimeError)):
        name = package[1] or package[2]
        return (
            f"reading {kind} needs the package {name!r}, which is not installed",
            f"pip install 'eegtensor[formats]' or pip install {name}",
        )
    if isinstance(error, FileNotFoundError):
        return _missing(path, error, text)
    if isinstance(error, PermissionError):
        return "the file may not be read", "change its permissions"
    if isinstance(error, MemoryError):
        return (
            "the recording does not fit into memory, or its header is damaged",
            "cut it into pieces, or " + FRESH_COPY,
        )
    if isinstance(error, NotImplementedError):
        return (
            f"this variant of {kind} is not readable ({_first(text)})",
            "export the recording as EDF, BrainVision or FIF with its own software",
        )
    if isinstance(error, UnicodeDecodeError):
        return f"its {kind} header holds bytes that are no text", FRESH_COPY
    return (
        f"it is damaged, cut short, or no {kind} file "
        f"({type(error).__name__} in the reader: {_first(text)})",
        FRESH_COPY,
    )


def _missing(path: Path, error: FileNotFoundError, text: str) -> tuple[str, str]:
    name = error.filename or ""
    if not name:
        # MNE raises many of these with a text only, without errno and filename.
        quoted = re.search(r"(?:tried|file:?|directory:)\s+'?([^'\s]+?\.\w+)'?", text)
        name = quoted[1] if quoted else ""
    missing = os.path.basename(str(name)) or _first(text)
    if missing == path.name:
        return "there is no such file", "correct the path"
    return (
        f"the file {missing!r}, which belongs to it, is missing",
        f"put {missing!r} beside {path.name!r}; if it was renamed, rename it back",
    )


def _first(text: str, limit: int = 140) -> str:
    text = text or "no message"
    return text if len(text) <= limit else text[:limit].rstrip() + " ..."


def notes_of(messages: list[str]) -> list[str]:
    """Return the warnings worth a line in the log, each once and shortened."""
    kept = [_first(" ".join(m.split()), 200) for m in messages]
    return [m for m in dict.fromkeys(kept) if m and not _HARMLESS.search(m)]
