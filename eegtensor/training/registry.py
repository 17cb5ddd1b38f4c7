"""From a method's name and options in a string to the plug itself.

Parameters of estimators are plain values, so that scikit-learn clones them and
MOABB tells results apart by them: ``"f-sam"``, ``"f-sam(rho=0.1)"`` and, for an
objective with a weight, ``"0.3 * vat(eps=1.0)"``.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from eegtensor._check import fail, listing
from eegtensor._literals import keyword_literals
from eegtensor.training.batch import Batch
from eegtensor.training.methods import METHODS

_SPEC = re.compile(
    r"\s*(?:(?P<weight>[^*()]+)\*)?\s*(?P<name>[\w-]+)\s*(?P<options>\(.*\))?\s*"
)
# What a plug of a kind cannot be without.
_PARTS = {
    "perturbation": "where",
    "averager": "observe",
    "sampler": "indices",
    "recipe": "steps",
}


@dataclass(frozen=True)
class Setup:
    """What a plug may need to know of the run that it is made for.

    A class of plugs with a classmethod ``for_run(setup, **options)`` is made by
    it, any other by its options alone.

    Attributes
    ----------
    model : torch.nn.Module
    data : Batch
        Training trials.
    n_classes : int
    epochs, batch_size, seed : int
    domains_per_batch : int
    lr, weight_decay : float
    validation : Batch | None
    """

    model: nn.Module
    data: Batch
    n_classes: int = 2
    epochs: int = 1
    batch_size: int = 50
    seed: int = 0
    domains_per_batch: int = 5
    lr: float = 1e-3
    weight_decay: float = 1e-4
    validation: Batch | None = None

    def __post_init__(self) -> None:
        # In the run trials are known by their place among these, see `train`.
        object.__setattr__(self, "data", replace(self.data, index=None))


def names_of(kind: str) -> list[str]:
    """Return the names of the methods of a kind."""
    return [name for name, method in METHODS.items() if method.kind == kind]


def parse(spec: str, kind: str) -> tuple[float, str, dict[str, Any]]:
    """Return the weight, the name and the options that a string says.

    Parameters
    ----------
    spec : str
        ``name``, ``name(option=value, ...)`` or ``number * name(...)``.
    kind : str
        Of the methods that are meant.

    Raises
    ------
    EEGTensorError
        If the string is not of this form, or no such method is of this kind.
    """
    found = _SPEC.fullmatch(spec)
    name = found["name"] if found else spec.partition("(")[0].strip()
    known = names_of(kind)
    if name in METHODS and name not in known:
        fail(
            f"{name!r} is no {kind}, but: {METHODS[name].kind}",
            fix=f"choose among {listing(known, limit=60)}",
        )
    if found and name not in known:
        fail(f"{name!r} is no {kind}", fix=f"choose among {listing(known, limit=60)}")
    try:
        if found is None:
            raise ValueError
        factor = float(found["weight"] or 1.0)
        if not math.isfinite(factor):
            raise ValueError
        values = keyword_literals(found["options"] or "()")
    except ValueError as error:
        fail(
            f"{spec!r} is not understood",
            fix=f"write it as {name!r} or '{name}(option=value, ...)'"
            + (f" or '0.5 * {name}'" if kind == "objective" else ""),
            cause=error,
        )
    return factor, name, values


def load(name: str) -> Any:
    """Return the class or function of a method; its file is imported now."""
    module, _, attribute = METHODS[name].source.partition(":")
    return getattr(importlib.import_module(module), attribute)


def build(spec: Any, kind: str, setup: Setup) -> Any:
    """Return the plug that a string says, or the plug itself if it is one.

    Objectives come as (weight, objective).

    Raises
    ------
    EEGTensorError
        If there is no such method or option, or what it needs is not there.
    """
    if not isinstance(spec, str):
        part = _PARTS.get(kind)
        if part is not None and not hasattr(spec, part):
            fail(
                f"{spec!r} is no {kind}: it has no {part!r}",
                fix=f"give one, or a name among {listing(names_of(kind), limit=60)}",
            )
        return (1.0, spec) if kind == "objective" else spec
    weight, name, options = parse(spec, kind)
    if kind != "objective" and weight != 1.0:
        fail(f"{spec!r} has a weight", fix="only objectives add up with weights")
    check_needs(name, setup)
    maker = load(name)
    for_run = getattr(maker, "for_run", None)
    # What `for_run` passes on is for the class itself.
    makers = (maker,) if for_run is None else (for_run, maker)
    parameters = {
        p.name: None
        for function in makers
        for p in inspect.signature(function).parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.name != "setup"
    }
    unknown = [option for option in options if option not in parameters]
    try:
        if unknown:
            raise TypeError(f"no option {unknown[0]!r}")
        inspect.signature(for_run or maker).bind(
            *((setup,) if for_run else ()), **options
        )
        plug = maker(**options) if for_run is None else for_run(setup, **options)
    except TypeError as error:
        # The run's own values, such as its seed, are no options.
        fail(
            f"{spec!r}: {error}",
            fix=f"options of {name!r} are {listing(parameters, limit=20) or 'none'}",
            cause=error,
        )
    return (weight, plug) if kind == "objective" else plug


def check_needs(name: str, setup: Setup) -> None:
    """Raise if the trials of a run lack what a method needs.

    Raises
    ------
    EEGTensorError
    """
    needs, data = METHODS[name].needs, setup.data
    if "two classes" in needs and setup.n_classes != 2:
        fail(
            f"{name!r} is for two classes, there are {setup.n_classes}",
            fix="choose another method, or two of the classes",
        )
    if "y" in needs and data.y is None:
        fail(f"{name!r} needs labels", fix="give y")
    if "domain" in needs and data.domain is None:
        fail(
            f"{name!r} needs to know whose trials these are",
            fix="pass subjects and sessions to fit",
        )
    if "unlabelled" in needs and (data.y is None or not bool((data.y < 0).any())):
        fail(
            f"{name!r} learns from unlabelled trials, and there are none",
            fix="mark trials of unknown class in y by -1 (a Batch) or by None or NaN",
        )
