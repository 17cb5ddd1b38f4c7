"""Optimizers that know manifolds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from eegtensor._check import EEGTensorError, check_option, fail, listing
from eegtensor.training.adapters import adapter_of, is_manifold_parameter
from eegtensor.training.registry import load, names_of


def make_optimizer(
    model: nn.Module,
    name: str = "riemannian-adam",
    *,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    extra: Sequence[nn.Module] = (),
    **options: Any,
) -> torch.optim.Optimizer:
    """Return an optimizer of the trainable parameters of a network.

    Parameters on manifolds form a group of their own without weight decay: it
    would pull them towards zero, which is not on the manifold.

    Parameters
    ----------
    model : torch.nn.Module
    name : "riemannian-adam" | "riemannian-sgd" | "adam" | "adamw" | "sgd" | ...
        Any method of the kind "optimizer". Those of torch are for networks
        without parameters on manifolds.
    lr : float
    weight_decay : float
    extra : sequence of Module
        Objectives with parameters of their own, which are trained as well.
    **options
        Passed on, such as ``betas`` or ``momentum``.

    Raises
    ------
    EEGTensorError
        If the network has no trainable parameters, or parameters on manifolds
        that the optimizer would leave, or an option is unknown or out of range.
    """
    check_option("name", name, names_of("optimizer"))
    modules = (model, *extra)
    named = [
        (n, p) for m in modules for n, p in m.named_parameters() if p.requires_grad
    ]
    if not named:
        fail(
            f"{type(model).__name__} has no trainable parameters",
            fix="set requires_grad on the parameters that should be trained",
        )
    for parameter_name, p in named:
        # An unknown manifold is an error here, not hours later in a perturbation.
        adapter_of(p, f"The parameter {parameter_name!r}")
    curved = [p for _, p in named if is_manifold_parameter(p)]
    flat = [p for _, p in named if not is_manifold_parameter(p)]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((flat, weight_decay), (curved, 0.0))
        if params
    ]
    try:
        optimizer: torch.optim.Optimizer = load(name)(groups, lr=lr, **options)
    except EEGTensorError:
        raise
    except (TypeError, ValueError) as error:
        fail(
            f"{name!r}: {error}",
            fix="give options that this optimizer has, in their range",
            cause=error,
        )
    check_optimizer(optimizer, model)
    return optimizer


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raise if an optimizer cannot train a network.

    Raises
    ------
    EEGTensorError
        If it holds none of its parameters, or would move parameters off their
        manifolds.
    """
    # It may hold more than these, such as parameters of an objective.
    names = {id(p): name for name, p in model.named_parameters()}
    held = [
        (names[id(p)], p, group)
        for group in optimizer.param_groups
        for p in group["params"]
        if id(p) in names
    ]
    kind = type(optimizer).__name__
    if not held:
        fail(
            f"The optimizer {kind} holds none of the parameters of "
            f"{type(model).__name__}",
            why="Nothing would be trained",
            fix="make it with make_optimizer(model), after model is built",
        )
    curved = [(name, group) for name, p, group in held if is_manifold_parameter(p)]
    # torch steps along straight lines, also off a manifold.
    if curved and type(optimizer).__module__.startswith("torch."):
        fail(
            f"{kind} would move parameters off their manifolds: "
            f"{listing(name for name, _ in curved)}",
            fix="use make_optimizer(model, 'riemannian-adam')",
        )
    decayed = [name for name, group in curved if group.get("weight_decay")]
    if decayed:
        fail(
            f"Weight decay is on for parameters on manifolds: {listing(decayed)}",
            why="It pulls them towards zero, which is not on the manifold",
            fix="use make_optimizer, or give them a group with weight_decay=0",
        )


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put an optimizer back to a state_dict, exactly.

    torch's Adam makes a float32 tensor of geoopt's integer step, whose bias
    corrections then differ in the seventh digit from those of a run that never
    stopped; numbers stay numbers here.
    """
    optimizer.load_state_dict(dict(state))
    saved = iter(state["param_groups"])
    for group in optimizer.param_groups:
        for index, parameter in zip(
            next(saved)["params"], group["params"], strict=True
        ):
            for name, value in state["state"].get(index, {}).items():
                if not isinstance(value, torch.Tensor):
                    optimizer.state[parameter][name] = value
