"""Compressors by name, one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from eegtensor._check import check_option, fail, listing
from eegtensor._literals import keyword_literals
from eegtensor.compress.binary import Binary
from eegtensor.compress.codebooks import Codebooks
from eegtensor.compress.compressor import Compressor, Tune
from eegtensor.compress.elasticnet import Elastic
from eegtensor.compress.factorise import Factorise
from eegtensor.compress.int8 import Int8
from eegtensor.compress.prune import Prune
from eegtensor.compress.saving import FLOATS
from eegtensor.training import Batch, evaluating


class Store(Compressor):
    """Shorter numbers in the file; the network itself is as it was.

    Parameters
    ----------
    floats : "float32" | "float16" | "int8"
        See `save`.
    """

    tunes = False

    def __init__(self, floats: str = "int8") -> None:
        self.floats = check_option("floats", floats, FLOATS)


# Name of a recipe -> what does it.
COMPRESSORS: dict[str, type[Compressor]] = {
    "factorise": Factorise,
    "prune": Prune,
    "int8": Int8,
    "elastic": Elastic,
    "binary": Binary,
    "codebooks": Codebooks,
    "store": Store,
}


def parse_chain(recipe: str) -> list[Compressor]:
    """Return the compressors that a string names, in their order.

    Parameters
    ----------
    recipe : str
        ``name``, ``name(option=value, ...)``, or several with | between; "" is none.

    Raises
    ------
    EEGTensorError
        If a name or an option is not known.
    """
    return [_made(part.strip()) for part in recipe.split("|") if part.strip()]


def _made(spec: str) -> Compressor:
    name, opened, rest = spec.partition("(")
    name = name.strip()
    check_option("compressor", name, tuple(COMPRESSORS))
    maker = COMPRESSORS[name]
    known = list(inspect.signature(maker).parameters)
    try:
        options = keyword_literals(opened + rest or "()")
    except ValueError as error:
        fail(
            f"{spec!r} is not understood",
            fix=f"write it as {name!r} or '{name}(option=value, ...)'",
            cause=error,
        )
    unknown = [option for option in options if option not in known]
    if unknown:
        fail(
            f"{spec!r}: no option {unknown[0]!r}",
            fix=f"options of {name!r} are {listing(known, limit=20)}",
        )
    return maker(**options)


def compress(
    model: nn.Module,
    recipe: str | Compressor | Sequence[Compressor],
    *,
    tune: Tune | None = None,
    data: Batch | None = None,
) -> nn.Module:
    """Return a smaller network; the one given stays as it is.

    Parameters
    ----------
    model : Module
        Trained.
    recipe : str | Compressor | sequence of Compressor
        ``"factorise(ratio=9.0)"``, ``"prune(keep=0.5)"``, ``"int8"``,
        ``"elastic(final=4)"``, ``"binary(method='biper')"``, ``"codebooks(bits=2)"``,
        ``"store(floats='int8')"``, or several, as ``"prune | int8"``: each compresses
        what the one before it has left.
    tune : callable | None
        Called with a prepared network and its compressor, between the two halves of
        those that are fine-tuned: a `FineTune`.
    data : Batch | None
        Trials for compressors that look at them; labels are not needed.

    Returns
    -------
    small : Module
        In evaluation mode; `save` and `load` keep it.
    """
    if isinstance(recipe, str):
        chain = parse_chain(recipe)
    else:
        chain = [recipe] if isinstance(recipe, Compressor) else list(recipe)
    for part in chain:
        if not isinstance(part, Compressor):
            fail(
                f"{part!r} is no way to compress",
                fix=f"give one of {listing(COMPRESSORS)}",
            )
    with evaluating(model):
        for part in chain or [Compressor()]:
            model = part.prepare(model, data)
            if tune is not None and part.tunes and chain:
                tune(model, part)
            model = part.finish(model, data)
    return model


def floats_of(chain: Sequence[Compressor]) -> str:
    """Return in which form a chain's numbers are to be written."""
    found: list[Any] = [part.floats for part in chain if isinstance(part, Store)]
    return found[-1] if found else "float32"
