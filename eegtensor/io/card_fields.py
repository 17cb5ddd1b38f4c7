"""The fields of a dataset card, checked as it is read."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegtensor._check import fail, listing


@dataclass(frozen=True, eq=False)
class Card:
    """What is known of a dataset before it is opened.

    Attributes
    ----------
    name, title, paradigm : str
    source : dict
        urls (list) and, where there is one, doi.
    licence, licence_note : str
        SPDX identifier or the source's words; what else to know of it.
    citation : dict
        text and, where there is one, doi.
    n_subjects : int
    n_sessions : int | (int, int)
        Sessions of each person, or the least and the most.
    events : dict
        Class name -> code, annotation or list of them, as in a local copy.
    channels : tuple of str
    sfreq : float
        Hertz.
    window : (float, float)
        Seconds from the event, half open.
    band : (low, high) | None
        Hertz; None leaves signals as they were recorded.
    bands : list of (low, high) | None
        A filter bank, used instead of `band`.
    settings_from : str
        Where window and bands come from.
    local : dict | None
        Layout of a local copy: folder, include, names, read, event rules.
    formats : dict
        Suffix -> what differs in a file of that format (events, window).
    fetch : dict | None
        How it is downloaded: ``{"moabb": ...}`` or ``{"files": ...}``.
    checksums : dict
        File -> SHA-256 (hex).
    simulate : dict | None
        Arguments of `simulate_trials`, for a card without files.
    notes : str
    """

    name: str
    title: str
    paradigm: str
    source: dict[str, Any]
    licence: str
    citation: dict[str, Any]
    n_subjects: int
    n_sessions: int | tuple[int, int]
    events: dict[str, Any]
    channels: tuple[str, ...]
    sfreq: float
    window: tuple[float, float]
    band: tuple[float | None, float | None] | None
    settings_from: str
    licence_note: str = ""
    bands: list[tuple[float, float]] | None = None
    local: dict[str, Any] | None = None
    formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    fetch: dict[str, Any] | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    simulate: dict[str, Any] | None = None
    notes: str = ""

    @property
    def folder(self) -> str:
        """Name of the local copy's folder."""
        return (self.local or {}).get("folder", self.name)

    @property
    def fetch_kind(self) -> str:
        """ "moabb", "files", or "" where it cannot be downloaded."""
        return next(iter(self.fetch)) if self.fetch else ""

    @property
    def has_event_tables(self) -> bool:
        """Whether events are made from a rule of the card, not read from files."""
        local = self.local or {}
        return "blocks" in local or "scoring" in local


_Check = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value.strip()


def _mapping(*required: str, optional: tuple[str, ...] = ()) -> _Check:
    def check(value: Any) -> dict[str, Any]:
        allowed = {*required, *optional}
        wrong = not isinstance(value, Mapping) or not set(required) <= set(value)
        if wrong or not (set(value) <= allowed):
            parts = [listing(required)] if required else []
            parts += [f"at most {listing(optional)}"] if optional else []
            raise ValueError(f"a mapping with {' and '.join(parts)}")
        return dict(value)

    return check


def _source(value: Any) -> dict[str, Any]:
    source = _mapping("urls", optional=("doi",))(value)
    urls = source["urls"]
    if not isinstance(urls, list) or not urls or not all(map(_text, urls)):
        raise ValueError("a mapping whose urls are a list of texts")
    return source


def _free(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a mapping")
    return dict(value)


def _events(value: Any) -> dict[str, Any]:
    named = isinstance(value, Mapping) and value
    if not named or not all(isinstance(name, str) for name in value):
        raise ValueError("a mapping from class names (texts, quoted) to event codes")
    return dict(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number from 1 up")
    return value


def _sessions(value: Any) -> int | tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        return _count(value[0]), _count(value[1])
    try:
        return _count(value)
    except ValueError:
        raise ValueError("a whole number, or a list of the least and most") from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number")
    if not math.isfinite(value) or value <= 0:
        raise ValueError("a number above 0")
    return float(value)


def _names(value: Any) -> tuple[str, ...]:
    texts = isinstance(value, list) and all(isinstance(v, str) for v in value)
    if not texts or not value or len(set(value)) < len(value):
        raise ValueError("a list of different channel names")
    return tuple(value)


def _interval(value: Any) -> tuple[float, float]:
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not all(isinstance(v, (int, float)) for v in value):
        raise ValueError("a list of two numbers")
    if not value[0] < value[1]:
        raise ValueError("a list of two numbers, the smaller first")
    return float(value[0]), float(value[1])


def _band(value: Any) -> tuple[float | None, float | None] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and value.count(None) == 1:
        low, high = value
        return (None if low is None else _number(low)), (
            None if high is None else _number(high)
        )
    return _interval(value)


def _bands(value: Any) -> list[tuple[float, float]]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of [low, high]")
    return [_interval(v) for v in value]


def _checksums(value: Any) -> dict[str, str]:
    sums = _free(value)
    for name, digest in sums.items():
        hexadecimal = isinstance(digest, str) and len(digest) == 64
        if not hexadecimal or set(digest) - set("0123456789abcdef"):
            raise ValueError(f"a mapping from files to SHA-256 ({name} has none)")
    return sums


_LOCAL = ("folder", "include", "names", "events", "read", "blocks", "scoring")
# Rules that would else fail in the middle of a recording, and blame its file.
_RULES: dict[str, _Check] = {
    "blocks": _mapping("length", "files"),
    "scoring": _mapping("partner", "shared", "length"),
    "moabb": _mapping("class", optional=("kwargs", "shift")),
    "files": _mapping("base_url", optional=("sums", "include", "list")),
}


def _ruled(*allowed: str) -> _Check:
    check = _mapping(optional=allowed)

    def nested(value: Any) -> dict[str, Any]:
        fields = check(value)
        for name in fields.keys() & _RULES.keys():
            try:
                _RULES[name](fields[name])
            except ValueError as error:
                raise ValueError(f"{name} as {error}") from None
        return fields

    return nested


def _local(value: Any) -> dict[str, Any]:
    local = _ruled(*_LOCAL)(value)
    names = local.get("names", "")
    try:
        # Without a named group it is a template, and "*.edf" no pattern.
        re.compile(names if "(?P<" in names else "")
    except re.error as error:
        raise ValueError(f"a regular expression as names ({error})") from None
    return local


_REQUIRED: dict[str, _Check] = {
    "name": _text,
    "title": _text,
    "paradigm": _text,
    "source": _source,
    "licence": _text,
    "citation": _mapping("text", optional=("doi",)),
    "n_subjects": _count,
    "n_sessions": _sessions,
    "events": _events,
    "channels": _names,
    "sfreq": _number,
    "window": _interval,
    "band": _band,
    "settings_from": _text,
}
_OPTIONAL: dict[str, _Check] = {
    "licence_note": _text,
    "bands": _bands,
    "local": _local,
    "formats": _free,
    "fetch": _ruled("moabb", "files"),
    "checksums": _checksums,
    "simulate": _free,
    "notes": _text,
}


def parse_card(content: Any, path: Path) -> Card:
    """Return a card from a YAML file's content.

    Raises
    ------
    EEGTensorError
        Naming the file, the field and what it must be.
    """
    where = f"The card {path}"
    if not isinstance(content, Mapping):
        fail(f"{where} is no mapping of fields", fix="see datasets/README.md")
    checks = {**_REQUIRED, **_OPTIONAL}
    for name in content:
        if name not in checks:
            near = difflib.get_close_matches(str(name), checks, n=1)
            fail(
                f"{where} has the unknown field {name!r}",
                fix=f"did you mean {near[0]!r}?" if near else "leave it out",
            )
    missing = [name for name in _REQUIRED if name not in content]
    if missing:
        fail(f"{where} lacks the fields {listing(missing, 20)}", fix="add them")
    values = {}
    for name, value in content.items():
        try:
            values[name] = checks[name](value)
        except ValueError as error:
            fail(
                f"{where}: the field {name!r} is {value!r}",
                fix=f"give {error}",
                cause=error,
            )
    if values["name"] != path.stem:
        fail(
            f"{where} calls itself {values['name']!r}",
            fix="give file and card one name",
        )
    if not ({"local", "simulate"} & set(values)):
        fail(f"{where} has neither local nor simulate", fix="say how it is opened")
    kinds = set(values.get("fetch", {}))
    if len(kinds) > 1:
        fail(
            f"{where}: the field 'fetch' has {listing(sorted(kinds))}",
            fix="give one of moabb and files",
        )
    return Card(**values)
