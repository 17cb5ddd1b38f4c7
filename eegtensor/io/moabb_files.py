"""MOABB datasets written as recordings that `read_trials` reads."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mne

from eegtensor._check import fail
from eegtensor._optional import need


def moabb_dataset(card: str, rule: dict[str, Any]) -> Any:
    """Return the MOABB dataset that a card's fetch rule names.

    Raises
    ------
    EEGTensorError
        If the installed MOABB has no such class.
    MissingPackageError
        If MOABB is not installed.
    """
    module = need("moabb.datasets", f"fetching {card}", extra="moabb")
    cls = getattr(module, rule["class"], None)
    if cls is None:
        fail(
            f"The installed MOABB has no dataset {rule['class']!r} (card {card!r})",
            fix="pip install 'eegtensor[moabb]' -c constraints.txt",
        )
    return cls(**rule.get("kwargs", {}))


def write_subject(
    dataset: Any, subject: Any, folder: Path, *, shift: float = 0.0
) -> list[str]:
    """Write one person's runs as FIF files with BIDS names.

    Trials become annotations named by MOABB's classes; stim channels are left
    out. All files of a person appear at once.

    Parameters
    ----------
    dataset : moabb BaseDataset
    subject : int or str
        One of ``dataset.subject_list``.
    folder : Path
    shift : float
        Seconds from the start of MOABB's trial interval to t = 0.

    Returns
    -------
    files : list of str
        Relative to `folder`, as ``sub-01/ses-0/sub-01_ses-0_run-0_raw.fif``.

    Raises
    ------
    EEGTensorError
        If MOABB cannot give the data.
    """
    try:
        sessions = dataset.get_data([subject])[subject]
    # MOABB passes on what any of its loaders or the network raises.
    except Exception as error:
        fail(
            f"MOABB's {type(dataset).__name__} gives no data of subject {subject} "
            f"({type(error).__name__}: {error})",
            why="People fetched before stay",
            fix="check the connection and call fetch_card again",
            cause=error,
        )
    width = max(2, *(len(str(s)) for s in dataset.subject_list))
    sub = f"sub-{_entity(str(subject).zfill(width))}"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        for session, runs in sessions.items():
            for run, raw in runs.items():
                ses = f"ses-{_entity(session)}"
                place = Path(part) / sub / ses
                place.mkdir(parents=True, exist_ok=True)
                stem = f"{sub}_{ses}_run-{_entity(run)}"
                _save(raw, place / f"{stem}_raw.fif", dataset.event_id, shift)
        # os.replace refuses a folder that is not empty.
        if (folder / sub).exists():
            shutil.rmtree(folder / sub)
        os.replace(Path(part) / sub, folder / sub)
    return sorted(
        p.relative_to(folder).as_posix() for p in (folder / sub).rglob("*.fif")
    )


def _save(
    raw: mne.io.BaseRaw, target: Path, event_id: dict[str, Any], shift: float
) -> None:
    raw = raw.copy().load_data(verbose="ERROR")
    # In place: set_annotations adds the time before the first sample again where
    # a recording has no date.
    notes = raw.annotations
    notes.onset[[str(d) in event_id for d in notes.description]] += shift
    # A stim channel would tell a decoder the answer.
    stim = [raw.ch_names[i] for i in mne.pick_types(raw.info, meg=False, stim=True)]
    if stim:
        raw.drop_channels(stim)
    raw.save(target, verbose="ERROR")


def _entity(text: Any) -> str:
    """Return a label with what BIDS names allow."""
    return re.sub(r"[^A-Za-z0-9]", "", str(text)) or "0"
