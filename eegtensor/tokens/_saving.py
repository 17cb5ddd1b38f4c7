"""Tokenizers in files: tensors and JSON with a digest, never code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from eegtensor._check import fail
from eegtensor.training.files import read_state, write_state
from eegtensor.training.packing import pack

_FORMAT = "eegtensor.tokenizer.1"
_FIX = "save it again, with the eegtensor that fitted it"


def digest(state: dict[str, Any]) -> str:
    """Return the SHA-256 of a state: names, shapes, dtypes and values."""
    tree, tensors = pack(state)
    found = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    for key, tensor in sorted(tensors.items()):
        head = f"{key} {tensor.dtype} {tuple(tensor.shape)}"
        found.update(head.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def write_tokenizer(path: Path, state: dict[str, Any]) -> None:
    """Write a fitted tokenizer's state."""
    write_state(path, {"state": state, "digest": digest(state)}, _FORMAT)


def read_tokenizer(path: Path, names: set[str]) -> dict[str, Any]:
    """Return a state that `write_tokenizer` wrote.

    Raises
    ------
    EEGTensorError
        If the file is damaged, was changed, or holds anything more or less than
        the names.
    """
    content = read_state(path, _FORMAT, what="tokenizer", fix=_FIX)
    state = check_whole(content.get("state"), names, str(path))
    if digest(state) != content.get("digest"):
        fail(f"{path} was changed after it was saved", fix=_FIX)
    return state


def check_whole(state: Any, names: set[str], what: str) -> dict[str, Any]:
    """Return a state of exactly these names.

    Raises
    ------
    EEGTensorError
        If it has more, or less.
    """
    found = set(state) if isinstance(state, dict) else set()
    if found != names:
        fail(
            f"{what} has {len(found & names)} of {len(names)} entries of a tokenizer; "
            f"missing {sorted(names - found)}, unknown {sorted(found - names)}",
            why="A tokenizer that is loaded in part gives tokens that mean nothing",
            fix=_FIX,
        )
    return dict(state)
