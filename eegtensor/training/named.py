"""All plugs of a run from the names of their methods."""

from __future__ import annotations

from typing import Any

from torch import nn

from eegtensor._check import fail
from eegtensor.training.optimizers.make import make_optimizer
from eegtensor.training.registry import Setup, build, parse


def make_plugs(
    setup: Setup,
    *,
    objective: Any = "cross-entropy",
    perturbation: Any = None,
    grad_transform: Any = None,
    averager: Any = None,
    sampler: Any = "shuffle",
    optimizer: Any = "riemannian-adam",
    recipe: Any = None,
    raw_trials: bool = True,
) -> dict[str, Any]:
    """Return the arguments of `train` that methods given by their names make.

    Parameters
    ----------
    setup : Setup
    objective, perturbation : str | tuple | object | None
        Each of a tuple is a string or a plug itself.
    grad_transform, averager, sampler, optimizer, recipe : str | object | None
    raw_trials : bool
        Whether `setup.data` are trials as recorded, and not what a front
        computed of them.

    Raises
    ------
    EEGTensorError
        If a name or an option is not known, or something that it needs is missing.
    """

    def several(value: Any, kind: str) -> list[Any]:
        if value is None:
            return []
        items = value if isinstance(value, (tuple, list)) else (value,)
        return [build(item, kind, setup) for item in items]

    def one(value: Any, kind: str) -> Any:
        return None if value is None else build(value, kind, setup)

    found: dict[str, Any] = {
        "objective": several(objective, "objective"),
        "perturbation": several(perturbation, "perturbation"),
        "grad_transform": one(grad_transform, "gradient transform"),
        "averager": one(averager, "averager"),
        "sampler": one(sampler, "sampler"),
        "recipe": one(recipe, "recipe"),
    }
    if isinstance(recipe, str) and hasattr(found["recipe"], "sampler"):
        # Made for the run without knowing its batches, such as those of "m3s".
        found["recipe"].sampler = found["sampler"]
    terms = [term for _, term in found["objective"]]
    for plug in (*terms, *found["perturbation"]):
        if "raw trials" in getattr(plug, "needs", ()) and not raw_trials:
            fail(
                f"{type(plug).__name__} changes trials, but the network gets what its "
                "front computed of them beforehand",
                fix="set front='conv', so that trials enter the network themselves",
            )
    # Objectives with parameters of their own have them trained, too.
    extra = [m for m in terms if isinstance(m, nn.Module)]
    if isinstance(optimizer, str):
        _, name, options = parse(optimizer, "optimizer")
        options = {"lr": setup.lr, "weight_decay": setup.weight_decay} | options
        optimizer = make_optimizer(setup.model, name, extra=extra, **options)
    found["optimizer"] = optimizer
    return found
