"""Event tables for recordings that carry none: blocks of a class, sleep scoring."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import mne
import numpy as np
import pandas as pd

from eegtensor._check import listing
from eegtensor.io.card_fields import Card
from eegtensor.io.errors import RecordingError

EventFile = Callable[[Path], Path]


@contextlib.contextmanager
def event_tables(card: Card, place: Path) -> Iterator[EventFile | None]:
    """Yield a function from recording to event table, or None without a rule.

    Tables are written to a temporary folder, never beside the user's data.

    Parameters
    ----------
    card : Card
        With the rule ``local.blocks`` (a file is one class, cut into windows)
        or ``local.scoring`` (another file scores the recording's epochs).
    place : Path
        The dataset's folder or one of its recordings.
    """
    local = card.local or {}
    if not card.has_event_tables:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="eegtensor-events-") as folder:

        def event_file(path: Path) -> Path:
            if "blocks" in local:
                table = _blocks(path, local["blocks"])
            else:
                table = _scored(path, local["scoring"], card)
            target = Path(folder) / f"{len(list(Path(folder).iterdir()))}_events.tsv"
            table.to_csv(target, sep="\t", index=False)
            return target

        yield event_file


def _blocks(path: Path, rule: dict) -> pd.DataFrame:
    """Return windows end to end over a file that is one class."""
    found = [
        name for name, pattern in rule["files"].items() if fnmatch(path.name, pattern)
    ]
    if len(found) != 1:
        raise RecordingError(
            path,
            f"its name fits {len(found)} of the card's classes "
            f"({listing(rule['files'].values())})",
            "keep the dataset's own file names",
        )
    raw = mne.io.read_raw(path, verbose="ERROR")
    length = float(rule["length"])
    onsets = np.arange(_whole(raw.n_times / raw.info["sfreq"], length)) * length
    return pd.DataFrame({"onset": onsets, "duration": length, "trial_type": found[0]})


def _whole(duration: float, length: float) -> int:
    """Return how many windows fit."""
    # 0.3 / 0.1 is 2.9999999999999996.
    return int(round(duration / length, 6))


def _scored(path: Path, rule: dict, card: Card) -> pd.DataFrame:
    """Return one row for each scored epoch, named by the card's classes."""
    start = path.name[: int(rule["shared"])]
    partners = [
        p
        for p in sorted(path.parent.glob(rule["partner"]))
        if p.name.startswith(start) and p != path
    ]
    if len(partners) != 1:
        raise RecordingError(
            path,
            f"{len(partners)} files {start}{rule['partner']} lie beside it, not one",
            "fetch the scoring as well and keep the dataset's own file names",
        )
    names = {
        str(label): name
        for name, labels in card.events.items()
        for label in (labels if isinstance(labels, list) else [labels])
    }
    length = float(rule["length"])
    rows = []
    for span in mne.read_annotations(partners[0]):
        name = names.get(str(span["description"]))
        # Movement and unscored epochs have no class.
        if name is not None:
            for k in range(_whole(span["duration"], length)):
                rows.append((span["onset"] + k * length, length, name))
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])
