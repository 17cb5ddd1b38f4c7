"""Models of tokens in files: tensors and JSON with a digest, never code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eegtensor._check import fail
from eegtensor.tokens._saving import digest
from eegtensor.training.files import read_state, write_state

_FIX = "save it again, with the eegtensor that fitted it"


def write_digested(path: Path, state: dict[str, Any], format: str) -> None:
    """Write a state and its digest."""
    write_state(path, {"state": state, "digest": digest(state)}, format)


def read_digested(
    path: Path, names: set[str], format: str, *, what: str
) -> dict[str, Any]:
    """Return a state that `write_digested` wrote.

    Raises
    ------
    EEGTensorError
        If the file is damaged, was changed, or holds anything more or less than
        the names.
    """
    content = read_state(path, format, what=what, fix=_FIX)
    state = content.get("state")
    if not isinstance(state, dict) or set(state) != names:
        found = set(state) if isinstance(state, dict) else set()
        fail(
            f"{path} has {len(found & names)} of {len(names)} entries of a {what}; "
            f"missing {sorted(names - found)}, unknown {sorted(found - names)}",
            fix=_FIX,
        )
    if digest(state) != content.get("digest"):
        fail(f"{path} was changed after it was saved", fix=_FIX)
    return state
