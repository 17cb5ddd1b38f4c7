"""Which tokenizer made tokens: what they mean to others is nothing."""

from __future__ import annotations

from typing import Any

from eegtensor._check import fail
from eegtensor.tokens._saving import digest

# Letters of a digest: enough that no two tokenizers have the same by chance.
_LETTERS = 16


def maker_of(
    kind: str, bits_per_second: float, ch_names: tuple[str, ...], codec: dict[str, Any]
) -> str:
    """Return what a tokenizer's tokens bear: kind, rate and a digest of the codec.

    Parameters
    ----------
    kind : str
    bits_per_second : float
    ch_names : tuple of str
        Of a spatial tokenizer.
    codec : dict
        Its state: the same weights and options have the same name wherever they
        were fitted or loaded.
    """
    found = digest({"kind": kind, "ch_names": tuple(ch_names), "codec": codec})
    return f"{kind} {bits_per_second:g} bit/s {found[:_LETTERS]}"


def check_maker(theirs: str | None, mine: str | None, *, reader: str) -> None:
    """Raise if tokens are known to be of another tokenizer.

    Parameters
    ----------
    theirs, mine : str | None
        Of `maker_of`; None where it is not known, as in older files.
    reader : str
        For errors: who is to read the tokens.

    Raises
    ------
    EEGTensorError
        If both are known and differ.
    """
    if theirs is not None and mine is not None and theirs != mine:
        fail(
            f"these tokens were made by {theirs!r}, {reader} {mine!r}",
            why="Ids mean something to the tokenizer that gave them alone",
            fix="use the tokenizer that encoded, or encode again with this one",
        )
