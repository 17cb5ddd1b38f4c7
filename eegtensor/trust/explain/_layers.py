"""What passes through one layer of a network, forward and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import fail, listing
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network
from eegtensor.training.statistics import evaluating


class _Seen:
    """What enters and leaves a layer in a pass."""

    def __init__(self) -> None:
        self.entered: Tensor | None = None
        self.left: Tensor | None = None


@contextmanager
def _watching(module: nn.Module) -> Iterator[_Seen]:
    seen = _Seen()

    def note(_: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            fail(
                f"The layer {type(module).__name__} returns no single tensor",
                fix="choose a layer that does",
            )
        entered = args[0] if args and isinstance(args[0], Tensor) else None
        seen.entered, seen.left = entered, output

    hook = module.register_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """Return a module of a network by its name, or raise naming some."""
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        fail(
            f"The network has no layer {layer!r}",
            fix=f"choose one of {listing([n for n in modules if n], 20)}",
        )
    return modules[layer]


def activations_and_gradients(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    layer: str,
    *,
    domain: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a layer's output, the gradient of the target logits by it, its input.

    The network is in evaluation mode and keeps its gradients and statistics.

    Parameters
    ----------
    model : torch.nn.Module
    x : Tensor, shape (n_trials, ...)
    target : Tensor of int64, shape (n_trials,)
        Class whose logit is looked at.
    layer : str
        Name of a module, see ``model.named_modules()``.
    domain : Tensor of int64, shape (n_trials,) | None
    """
    module = find_layer(model, layer)
    with evaluating(model), torch.enable_grad(), _watching(module) as seen:
        # Without it there is no graph where all parameters are frozen.
        x = x.detach().requires_grad_(x.is_floating_point())
        logits = Network(model)(Batch(x, domain=domain))
        if seen.left is None:
            fail(f"The pass did not go through the layer {layer!r}")
        chosen = logits.gather(1, target[:, None]).sum()
        (g,) = torch.autograd.grad(chosen, seen.left)
    entered = None if seen.entered is None else seen.entered.detach()
    return seen.left.detach(), g, entered
