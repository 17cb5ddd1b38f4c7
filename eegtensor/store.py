"""A memory-mapped store on disk: one X.npy, an index, a content digest.

Layout of a store ``DIR``::

    DIR/index.json            names the generation that is current
    DIR/<generation>/X.npy    (n_trials, n_channels, n_times)
    DIR/<generation>/columns.npz   y and the metadata columns
    DIR/<generation>/info.fif      channels, rate, montage (written by MNE)

A write builds a new generation beside the current one and then replaces
``index.json`` in one step: a killed write leaves the old store whole, and a
reader that has opened a generation keeps its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import fail

FORMAT = 1
_INDEX = "index.json"
_OURS = re.compile(r"\.writing-|\.index\.json-|[0-9a-f]{12}-[0-9a-f]{6}$")
# Room for the .npy header, so that the number of trials can be filled in last.
_HEADER_BYTES = 256


def update_digest(digest: Any, X: NDArray) -> None:
    """Feed an array's samples to a hash, in C order and in bounded pieces."""
    # 16 MiB: a memory map must not be pulled into memory as a whole.
    step = max(1, (1 << 24) // max(1, X[:1].nbytes)) if len(X) else 1
    for start in range(0, len(X), step):
        digest.update(np.ascontiguousarray(X[start : start + step]).data)


def finish_digest(
    digest: Any, shape: tuple[int, ...], dtype: Any, described: dict[str, Any]
) -> str:
    """Close a hash of samples with everything else that defines the trials."""
    head = {"shape": list(shape), "dtype": np.dtype(dtype).str, **described}
    digest.update(json.dumps(head, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def describe(
    y: NDArray | None, metadata: pd.DataFrame, info: mne.Info, tmin: float
) -> dict[str, Any]:
    """Return what, beside the samples, makes two sets of trials the same."""
    return {
        "y": None if y is None else y.tolist(),
        "metadata": {str(c): metadata[c].tolist() for c in metadata.columns},
        "ch_names": list(info["ch_names"]),
        # Micrometres: FIF keeps positions in single precision only.
        "positions": [np.round(ch["loc"][:3], 6).tolist() for ch in info["chs"]],
        "sfreq": float(info["sfreq"]),
        "tmin": float(tmin),
    }


def join_labels(parts: Sequence[NDArray | None]) -> NDArray | None:
    """Return the labels of several recordings in one array.

    Parameters
    ----------
    parts : sequence of (ndarray, shape (n_trials,) | None)

    Raises
    ------
    EEGTensorError
        If some are class names, some continuous targets, or some absent.
    """
    kinds: dict[str, int] = {}
    for i, y in enumerate(parts):
        kinds.setdefault(_kind_of_labels(y), i)
    if len(kinds) > 1:
        # NumPy would turn the numbers into class names without a word.
        fail(
            "The parts differ in their labels: "
            + ", ".join(f"part {i} has {kind}" for kind, i in kinds.items()),
            fix="choose recordings of one kind (include=)",
        )
    labels = [y for y in parts if y is not None]
    return np.concatenate(labels) if labels else None


def _kind_of_labels(y: NDArray | None) -> str:
    if y is None:
        return "no labels"
    return "continuous targets" if y.dtype.kind == "f" else "class names"


class StoreWriter:
    """Write trials recording by recording; nothing is visible before `finish`.

    Parameters
    ----------
    path : path-like
        Folder of the store; an existing store is replaced when the write ends.

    Examples
    --------
    ``with StoreWriter("store") as w: w.append(X, y, metadata); w.finish(info, 0.0)``
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            fail(f"{self.path} is a file", fix="name a folder for the store")
        if self.path.is_dir() and not is_store(self.path):
            # What a first write leaves that was killed must not stop the second.
            others = [p for p in self.path.iterdir() if not _OURS.match(p.name)]
            if others:
                fail(
                    f"{self.path} is a folder with other files in it",
                    why="A store would be mixed with them",
                    fix="name a new folder, or an existing store to replace",
                )
        self.path.mkdir(parents=True, exist_ok=True)
        tag = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # Beside the store, not in /tmp: renaming is atomic within one file system only.
        self._work = self.path / f".writing-{tag}"
        self._work.mkdir()
        self._file = open(self._work / "X.npy", "wb")
        self._file.write(b"\0" * _HEADER_BYTES)
        self._digest = hashlib.blake2b(digest_size=16)
        self._shape: tuple[int, ...] | None = None
        self._dtype: np.dtype = np.dtype(np.float32)
        self._n_trials = 0
        self._y: list[NDArray | None] = []
        self._metadata: list[pd.DataFrame] = []
        self._finished = False

    def append(self, X: NDArray, y: NDArray | None, metadata: pd.DataFrame) -> None:
        """Add one recording's trials.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : ndarray, shape (n_trials,) | None
        metadata : DataFrame, one row a trial
        """
        if self._shape is None:
            self._shape, self._dtype = X.shape[1:], X.dtype
        if X.shape[1:] != self._shape:
            fail(
                f"Trials of shape {X.shape[1:]} cannot join a store of trials of "
                f"shape {self._shape}",
                fix="cut all recordings with the same channels and window",
            )
        if not np.can_cast(X.dtype, self._dtype, "same_kind"):
            fail(
                f"Trials of dtype {X.dtype} cannot join a store of {self._dtype}",
                why="Their samples would be cut to whole numbers",
                fix="append all recordings in one floating-point dtype",
            )
        block = np.ascontiguousarray(X, dtype=self._dtype)
        self._file.write(block.data)
        update_digest(self._digest, block)
        self._n_trials += len(block)
        self._y.append(y)
        self._metadata.append(metadata)

    def finish(self, info: mne.Info, tmin: float) -> str:
        """Make the written trials the store's content and return their digest.

        Parameters
        ----------
        info : mne.Info
        tmin : float
            Seconds of the first sample relative to the event.
        """
        if self._shape is None:
            fail("No trials were written", fix="append at least one recording")
        y = join_labels(self._y)
        metadata = pd.concat(self._metadata, ignore_index=True)
        shape = (self._n_trials, *self._shape)
        self._file.seek(0)
        self._file.write(_npy_header(shape, self._dtype))
        self._file.flush()
        # The index must never reach the disk before the samples it names.
        os.fsync(self._file.fileno())
        self._file.close()
        digest = finish_digest(
            self._digest, shape, self._dtype, describe(y, metadata, info, tmin)
        )
        _write_columns(self._work / "columns.npz", y, metadata)
        with mne.utils.use_log_level("ERROR"):
            mne.io.write_info(self._work / "info.fif", info, overwrite=True)
        # The random part: equal content written twice is still two folders.
        generation = f"{digest[:12]}-{uuid.uuid4().hex[:6]}"
        os.rename(self._work, self.path / generation)
        replaced = _read_index(self.path)["generation"] if is_store(self.path) else None
        index = {
            "format": FORMAT,
            "generation": generation,
            "digest": digest,
            "tmin": float(tmin),
            # FIF keeps the rate in single precision only.
            "sfreq": float(info["sfreq"]),
            "n_trials": self._n_trials,
        }
        replace_text(self.path / _INDEX, json.dumps(index, indent=1))
        self._finished = True
        # Last: a reader that holds the old index needs the old generation until now.
        _remove_stale(self.path, replaced=replaced, keep=generation)
        return digest

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._finished:
            self._file.close()
            shutil.rmtree(self._work, ignore_errors=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()


def is_store(path: str | os.PathLike) -> bool:
    """Return whether the folder is a store of trials."""
    return (Path(path) / _INDEX).is_file()


def open_store(
    path: str | os.PathLike,
) -> tuple[NDArray, NDArray | None, pd.DataFrame, mne.Info, float, str]:
    """Open a store read-only; return X (a memory map), y, metadata, info, tmin, digest.

    Raises
    ------
    EEGTensorError
        If the folder is no store, was written by a newer version, or is damaged.
    """
    path = Path(path)
    for attempt in range(20):
        index = _read_index(path)
        folder = path / index["generation"]
        try:
            X = np.load(folder / "X.npy", mmap_mode="r", allow_pickle=False)
            y, metadata = _read_columns(folder / "columns.npz")
            with mne.utils.use_log_level("ERROR"):
                info = mne.io.read_info(folder / "info.fif")
            with info._unlock():
                info["sfreq"] = float(index.get("sfreq", info["sfreq"]))
        except Exception as error:
            # A writer may have replaced the generation since the index was read.
            if _read_index(path)["generation"] != index["generation"] or attempt < 2:
                time.sleep(0.01)
                continue
            fail(
                f"The store {path} is damaged: {error}",
                fix="write it again with `eegtensor convert`",
                cause=error,
            )
        if len(X) != index["n_trials"] or len(metadata) != index["n_trials"]:
            fail(
                f"The store {path} is damaged: its index says {index['n_trials']} "
                f"trials, its arrays hold {len(X)} and {len(metadata)}",
                fix="write it again with `eegtensor convert`",
            )
        return X, y, metadata, info, float(index["tmin"]), index["digest"]
    fail(f"The store {path} changes faster than it can be read")


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    # A random name, so that two writers never share a half-written file.
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        version = index["format"]
        # Those of another version are for the message below to refuse.
        lacking = {"generation", "digest", "tmin", "n_trials"} - set(index)
        if version == FORMAT and lacking:
            raise KeyError(*sorted(lacking))
    except FileNotFoundError as error:
        fail(
            f"{path} is not a store of trials: it has no {_INDEX}",
            fix="make one with `eegtensor convert SRC STORE` or Trials.save",
            cause=error,
        )
    except (ValueError, KeyError, TypeError) as error:
        fail(
            f"The store {path} is damaged: {_INDEX} cannot be read ({error})",
            fix="write it again with `eegtensor convert`",
            cause=error,
        )
    if version != FORMAT:
        fail(
            f"The store {path} has format {version}, this version reads {FORMAT}",
            fix="update eegtensor, or write the store again",
        )
    return index


def _npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return a version 1.0 .npy header padded to a fixed length."""
    entries = {"descr": dtype.str, "fortran_order": False, "shape": tuple(shape)}
    text = repr(entries).encode("latin1")
    room = _HEADER_BYTES - 10
    body = text + b" " * (room - 1 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + body


def _write_columns(path: Path, y: NDArray | None, metadata: pd.DataFrame) -> None:
    arrays: dict[str, NDArray] = {}
    layout = []
    for i, name in enumerate(metadata.columns):
        values = metadata[name].to_numpy()
        encoded = False
        if values.dtype.kind not in "biufUS":
            items = metadata[name].tolist()
            # No pickles: opening somebody's store must not be able to run code.
            encoded = not all(isinstance(item, str) for item in items)
            texts = [json.dumps(v, default=_plain) for v in items] if encoded else items
            values = np.asarray(texts, dtype=str)
        arrays[f"column{i}"] = values
        layout.append({"name": str(name), "json": encoded})
    if y is not None:
        arrays["y"] = y
    arrays["layout"] = np.asarray(json.dumps(layout))
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a NumPy scalar, pandas.NA or anything else."""
    if value is pd.NA:
        return None
    return value.item() if isinstance(value, np.generic) else str(value)


def _read_columns(path: Path) -> tuple[NDArray | None, pd.DataFrame]:
    with np.load(path, allow_pickle=False) as arrays:
        layout = json.loads(str(arrays["layout"]))
        columns: dict[str, Any] = {}
        for i, column in enumerate(layout):
            values = arrays[f"column{i}"]
            if column["json"]:
                columns[column["name"]] = [json.loads(v) for v in values.tolist()]
            else:
                columns[column["name"]] = values
        y = arrays["y"] if "y" in arrays.files else None
    return y, pd.DataFrame(columns)


def _remove_stale(path: Path, *, replaced: str | None, keep: str) -> None:
    """Remove what was replaced and what writers that died left behind.

    Another writer's generation that is not yet in the index must survive, so
    others go only when they are a day old.
    """
    host = socket.gethostname()
    for entry in path.iterdir():
        # What somebody else keeps here is not ours to remove.
        if not _OURS.match(entry.name) or entry.name == keep:
            continue
        if entry.name.startswith(".writing-"):
            # From the right: a host's name may hold hyphens.
            owner = entry.name.removeprefix(".writing-").rsplit("-", 2)
            if len(owner) == 3 and owner[0] == host and not _alive(int(owner[1])):
                shutil.rmtree(entry, ignore_errors=True)
        elif entry.name == replaced or _age(entry) > 86400:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _age(entry: Path) -> float:
    try:
        return time.time() - entry.stat().st_mtime
    except OSError:
        return 0.0


def _alive(pid: int) -> bool:
    # Signal 0 asks on POSIX; on Windows it is Ctrl-C and would end the writer.
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
