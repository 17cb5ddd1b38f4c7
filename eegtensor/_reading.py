"""How recordings are read, as the command line says it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eegtensor._check import fail


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options of `read_as_said`."""
    group = parser.add_argument_group("how recordings are read")
    group.add_argument(
        "--tmin", type=float, metavar="S", help="window start, seconds from the event"
    )
    group.add_argument("--tmax", type=float, metavar="S", help="window end, excluded")
    group.add_argument(
        "--band", type=float, nargs=2, metavar=("LOW", "HIGH"), help="band-pass, hertz"
    )
    group.add_argument(
        "--bands",
        type=float,
        nargs="+",
        metavar="HZ",
        help="filter bank, LOW HIGH LOW HIGH ...; stacked on the channels",
    )
    group.add_argument("--sfreq", type=float, metavar="HZ", help="rate to resample to")
    group.add_argument(
        "--events",
        nargs="+",
        metavar="NAME[=CODE]",
        help="classes and the codes or annotations they stand for, as left=1 right=2",
    )
    group.add_argument("--picks", nargs="+", metavar="CH", help="channels or types")
    group.add_argument(
        "--reference", nargs="+", metavar="CH", help="average, or channels"
    )
    group.add_argument("--channels", help="intersection (default) or interpolate")
    group.add_argument(
        "--include", nargs="+", metavar="GLOB", help="recordings to take"
    )
    group.add_argument(
        "--names",
        metavar="TEMPLATE",
        help="where subject and session "
        "stand in the file name, as S{subject}_{session}.edf",
    )
    group.add_argument(
        "--on-bad",
        help="raise (default), drop or warn, at recordings "
        "that are damaged or implausible",
    )
    group.add_argument("--scale", type=float, help="volts per stored unit; default 1")
    group.add_argument(
        "--card",
        metavar="NAME",
        help="take window, band and events of "
        "this dataset card; a folder named as a card's takes that card's "
        "when no window is given",
    )


READING = (
    "tmin", "tmax", "band", "bands", "sfreq", "events", "picks", "reference",
    "channels", "include", "names", "on_bad", "scale",
)  # fmt: skip


def read_as_said(
    src: Sequence[str], given: dict[str, Any], store: str | None = None
) -> Any:
    """Read trials as the options say, as a dataset card does, or from a store."""
    from eegtensor.io import open_card, read_trials
    from eegtensor.store import is_store
    from eegtensor.trials import Trials

    settings = {k: given[k] for k in READING if given.get(k) is not None}
    if "bands" in settings:
        settings["bands"] = _pairs(settings["bands"])
    if "events" in settings:
        settings["events"] = event_words(settings["events"])
    if settings.get("reference") == ["average"]:
        settings["reference"] = "average"
    paths = list(src) if len(src) > 1 else src[0]
    if store is None and not settings and len(src) == 1 and is_store(src[0]):
        if given.get("card"):
            fail(f"{src[0]} is a store, cut already", fix="leave --card out")
        return Trials.load(src[0])
    if store is not None:
        settings["store"] = store
    settings["progress"] = sys.stderr.isatty()
    card = given.get("card")
    if card is None and not {"tmin", "tmax"} & set(settings) and len(src) == 1:
        card = _card_of_folder(src[0])
        if card is not None:
            print(f"eegtensor: reading as the card {card!r} says", file=sys.stderr)
            # Only a card that was asked for may lower the guard.
            settings.setdefault("on_bad", "raise")
    if card is not None:
        if len(src) > 1:
            fail("--card goes with one SRC", fix="name the dataset's folder")
        return open_card(card, src[0], **settings)
    missing = [name for name in ("tmin", "tmax") if name not in settings]
    if missing:
        fail(
            f"No {' and '.join('--' + name for name in missing)} given",
            why="A trial is a window around its event",
            fix="give --tmin and --tmax in seconds, or --card NAME",
        )
    return read_trials(paths, **settings)


def _card_of_folder(src: str) -> str | None:
    """Return the card whose local folder has the source's name, if any."""
    from eegtensor.io.cards import list_cards, load_card

    if not Path(src).is_dir():
        return None
    folder = Path(src).resolve().name
    for name in list_cards()["name"]:
        if load_card(name).folder == folder:
            return str(name)
    return None


def _pairs(values: Sequence[Any]) -> list[tuple[float, float]]:
    """Return bands from LOW HIGH LOW HIGH ... or, of a TOML file, pairs."""
    if not isinstance(values, (list, tuple)):
        fail(f"bands={values!r}", fix="give LOW HIGH for every band")
    if values and isinstance(values[0], (list, tuple)):
        return [(float(low), float(high)) for low, high in values]
    if len(values) % 2:
        fail(f"--bands has {len(values)} numbers", fix="give LOW HIGH for every band")
    return [(values[i], values[i + 1]) for i in range(0, len(values), 2)]


def event_words(values: Any) -> Any:
    """Return read_trials' `events` from NAME=CODE|CODE or NAME words or a dict."""
    if isinstance(values, dict):
        return values
    if isinstance(values, str):
        # In a TOML file one word may stand without brackets.
        values = values.split()
    if not any("=" in word for word in values):
        return list(values)
    events: dict[str, Any] = {}
    for word in values:
        name, _, codes = word.partition("=")
        found = [int(c) if c.lstrip("-").isdigit() else c for c in codes.split("|")]
        if not name or codes == "":
            fail(f"--events {word!r} is not NAME=CODE", fix="write left=1 right=2")
        events[name] = found[0] if len(found) == 1 else found
    return events
