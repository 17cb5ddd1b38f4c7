"""Tokens in files: tensors and JSON with a digest, never code."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from eegtensor._check import EEGTensorError, fail
from eegtensor.tokens._saving import read_digested, write_digested
from eegtensor.tokens.tokens import Tokens

_FORMAT = "eegtensor.tokens.1"
_FIX = "encode the recording again"


def save_tokens(tokens: Tokens, path: str | os.PathLike[str]) -> None:
    """Write tokens to one safetensors file.

    Parameters
    ----------
    tokens : Tokens
    path : path
        Its folder is made where there is none.
    """
    state: dict[str, Any] = {f.name: getattr(tokens, f.name) for f in fields(tokens)}
    # Half of int32, which is what tables of all kinds need.
    small = int(np.max(tokens.alphabet, initial=0)) <= np.iinfo(np.int16).max
    ids = np.asarray(tokens.ids)
    state["ids"] = ids.astype(np.int16 if small else np.int32)
    state["alphabet"] = np.asarray(tokens.alphabet, dtype=np.int64)
    state["scale"] = np.asarray(tokens.scale, dtype=np.float64)
    state["ch_names"] = [str(name) for name in tokens.ch_names]
    write_digested(Path(path), state, _FORMAT)


def load_tokens(path: str | os.PathLike[str]) -> Tokens:
    """Return the tokens that `save_tokens` wrote.

    Raises
    ------
    EEGTensorError
        If the file is damaged, was changed, or holds anything more or less than
        tokens.
    """
    names = [f.name for f in fields(Tokens)]
    state = read_digested(
        Path(path), names, _FORMAT, what="file of tokens", later=["made_by"]
    )
    state["ids"] = state["ids"].astype(np.int32)
    state["ch_names"] = tuple(state["ch_names"])
    try:
        return Tokens(**state)
    except EEGTensorError as error:
        fail(f"{path} holds no tokens: {error}", fix=_FIX, cause=error)
