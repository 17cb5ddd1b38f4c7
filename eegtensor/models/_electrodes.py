"""Electrodes by name: rows of the tables that tell a patch where it was taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eegtensor._check import fail, listing

_ROWS = {
    "AF": "AF",
    "F": "F",
    "FC": "FT",
    "C": "T",
    "CP": "TP",
    "P": "P",
    "PO": "PO",
}


def _names() -> tuple[str, ...]:
    """Return the 10-10 system with ears, mastoids, eyes and older names, sorted."""
    found = ["Fp1", "Fpz", "Fp2", "O1", "Oz", "O2", "I1", "Iz", "I2", "Nz"]
    for inner, outer in _ROWS.items():
        found += [f"{inner}{i}" for i in ("1", "z", "2", "3", "4", "5", "6")]
        found += [f"{outer}{i}" for i in ("7", "8", "9", "10")]
    found += ["A1", "A2", "M1", "M2", "T1", "T2", "T3", "T4", "T5", "T6"]
    found += ["CB1", "CB2", "SP1", "SP2", "LOC", "ROC", "EOG"]
    return tuple(sorted(name.lower() for name in found))


NAMES = _names()
_PLACE = {name: i for i, name in enumerate(NAMES)}
# A channel of any other name, where a network has a row for those.
OTHER = len(NAMES)


def places(ch_names: Sequence[str], *, others: bool = True) -> Tensor:
    """Return the place of each channel in `NAMES`, int64 (n_channels,).

    Parameters
    ----------
    ch_names : sequence of str
        Any case; dots and spaces around are left out.
    others : bool
        Whether names that are not listed are `OTHER` or an error.

    Raises
    ------
    EEGTensorError
        If a name is not listed and `others` is false.
    """
    found = [_PLACE.get(name.strip(" .").lower(), OTHER) for name in ch_names]
    if not others and OTHER in found:
        lost = [n for n, i in zip(ch_names, found, strict=True) if i == OTHER]
        fail(
            f"the network as published has no place for {listing(lost)}",
            why="Its table holds names of the 10-10 system and a few more",
            fix="rename or drop the channels, or give fixes that have 'channels'",
        )
    return torch.tensor(found, dtype=torch.int64)
