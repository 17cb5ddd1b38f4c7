"""One set of channels for recordings that name, order and lack them differently."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_option, fail, listing
from eegtensor.io.errors import RecordingError
from eegtensor.io.montage import standard_positions

logger = logging.getLogger("eegtensor")

Picks = str | Sequence[str] | None

_OLD_NAMES = {"t3": "T7", "t4": "T8", "t5": "P7", "t6": "P8"}
_TYPES = ("eeg", "seeg", "ecog", "dbs")
_PREFIX = re.compile(r"(?i)^eeg[ _:-]+(?=[a-z])")
# Reference names that EDF software appends; "Fp1-F7" is a channel of its own.
_ENDING = re.compile(r"(?i)[ _-]+(ref|le|a1a2|a1\+a2|avg|av|ar)$")


@functools.cache
def _standard_names() -> dict[str, str]:
    # Old names of temporal channels are in the montage too: the new ones win.
    names = {name.casefold(): name for name in standard_positions()}
    return {**names, **_OLD_NAMES}


def canonical_name(name: str) -> str:
    """Return a channel's name in today's 10-20 spelling.

    Case, surrounding dots ("Fc5."), the prefix "EEG", the endings "-Ref", "-LE"
    and "-A1A2" are mended, T3 T4 T5 T6 become T7 T8 P7 P8; a name that is not
    of the 10-05 system keeps its spelling.
    """
    bare = _PREFIX.sub("", name.strip().strip(".").strip())
    bare = _ENDING.sub("", bare).strip(". ")
    return _standard_names().get(bare.casefold(), bare or name)


def canonical_names(names: Sequence[str]) -> list[str]:
    """Return `canonical_name` of each, or the name itself where two would collide."""
    new = [canonical_name(name) for name in names]
    # T3 and T7 in one file are two electrodes there, whatever we call them.
    count = Counter(name.casefold() for name in new)
    return [
        old if count[name.casefold()] > 1 else name
        for old, name in zip(names, new, strict=True)
    ]


@dataclass(frozen=True)
class Channels:
    """The channels of one recording, as `plan_channels` needs them.

    Attributes
    ----------
    path : Path
    names : list of str
        Canonical, one for each channel of the file.
    sources : list of str
        As the file names them.
    types : list of str
    bads : frozenset of str
        Canonical names of channels to leave out.
    positions : dict of str to ndarray, shape (3,)
        Head positions that the file gives.
    """

    path: Path
    names: list[str]
    sources: list[str]
    types: list[str]
    bads: frozenset[str]
    positions: dict[str, NDArray]


def channels_of(path: Path, info: mne.Info) -> Channels:
    """Return a recording's channels."""
    names = canonical_names(info["ch_names"])
    by_source = dict(zip(info["ch_names"], names, strict=True))
    positions = {}
    for name, ch in zip(names, info["chs"], strict=True):
        loc = ch["loc"][:3]
        # Some files hold millimetres where metres belong: no head is that large.
        if np.isfinite(loc).all() and 0 < np.linalg.norm(loc) < 0.5:
            positions[name] = loc
    types = info.get_channel_types() if names else []
    bads = frozenset(by_source[name] for name in info["bads"])
    return Channels(path, names, list(info["ch_names"]), types, bads, positions)


@dataclass(frozen=True)
class Plan:
    """The channels of the trials, and how each recording provides them."""

    names: list[str]
    types: list[str]
    positions: dict[str, NDArray]
    present: Mapping[Path, list[str]]

    def missing(self, path: Path) -> list[str]:
        """Return the channels that must be interpolated in a recording."""
        return [n for n in self.names if n not in self.present[path]]


def plan_channels(
    recordings: Sequence[Channels],
    *,
    picks: Picks = None,
    channels: str = "intersection",
    exclude: Iterable[str] = (),
) -> Plan:
    """Return the channels that all recordings will have.

    Parameters
    ----------
    recordings : sequence of Channels
    picks : str | list of str | None
        Channel names or types; None takes all EEG channels (intracranial ones
        where a recording has no EEG).
    channels : str
        "intersection" or "interpolate".
    exclude : iterable of str
        Names to leave out where picks does not name them.

    Raises
    ------
    EEGTensorError
        If no channel is common to all, or a picked name is missing.
    """
    check_option("channels", channels, ("intersection", "interpolate"))
    restore = channels == "interpolate"
    wanted = [picked(r, picks, set(exclude), restorable=restore) for r in recordings]
    good = [
        [n for n in names if n not in r.bads]
        for r, names in zip(recordings, wanted, strict=True)
    ]
    types: dict[str, str] = {}
    for r in recordings:
        for name, kind in zip(r.names, r.types, strict=True):
            types.setdefault(name, kind)
    # The first recording's order, so that reading one more adds at the end only.
    union = list(dict.fromkeys(n for names in wanted for n in names))
    if not restore:
        names = [n for n in union if all(n in g for g in good)]
    else:
        names = _restorable(union, recordings, good)
        absent = [p for p in _names_in(picks) if canonical_name(p) not in names]
        if absent:
            fail(
                f"No recording has the channels {listing(absent)}",
                fix="correct picks=",
            )
    if not names:
        _raise_nothing_common(recordings, good)
    _report(recordings, good, names, union)
    present = {
        r.path: [n for n in names if n in g]
        for r, g in zip(recordings, good, strict=True)
    }
    return Plan(
        names, [types[n] for n in names], _positions(recordings, names), present
    )


def picked(
    r: Channels,
    picks: Picks,
    exclude: set[str] | None = None,
    *,
    restorable: bool = False,
) -> list[str]:
    """Return the names that `picks` means in one recording.

    With ``restorable`` it may lack names of the 10-05 system.

    Raises
    ------
    RecordingError
        If it has no EEG, or not the channels or types named.
    """
    exclude = exclude or set()
    if picks is None:
        for kind in _TYPES:
            found = [
                n
                for n, t in zip(r.names, r.types, strict=True)
                if t == kind and n not in exclude
            ]
            if found:
                return found
        kinds = Counter(r.types)
        raise RecordingError(
            r.path,
            "it has no EEG channels; it has "
            + listing(f"{n} {kind}" for kind, n in kinds.items()),
            "name the channels or types to read with picks=",
        )
    asked = [picks] if isinstance(picks, str) else list(picks)
    if not asked or not all(isinstance(item, str) for item in asked):
        fail(
            f"picks={picks!r} are no names",
            why="Numbers would mean other channels in every recording",
            fix="give channel names or types, or None for all EEG channels",
        )
    if asked == ["all"]:
        return list(r.names)
    by_fold = {n.casefold(): n for n in r.names}
    # The file's own spelling is accepted too.
    by_fold.update({s.casefold(): n for s, n in zip(r.sources, r.names, strict=True)})
    found, unknown = [], []
    for item in asked:
        name = by_fold.get(
            item.casefold(), by_fold.get(canonical_name(item).casefold())
        )
        if name is not None:
            found.append(name)
        elif item.lower() in r.types or item.lower() == "data":
            accepted = _TYPES if item.lower() == "data" else (item.lower(),)
            found += [n for n, t in zip(r.names, r.types, strict=True) if t in accepted]
        elif not (restorable and canonical_name(item) in standard_positions()):
            unknown.append(item)
    if unknown:
        raise RecordingError(
            r.path,
            f"it has no channels or types {listing(unknown)}; it has "
            f"{listing(r.names, 40)} of the types {listing(dict.fromkeys(r.types))}",
            "correct picks=, or leave the recording out with include=",
        )
    return list(dict.fromkeys(found))


def _names_in(picks: Picks) -> list[str]:
    """Return those of `picks` that name channels of the 10-05 system."""
    asked = [picks] if isinstance(picks, str) else list(picks or [])
    return [p for p in asked if canonical_name(p) in standard_positions()]


def _restorable(
    union: list[str], recordings: Sequence[Channels], good: list[list[str]]
) -> list[str]:
    """Return the channels that every recording has or can interpolate."""
    known = _positions(recordings, union)
    names = []
    for name in union:
        if name in known or all(name in g for g in good):
            names.append(name)
        else:
            logger.warning(
                "channel %s is left out: it has no known position to interpolate it at",
                name,
            )
    for r, g in zip(recordings, good, strict=True):
        sources = [n for n in g if n in known]
        lacking = [n for n in names if n not in g]
        # MNE fits a sphere through the electrodes, which takes four.
        if lacking and len(sources) < 4:
            fail(
                f"{r.path} lacks {listing(lacking)}, and has only {len(sources)} "
                "channels of known position to interpolate them from",
                fix="leave it out with include=, or read with channels='intersection'",
            )
    return names


def _raise_nothing_common(
    recordings: Sequence[Channels], good: list[list[str]]
) -> None:
    kinds: dict[tuple[str, ...], list[str]] = {}
    for r, names in zip(recordings, good, strict=True):
        kinds.setdefault(tuple(names), []).append(r.path.name)
    lines = [
        f"{listing(paths, 3)} with {listing(names, 12) or 'none'}"
        for names, paths in kinds.items()
    ]
    fail(
        "No channel is common to all recordings: " + "; ".join(lines),
        fix="leave recordings out with include=, or read with channels='interpolate'",
    )


def _report(
    recordings: Sequence[Channels],
    good: list[list[str]],
    names: list[str],
    union: list[str],
) -> None:
    lost = [n for n in union if n not in names]
    if lost:
        where = [
            r.path.name for r, g in zip(recordings, good, strict=True) if {*lost} - {*g}
        ]
        logger.warning(
            "channels %s are left out: absent or bad in %s",
            listing(lost),
            listing(where, 4),
        )
    for r, g in zip(recordings, good, strict=True):
        missing = [n for n in names if n not in g]
        if missing:
            logger.warning("%s: channels %s are interpolated", r.path, listing(missing))
    renamed = {
        s: n
        for r in recordings
        for s, n in zip(r.sources, r.names, strict=True)
        if s != n and n in names
    }
    if renamed:
        logger.info(
            "channels renamed: %s", listing(f"{a} -> {b}" for a, b in renamed.items())
        )


def _positions(
    recordings: Sequence[Channels], names: Sequence[str]
) -> dict[str, NDArray]:
    """Return one head's positions: the first file's own, else the standard's."""
    # A mixture of two heads' positions would be no head's.
    first = recordings[0].positions
    if all(name in first for name in names):
        return {name: first[name] for name in names}
    standard = standard_positions()
    found = {name: standard[name] for name in names if name in standard}
    return found or {name: first[name] for name in names if name in first}
