"""Files that are never seen half written, and states in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eegtensor._check import fail
from eegtensor._optional import need
from eegtensor.training.packing import pack, unpack


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` at the end.

    Whoever is killed, or fails, leaves what was at `path` before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_state(path: Path, content: dict[str, Any], format: str) -> None:
    """Write what `pack` can take apart to a file: safetensors and JSON, no pickle.

    Parameters
    ----------
    path : Path
    content : dict
    format : str
        What the file says it is.
    """
    tree, tensors = pack(content)
    save = need("safetensors.torch", f"writing {path.name}").save
    data = save(tensors, metadata={"format": format, "state": json.dumps(tree)})
    with written_whole(path) as scratch, scratch.open("wb") as file:
        file.write(data)
        file.flush()
        # On the disk before it replaces a file that is.
        os.fsync(file.fileno())


def read_state(path: Path, format: str, *, what: str, fix: str) -> dict[str, Any]:
    """Return the content of a file that `write_state` wrote.

    Parameters
    ----------
    path : Path
    format : str
        As it was written.
    what, fix : str
        For errors: what the file should be, and what to do if it is not.

    Raises
    ------
    EEGTensorError
        If the file is missing, damaged or of another format.
    """
    safetensors = need("safetensors", f"reading {path.name}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Copies: the file may be replaced while its content is in use.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        fail(f"{path} is no whole {what}: {error}", fix=fix, cause=error)
    if header.get("format") != format:
        fail(f"{path} is of format {header.get('format')!r}, not {format!r}", fix=fix)
    content: dict[str, Any] = unpack(json.loads(header["state"]), tensors)
    return content
