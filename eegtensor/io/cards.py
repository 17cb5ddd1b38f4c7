"""Dataset cards: what a public set is, and its local copy opened in one call."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from eegtensor._check import fail, listing
from eegtensor.io.card_events import event_tables
from eegtensor.io.card_fields import Card, parse_card
from eegtensor.io.names import label_of
from eegtensor.io.read import read_trials
from eegtensor.simulate import simulate_trials
from eegtensor.trials import Trials

__all__ = ["Card", "list_cards", "load_card", "open_card", "verify_card"]

# The folder in a wheel, then the one in a checkout.
_FOLDERS = (
    Path(__file__).resolve().parents[1] / "_cards",
    Path(__file__).resolve().parents[2] / "datasets",
)
_ENVIRONMENT = "EEGTENSOR_DATA"


def cards_folder() -> Path:
    """Return the folder of the cards that come with the package."""
    for folder in _FOLDERS:
        if folder.is_dir():
            return folder
    fail(
        "The package's dataset cards are missing",
        why=f"Neither {_FOLDERS[0]} nor {_FOLDERS[1]} exists",
        fix="install eegtensor again",
    )


def list_cards() -> pd.DataFrame:
    """Return a table of the cards, one row each, sorted by name.

    Returns
    -------
    table : DataFrame
        Columns name, title, paradigm, subjects, sessions, channels, sfreq
        (hertz), classes, licence, fetch ("moabb", "files" or "").
    """
    rows = []
    for path in sorted(cards_folder().glob("*.yaml")):
        card = load_card(path)
        rows.append(
            {
                "name": card.name,
                "title": card.title,
                "paradigm": card.paradigm,
                "subjects": card.n_subjects,
                "sessions": "-".join(map(str, np.atleast_1d(card.n_sessions))),
                "channels": len(card.channels),
                "sfreq": card.sfreq,
                "classes": ", ".join(card.events),
                "licence": card.licence,
                "fetch": card.fetch_kind,
            }
        )
    return pd.DataFrame(rows)


def load_card(name: str | os.PathLike) -> Card:
    """Return a card by its name, or from a ``.yaml`` file of your own.

    Raises
    ------
    EEGTensorError
        If there is no such card (the message lists those there are), or a
        field is missing, unknown or of the wrong type.
    """
    given = Path(name)
    if given.suffix in (".yaml", ".yml"):
        path = given
        if not path.is_file():
            fail(f"There is no card file {path}", fix="correct the path")
    else:
        path = cards_folder() / f"{name}.yaml"
        if not path.is_file():
            known = sorted(p.stem for p in cards_folder().glob("*.yaml"))
            near = difflib.get_close_matches(str(name).lower(), known, n=1)
            fail(
                f"There is no card {str(name)!r}"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + f" Known are {listing(known, 40)}",
                fix="choose one of these, or give the path of a card.yaml",
            )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fail(f"The card {path} is not YAML: {error}", fix="mend it", cause=error)
    return parse_card(content, path)


def open_card(
    name: str | os.PathLike | Card,
    path: str | os.PathLike | None = None,
    **overrides: Any,
) -> Trials:
    """Open the local copy of a dataset with its card's window, bands and events.

    Parameters
    ----------
    name : str | Card
        A card's name (see `list_cards`), file or object.
    path : path-like | None
        The dataset's folder, or one recording of it; None takes
        ``$EEGTENSOR_DATA/<folder of the card>``. The card "simulated" needs
        none.
    **overrides
        Arguments of `read_trials` (of `simulate_trials` for "simulated") that
        replace the card's.

    Returns
    -------
    trials : Trials
        The metadata column dataset is the card's name.

    Raises
    ------
    EEGTensorError
        If there is no card or no local copy; the message says where it was
        looked for and how to fetch it.
    RecordingError
        As `read_trials`.

    Examples
    --------
    >>> open_card("simulated", n_subjects=2, n_trials=4).domain.names[0]
    Domain(dataset='simulated', subject='01', session='0')
    """
    card = name if isinstance(name, Card) else load_card(name)
    if card.simulate is not None:
        if path is not None:
            fail(
                f"The card {card.name!r} is simulated and has no files at {path}",
                fix=f"call open_card({card.name!r}) without a path",
            )
        return simulate_trials(**{**card.simulate, **overrides})
    place = local_copy(card, path)
    settings = read_settings(card, place)
    # Both go: read_trials refuses a band beside the card's bands.
    if "band" in overrides or "bands" in overrides:
        settings.pop("band", None)
        settings.pop("bands", None)
    with event_tables(card, place) as event_files:
        if event_files is not None:
            settings["event_files"] = event_files
        return read_trials(place, **{**settings, **overrides})


def read_settings(card: Card, place: Path) -> dict[str, Any]:
    """Return the arguments of `read_trials` that a card stands for."""
    local = dict(card.local or {})
    if place.is_file():
        local.update(card.formats.get(place.suffix.lower(), {}))
    tmin, tmax = local.get("window", card.window)
    settings: dict[str, Any] = {
        "tmin": tmin,
        "tmax": tmax,
        "events": None if card.has_event_tables else local.get("events", card.events),
        "dataset": card.name,
        **local.get("read", {}),
    }
    if card.bands is not None:
        settings["bands"] = card.bands
    elif card.band is not None:
        settings["band"] = card.band
    if place.is_dir() and "include" in local:
        settings["include"] = local["include"]
    if "names" in local:
        settings["names"] = names_of(local["names"])
    return settings


def names_of(rule: str) -> str | Callable[[Path], dict[str, str]]:
    """Return a rule of names as `read_trials` takes it: a regex as a function."""
    if "(?P<" not in rule:
        return rule
    pattern = re.compile(rule)

    def names(path: Path) -> dict[str, str]:
        match = pattern.search(path.as_posix())
        if match is None:
            fail(
                f"The path {path} does not fit the card's pattern {rule!r}",
                fix="keep the dataset's own file names",
            )
        return match.groupdict()

    return names


def local_copy(card: Card, path: str | os.PathLike | None) -> Path:
    """Return where a dataset's copy lies, or raise saying how to get one."""
    root = os.environ.get(_ENVIRONMENT)
    looked = []
    if path is not None:
        place = Path(path).expanduser()
        if place.exists():
            return place
        looked.append(str(place))
    elif root:
        place = Path(root).expanduser() / card.folder
        if place.exists():
            return place
        looked.append(f"{place} (from ${_ENVIRONMENT})")
    if not looked:
        what = f"No path was given for {card.name!r} and ${_ENVIRONMENT} is not set"
    else:
        what = f"There is no copy of {card.name!r} at {listing(looked)}"
    if card.fetch_kind:
        fetch = f"fetch_card({card.name!r}, folder) of eegtensor.io downloads one"
    else:
        fetch = f"get the data from {listing(card.source['urls'])}"
    fail(
        what,
        fix=f"give path=, or set {_ENVIRONMENT} to the folder that holds "
        f"{card.folder!r}; {fetch}",
    )


def verify_card(
    name: str | os.PathLike | Card, path: str | os.PathLike | None = None
) -> dict[str, str]:
    """Compare a local copy's files with the card's checksums.

    Returns
    -------
    state : dict
        File -> "ok", "missing" or "differs"; empty where the card has no
        checksums.
    """
    card = name if isinstance(name, Card) else load_card(name)
    folder = local_copy(card, path)
    return {
        file: file_state(folder / file, known) for file, known in card.checksums.items()
    }


def file_state(path: Path, known: str | None) -> str:
    """Return "ok", "missing" or "differs"; without a checksum a file is "ok"."""
    if not path.is_file():
        return "missing"
    return "ok" if known is None or sha256(path) == known else "differs"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file (hex)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(
    mapping: Mapping[str, Any], subjects: set[str], names: str | None
) -> list[str]:
    """Return the files of these people, by a card's rule of names."""
    rule = None if names is None else names_of(names)
    chosen = [f for f in mapping if person(label_of(Path(f), rule).subject) in subjects]
    if not chosen:
        known = {label_of(Path(f), rule).subject for f in mapping}
        fail(
            f"No files of the subjects {listing(sorted(subjects))}",
            fix=f"choose among {listing(sorted(known), 40)}",
        )
    return chosen


def person(subject: Any) -> str:
    """Return a subject's label without leading zeros, so that 1 means "01"."""
    # MOABB counts in integers, BIDS writes "01".
    return str(subject).lstrip("0") or "0"
