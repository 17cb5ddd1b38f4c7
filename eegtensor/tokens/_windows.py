"""Tokens of several recordings as what a network takes: windows of one size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.tokens._makers import check_maker
from eegtensor.tokens._positions import Places
from eegtensor.tokens.tokens import Tokens


def ids_of(tokens: Tokens) -> NDArray:
    """Return ids with an axis of trials, (n_trials, n_units, n_frames, n_slots)."""
    ids = np.asarray(tokens.ids)
    return ids[None] if ids.ndim == 3 else ids


def check_alphabet(tokens: Tokens, alphabet: ArrayLike, made_by: str | None) -> None:
    """Raise unless tokens are those of one tokenizer, and within its alphabet.

    Parameters
    ----------
    tokens : Tokens
    alphabet : array, shape (n_slots,)
    made_by : str | None
        Of the tokens of the fit, see `Tokens`.

    Raises
    ------
    EEGTensorError
        If slots or their sizes differ, or an id is too large, or another tokenizer
        is known to have made them.
    """
    check_maker(tokens.made_by, made_by, reader="those of the fit by")
    mine, known = np.asarray(tokens.alphabet), np.asarray(alphabet)
    if not np.array_equal(mine, known):
        fail(
            f"tokens have {len(mine)} slots with {int(mine.sum())} codes, the model "
            f"{len(known)} with {int(known.sum())}",
            why="Ids mean something to the tokenizer that gave them alone",
            fix="encode with the tokenizer of the fit",
        )
    ids = ids_of(tokens)
    if ids.size and (
        ids.min() < -1 or (ids.max(axis=(0, 1, 2)) >= np.maximum(known, 1)).any()
    ):
        fail("ids lie outside of their alphabet", fix="give tokens of encode()")


def windows(tokens: Tokens, places: Places, n_frames: int) -> dict[str, Tensor]:
    """Return trials cut into windows, the last one filled up.

    Returns
    -------
    x : dict
        ``ids``, (n_trials, n_windows, n_units, n_frames, n_slots), and ``present``
        without the last axis; ``places``, (n_trials, n_units, 23), and ``index``,
        (n_trials, n_units).
    """
    ids = ids_of(tokens)
    n_trials, n_units, total, n_slots = ids.shape
    size = min(n_frames, total)
    n_windows = math.ceil(total / size)
    # Codes of every tokenizer known fit: a quarter of the memory of int64.
    small = np.int16 if int(np.max(tokens.alphabet)) < 1 << 15 else np.int32
    filled = np.full((n_trials, n_units, n_windows * size, n_slots), -1, dtype=small)
    filled[:, :, :total] = ids
    cut = filled.reshape(n_trials, n_units, n_windows, size, n_slots)
    here = np.arange(n_windows * size).reshape(n_windows, 1, size) < total
    present = np.broadcast_to(here, (n_trials, n_windows, n_units, size))
    return {
        "ids": torch.from_numpy(np.ascontiguousarray(cut.swapaxes(1, 2))),
        "present": torch.from_numpy(present.copy()),
        "places": torch.from_numpy(places.features).repeat(n_trials, 1, 1),
        "index": torch.from_numpy(places.number).repeat(n_trials, 1),
    }


def as_sequences(x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return windows as trials of their own, their axis gone."""
    n_windows = x["ids"].shape[1]
    return {
        "ids": x["ids"].flatten(0, 1),
        "present": x["present"].flatten(0, 1),
        "places": x["places"].repeat_interleave(n_windows, dim=0),
        "index": x["index"].repeat_interleave(n_windows, dim=0),
    }


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return sequences of several recordings as one, filled up to the largest."""
    n_units = max(p["ids"].shape[1] for p in parts)
    n_frames = max(p["ids"].shape[2] for p in parts)
    fills = {"ids": -1, "present": 0, "places": 0, "index": 0}
    both = {"ids", "present"}
    found = {}
    for name, fill in fills.items():
        rows = []
        for part in parts:
            v = part[name]
            shape = [len(v), n_units, *v.shape[2:]]
            if name in both:
                shape[2] = n_frames
            wide = torch.full(shape, fill, dtype=v.dtype)
            if name in both:
                wide[:, : v.shape[1], : v.shape[2]] = v
            else:
                wide[:, : v.shape[1]] = v
            rows.append(wide)
        found[name] = torch.cat(rows)
    return found
