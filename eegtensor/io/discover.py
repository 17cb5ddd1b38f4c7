"""Which files are recordings: paths, globs and folders, without companions."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from eegtensor._check import fail, listing
from eegtensor.io.errors import RecordingError
from eegtensor.store import is_store

logger = logging.getLogger("eegtensor")

PathLike = str | os.PathLike
Include = str | Sequence[str] | Callable[[Path], bool] | None

# Suffixes that mark a recording wherever they are met.
_SUFFIXES = (
    *(".edf", ".bdf", ".gdf", ".vhdr", ".ahdr", ".set", ".cnt", ".fif", ".fif.gz"),
    *(".lay", ".cdt", ".nedf", ".sqd", ".con", ".nxe", ".snirf", ".npz", ".egi"),
    *(".ns1", ".ns2", ".ns3", ".ns4", ".ns5", ".ns6"),
)
FOLDER_SUFFIXES = (".mff", ".ds", ".mefd")
# Suffixes that many other files have too: a recording only beside this partner.
_WITH_PARTNER = {
    ".dat": (".dap", ".rs3"),
    ".data": (".head",),
    ".eeg": (".pnt", ".log", ".21e", ".11d"),
}
# A recording when named; in a folder such files are mostly something else.
NAMED_ONLY = (".mat", ".raw", ".txt", ".bin", ".asc", ".hdr", ".dat", ".data", ".eeg")
NOT_SIGNALS = re.compile(
    r"(?i)[-_](eve|ave|cov|fwd|inv|ica|trans|proj|src|bem|sol|annot|head|dense)"
    r"\.fif(\.gz)?$"
)
_SPLIT_PART = re.compile(r"(?i)_split-(?!0*1_)\d+_|-\d+\.fif(\.gz)?$")


def suffix_of(path: Path) -> str:
    """Return the lower-case suffix, ".fif.gz" whole."""
    name = path.name.lower()
    return ".fif.gz" if name.endswith(".fif.gz") else path.suffix.lower()


def find_recordings(
    paths: PathLike | Iterable[PathLike], include: Include = None
) -> tuple[list[Path], Path]:
    """Return the recordings that paths stand for, and their common folder.

    Parameters
    ----------
    paths : path-like or list of path-like
        Files, globs (``**`` too) and folders, which are searched recursively.
        Companion files (``.eeg`` of ``.vhdr``, ``.fdt``, ``-eve.fif``) and
        other files in folders are passed over.
    include : str | list of str | callable | None
        Globs of which one must match the path (or its name), or a function
        from path to bool.

    Returns
    -------
    recordings : list of Path
        Sorted within each folder or glob, in the order of `paths` otherwise.
    root : Path
        The folder all of them lie in.

    Raises
    ------
    EEGTensorError
        If a path does not exist, or nothing is found or included.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    given = list(paths) if isinstance(paths, Iterable) else []
    if not given or not all(isinstance(p, (str, os.PathLike)) for p in given):
        fail(f"paths={paths!r} are no paths", fix="name files, globs or folders")
    found: dict[Path, None] = {}
    roots = []
    for item in given:
        recordings, root = _expand(Path(item).expanduser())
        found.update(dict.fromkeys(recordings))
        roots.append(root)
    try:
        root = Path(os.path.commonpath([p.resolve() for p in roots]))
    except ValueError:
        # Two drives of Windows have no folder in common.
        root = roots[0].resolve()
    chosen = [path for path in found if _included(path, include)]
    if not chosen:
        fail(
            f"include={include!r} leaves none of the {len(found)} recordings in "
            f"{root}: {listing((p.name for p in found), 5)}",
            fix="correct the pattern; it is matched with the path and the file name",
        )
    return chosen, root


def _expand(path: Path) -> tuple[list[Path], Path]:
    if path.is_dir() and not is_recording_folder(path):
        recordings, ignored = _search(path)
        if not recordings:
            fail(
                f"No recordings in the folder {path}"
                + (f"; it holds {listing(ignored, 5)}" if ignored else ""),
                fix="name the folder that holds them; known are "
                + listing([*_SUFFIXES, *FOLDER_SUFFIXES], 40),
            )
        return recordings, path
    if path.exists():
        return [path], path.parent
    pattern = str(path)
    if not glob.has_magic(pattern):
        raise RecordingError(path, "there is no such file", "correct the path")
    found = [
        p
        for p in map(Path, sorted(glob.glob(pattern, recursive=True), key=_natural))
        if is_recording_folder(p) or (p.is_file() and is_recording(p, named=True))
    ]
    if not found:
        fail(f"No recordings match {pattern}", fix="correct the pattern")
    fixed = Path(*_before_magic(path.parts)) if path.parts else Path()
    return found, fixed


def _before_magic(parts: tuple[str, ...]) -> list[str]:
    kept = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        kept.append(part)
    return kept


def _search(folder: Path) -> tuple[list[Path], list[str]]:
    recordings: list[Path] = []
    ignored: list[str] = []
    for top, folders, files in os.walk(folder):
        here = Path(top)
        whole = [n for n in folders if is_recording_folder(here / n)]
        # A folder may be one recording (.mff, .ds, Neuralynx, a store).
        recordings += [here / n for n in whole]
        # os.walk descends into what is left here: never into a recording.
        folders[:] = sorted(
            n for n in folders if n not in whole and not n.startswith(".")
        )
        for name in files:
            if name.startswith("."):
                continue
            if is_recording(here / name):
                recordings.append(here / name)
            else:
                ignored.append(name)
    if ignored:
        logger.info(
            "%s: passed over %d files that are no recordings: %s",
            folder,
            len(ignored),
            listing(sorted(ignored), 5),
        )
    return sorted(recordings, key=_natural), sorted(ignored)


def is_recording_folder(path: Path) -> bool:
    """Return whether the folder as a whole is one recording (or a store)."""
    if not path.is_dir():
        return False
    if path.suffix.lower() in FOLDER_SUFFIXES or is_store(path):
        return True
    return any(child.suffix.lower() == ".ncs" for child in path.iterdir())


def is_recording(path: Path, *, named: bool = False) -> bool:
    """Return whether a file is a recording, judged by its name and neighbours.

    Parameters
    ----------
    path : Path
    named : bool
        Whether the user's pattern named it: then suffixes count that in a
        folder mostly mean something else (``.mat``, ``.raw``).
    """
    suffix = suffix_of(path)
    if suffix in (".fif", ".fif.gz"):
        return not (NOT_SIGNALS.search(path.name) or _is_later_part(path))
    if suffix in _SUFFIXES:
        return True
    if suffix == ".eeg" and _brainvision_header_of(path):
        return False
    if suffix == ".raw" and _is_egi(path):
        return True
    if suffix not in _WITH_PARTNER:
        return named and suffix in NAMED_ONLY
    partners = {
        p.suffix.lower() for p in path.parent.glob(glob.escape(path.stem) + ".*")
    }
    # Persyst keeps its samples in a .dat, as Curry does.
    if suffix == ".dat" and ".lay" in partners:
        return False
    if partners & set(_WITH_PARTNER[suffix]):
        return True
    return named and suffix in NAMED_ONLY


def _is_egi(path: Path) -> bool:
    """Return whether a .raw file begins as EGI's simple binary format does."""
    with open(path, "rb") as file:
        version = int.from_bytes(file.read(4), "big")
    return 2 <= version <= 7


def _is_later_part(path: Path) -> bool:
    if not _SPLIT_PART.search(path.name):
        return False
    first = re.sub(r"(?i)-\d+(\.fif(\.gz)?)$", r"\1", path.name)
    first_split = re.sub(r"(?i)_split-\d+_", "_split-01_", path.name)
    return any(
        name != path.name and (path.parent / name).exists()
        for name in (first, first_split)
    )


def _brainvision_header_of(path: Path) -> bool:
    # The usual pair first: reading every header costs on network drives.
    if any(path.with_suffix(s).exists() for s in (".vhdr", ".ahdr")):
        return True
    for header in (*path.parent.glob("*.vhdr"), *path.parent.glob("*.ahdr")):
        text = header.read_bytes()[:4096].decode("latin1")
        if re.search(rf"(?im)^DataFile\s*=\s*{re.escape(path.name)}\s*$", text):
            return True
    return False


def _included(path: Path, include: Include) -> bool:
    if include is None:
        return True
    if callable(include):
        return bool(include(path))
    patterns = [include] if isinstance(include, str) else include
    text = path.as_posix()
    return any(
        # A pattern may begin at any folder of the path; * crosses slashes.
        fnmatch(path.name, p) or fnmatch(text, p) or fnmatch(text, "*/" + p)
        for p in patterns
    )


def _natural(path: str | Path) -> list[tuple[int, int, str]]:
    """Sort key that puts "run-2" before "run-10"."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", Path(path).as_posix())
    ]
