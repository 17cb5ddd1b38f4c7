"""From recordings of any kind to a fitted codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eegtensor._check import check_option, fail, listing
from eegtensor.tokens._files import check_alike, is_path, open_files
from eegtensor.tokens._kinds import KINDS, Codec
from eegtensor.tokens._scaling import check_rate, scaled
from eegtensor.tokens._signals import read_signals, scale_of
from eegtensor.training.seeds import as_seed

# What kinds take beside a rate and a seed, with the values that say nothing.
OPTIONS: dict[str, Any] = {
    "spatial": False,
    "n_states": None,
    "size": None,
    "fixes": None,
    "n_codes": None,
    "n_steps": None,
}
_LEAST = {"n_states": 0, "n_codes": 2, "n_steps": 1}


class Fitted(NamedTuple):
    """What a fit learns.

    Attributes
    ----------
    codec : Codec
    ch_names : tuple of str
        Of a spatial codec; empty where unknown, or where channels are coded.
    sfreq : float
        Hertz, of the first recording.
    """

    codec: Codec
    ch_names: tuple[str, ...]
    sfreq: float


def fit_codec(
    recordings: Any,
    *,
    kind: str,
    bits_per_second: float,
    options: Mapping[str, Any],
    random_state: int | None,
    sfreq: float | None,
    ch_names: Sequence[str] | None,
) -> Fitted:
    """Return a codec fitted on recordings; see `EEGTokenizer.fit`.

    Parameters
    ----------
    recordings : recording or list of recordings
    kind : str
    bits_per_second : float
    options : mapping
        A value for each of `OPTIONS`.
    random_state : int | None
    sfreq : float | None
    ch_names : sequence of str | None
    """
    found = KINDS[check_option("kind", kind, tuple(KINDS))]
    _check_options(kind, found.takes, options)
    bits_per_second = check_rate(bits_per_second)
    seed = as_seed(random_state)
    many = recordings if isinstance(recordings, (list, tuple)) else [recordings]
    check_alike(many)
    if many and is_path(many[0]):
        many = list(open_files(many))
    names = tuple(ch_names) if ch_names is not None else None
    read = [read_signals(x, sfreq, names) for x in many]
    if not read:
        fail("there are no recordings", fix="give at least one")
    codec: Codec = found.fit(
        read,
        [scaled(s, scale_of(s)) for s in read],
        bits_per_second=bits_per_second,
        random_state=seed,
        **{name: options[name] for name in found.takes},
    )
    known = read[0].ch_names if codec.mixing is not None else ()
    return Fitted(codec, known, read[0].sfreq)


def _check_options(kind: str, takes: Sequence[str], options: Mapping[str, Any]) -> None:
    idle = [
        name
        for name, nothing in OPTIONS.items()
        if name not in takes and options[name] != nothing
    ]
    if idle:
        fail(
            f"{listing(idle)} with kind={kind!r}",
            why="It has no such option",
            fix="leave it out, or choose another kind",
        )
    check_option("spatial", options["spatial"], (False, True))
    for name, least in _LEAST.items():
        value = options[name]
        if value is None:
            continue
        if not isinstance(value, (int, np.integer)) or value < least:
            fail(
                f"{name}={value!r}",
                fix=f"give a whole number, {least} or more, or None",
            )
