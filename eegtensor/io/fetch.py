"""Downloading the datasets of cards: resumable, verified where a sum is known."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from eegtensor._check import fail, listing
from eegtensor._optional import need
from eegtensor.io.card_fields import Card
from eegtensor.io.cards import file_state, files_of, load_card, person, sha256
from eegtensor.io.moabb_files import moabb_dataset, write_subject

logger = logging.getLogger("eegtensor")

_RECORD = ".eegtensor-fetch.json"


def fetch_card(
    name: str | os.PathLike | Card,
    path: str | os.PathLike,
    *,
    source: Any = None,
    subjects: Iterable[Any] | int | None = None,
) -> Path:
    """Download a card's dataset into a folder that `open_card` opens.

    Files that are there and whole are kept: an interrupted download goes on
    when called again. A file gets its name only when it is complete and its
    checksum, where one is known, is right; where none is known the log says
    "unverified", and later calls compare with what was downloaded.

    Parameters
    ----------
    name : str | Card
        A card's name, file or object.
    path : path-like
        Folder of the copy; it is made.
    source : str | moabb dataset | None
        Base URL of a mirror, or a dataset object in place of the card's MOABB
        class. None takes the card's source.
    subjects : iterable | str | int | None
        People to fetch (1 means "01" too); None takes all.

    Returns
    -------
    path : Path
        The folder.

    Raises
    ------
    EEGTensorError
        If the card has no source, a file cannot be had or a checksum differs;
        finished files stay.
    MissingPackageError
        If pooch or moabb is needed and not installed.
    """
    card = name if isinstance(name, Card) else load_card(name)
    folder = Path(path).expanduser()
    url = source if isinstance(source, str) else None
    if isinstance(subjects, (str, int)):
        subjects = [subjects]
    wanted = None if subjects is None else {person(s) for s in subjects}
    if url is None and (source is not None or card.fetch_kind == "moabb"):
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_moabb(card, folder, source, wanted)
    elif url is not None or card.fetch_kind == "files":
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_files(card, folder, url, wanted)
    else:
        fail(
            f"The card {card.name!r} has no download",
            why=card.notes or None,
            fix=f"see {listing(card.source['urls'])}, or give source= (the URL of a "
            "mirror)",
        )
    return folder


def _fetch_files(card: Card, folder: Path, url: str | None, wanted: Any) -> None:
    pooch = need("pooch", f"fetching {card.name}")
    rule = (card.fetch or {}).get("files", {})
    base = (url or rule["base_url"]).rstrip("/") + "/"
    record = _Record(folder, card.name)
    # The source's own sums win over what an earlier call found.
    known = {**record.files, **_registry(pooch, card, rule, base)}
    files = {f: known.get(f) for f in _file_names(card, rule, known)}
    names = (card.local or {}).get("names")
    if wanted is not None:
        chosen = files_of(files, wanted, names)
        files = {f: files[f] for f in chosen}
    todo = [f for f, digest in files.items() if file_state(folder / f, digest) != "ok"]
    logger.info(
        "%s: %d of %d files are there", card.name, len(files) - len(todo), len(files)
    )
    for i, file in enumerate(tqdm(todo, desc=card.name, unit="file", disable=None)):
        if (folder / file).exists():
            logger.info("%s differs from its checksum and is fetched again", file)
        digest = files[file]
        _download(pooch, base + file, folder / file, digest, f"{i} of {len(todo)}")
        if digest is None:
            logger.warning("%s is unverified: its source gives no checksum", file)
        record.add(file, digest or sha256(folder / file))


def _download(
    pooch: Any, url: str, target: Path, digest: str | None, done: str
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part:
        try:
            got = pooch.retrieve(
                url, None, fname=target.name, path=part, progressbar=False
            )
        # pooch passes on whatever requests, ftplib or the disk raises.
        except Exception as error:
            fail(
                f"{url} cannot be fetched ({type(error).__name__}: {error})",
                why=f"{done} files are done and stay",
                fix="check the connection and call fetch_card again; it goes on "
                "where it stopped",
                cause=error,
            )
        here = sha256(Path(got))
        if digest is not None and here != digest:
            fail(
                f"{url} has the SHA-256 {here}, expected is {digest}",
                why="The download is damaged or the source has changed",
                fix="call fetch_card again, or give another source=",
            )
        # Same folder, so the same file system: the name appears with all bytes.
        os.replace(got, target)


def _registry(pooch: Any, card: Card, rule: dict, base: str) -> dict[str, str]:
    """Return known checksums: the card's own, then those beside the data."""
    if "sums" not in rule:
        return dict(card.checksums)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sums"
        _download(pooch, base + rule["sums"], target, None, "0")
        lines = target.read_text(encoding="utf-8").splitlines()
    sums = {}
    for line in lines:
        digest, _, file = line.partition(" ")
        file = file.strip().removeprefix("*").removeprefix("./")
        if len(digest) == 64 and file:
            sums[file] = digest.lower()
    if not sums:
        fail(
            f"{base + rule['sums']} holds no SHA-256 sums",
            fix="check the address, or give another source=",
        )
    return {**sums, **card.checksums}


def _file_names(card: Card, rule: dict, known: Iterable[str]) -> list[str]:
    patterns = rule.get("include", ["*"])
    listed = list(dict.fromkeys([*rule.get("list", []), *known]))
    files = [f for f in listed if any(fnmatch(f, p) for p in patterns)]
    for file in files:
        place = PurePosixPath(file)
        if place.is_absolute() or ".." in place.parts or "\\" in file:
            fail(
                f"The source of {card.name!r} names the file {file!r}",
                why="It would be written outside the folder",
                fix="give another source=",
            )
    if not files:
        fail(
            f"The source of {card.name!r} names no files",
            fix="give source=, or list files in the card",
        )
    return files


def _fetch_moabb(card: Card, folder: Path, source: Any, wanted: Any) -> None:
    rule = (card.fetch or {}).get("moabb", {})
    dataset = source if source is not None else moabb_dataset(card.name, rule)
    people = list(dataset.subject_list)
    if wanted is not None:
        unknown = wanted - {person(s) for s in people}
        if unknown:
            fail(
                f"{card.name!r} has no subjects {listing(sorted(unknown))}",
                fix=f"choose among {listing(people, 40)}",
            )
        people = [s for s in people if person(s) in wanted]
    record = _Record(folder, card.name)
    for subject in tqdm(people, desc=card.name, unit="subject", disable=None):
        key = str(subject)
        files = record.subjects.get(key, [])
        if files and all(
            file_state(folder / f, record.files.get(f)) == "ok" for f in files
        ):
            continue
        written = write_subject(
            dataset, subject, folder, shift=float(rule.get("shift", 0.0))
        )
        for file in written:
            record.files[file] = sha256(folder / file)
        record.finish(key, written)


class _Record:
    """What was fetched into a folder, written after every file.

    Parameters
    ----------
    folder : Path
    card : str
        Its name; a folder holds one dataset.
    """

    def __init__(self, folder: Path, card: str) -> None:
        self.path = folder / _RECORD
        self.card = card
        self.files: dict[str, str] = {}
        self.subjects: dict[str, list[str]] = {}
        if not self.path.exists():
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.files, self.subjects = content["files"], content["subjects"]
            other = content["card"]
        except (ValueError, KeyError, TypeError) as error:
            fail(
                f"{self.path} is damaged",
                fix="delete it; files with known checksums are kept",
                cause=error,
            )
        if other != card:
            fail(
                f"The folder {folder} holds a copy of {other!r}",
                fix=f"fetch {card!r} into a folder of its own",
            )

    def add(self, file: str, digest: str) -> None:
        """Note a finished file."""
        self.files[file] = digest
        self._write()

    def finish(self, subject: str, files: list[str]) -> None:
        """Note that all of a person's files are there."""
        self.subjects[subject] = files
        self._write()

    def _write(self) -> None:
        content = {"card": self.card, "files": self.files, "subjects": self.subjects}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(part, self.path)
