"""What is fitted in files: tensors and JSON with a digest, never code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from eegtensor._check import fail
from eegtensor.training.files import read_state, write_state
from eegtensor.training.packing import pack

_FIX = "save it again, with the eegtensor that fitted it"


def digest(state: dict[str, Any]) -> str:
    """Return the SHA-256 of a state: names, shapes, dtypes and values."""
    tree, tensors = pack(state)
    found = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    for key, tensor in sorted(tensors.items()):
        head = f"{key} {tensor.dtype} {tuple(tensor.shape)}"
        found.update(head.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def write_digested(path: Path, state: dict[str, Any], format: str) -> None:
    """Write a state and its digest."""
    write_state(path, {"state": state, "digest": digest(state)}, format)


def read_digested(
    path: Path,
    names: Collection[str],
    format: str,
    *,
    what: str,
    later: Collection[str] = (),
) -> dict[str, Any]:
    """Return a state that `write_digested` wrote.

    Parameters
    ----------
    path : Path
    names : collection of str
        Of its entries.
    format : str
        As it was written.
    what : str
        For errors: what the file should hold.
    later : collection of str
        Names that older files lack; None in their place.

    Raises
    ------
    EEGTensorError
        If there is no such file, it is damaged, was changed, or holds anything more
        or less than the names.
    """
    if not path.is_file():
        fail(
            f"there is no {what} at {path}"
            + (", which is a folder" if path.is_dir() else ""),
            fix="give the path of a file that save() wrote",
        )
    content = read_state(path, format, what=what, fix=_FIX)
    state: Any = content.get("state")
    found = set(state) if isinstance(state, dict) else set()
    state = check_whole(state, set(names) - (set(later) - found), str(path), of=what)
    if digest(state) != content.get("digest"):
        fail(f"{path} was changed after it was saved", fix=_FIX)
    return dict.fromkeys(later) | state


def check_whole(
    state: Any, names: set[str], what: str, *, of: str = "tokenizer"
) -> dict[str, Any]:
    """Return a state of exactly these names.

    Raises
    ------
    EEGTensorError
        If it has more, or less.
    """
    found = set(state) if isinstance(state, dict) else set()
    if found != names:
        fail(
            f"{what} has {len(found & names)} of {len(names)} entries of a {of}; "
            f"missing {sorted(names - found)}, unknown {sorted(found - names)}",
            why=f"A {of} that is loaded in part gives what means nothing",
            fix=_FIX,
        )
    return dict(state)
