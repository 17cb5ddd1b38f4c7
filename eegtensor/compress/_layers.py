"""Which layers of a network are compressed, and putting others in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from eegtensor._check import fail, listing
from eegtensor.training.adapters import is_manifold_parameter

# Subclasses may do more than these.
_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
}


class Shape(NamedTuple):
    """What a linear layer or convolution does with its weight.

    Attributes
    ----------
    kind : "linear" | "conv1d" | "conv2d"
    size : tuple of int
        Of the weight, outputs first.
    stride, padding, dilation : tuple of int
        Of convolutions; the padding may be "same" or "valid".
    groups : int
    """

    kind: str
    size: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, layer: nn.Module) -> Shape:
        """Return what a layer of torch does."""
        kind, weight = _KINDS[type(layer)], layer.weight
        assert isinstance(weight, Tensor)
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            padding = layer.padding
            return cls(
                kind,
                tuple(weight.shape),
                tuple(layer.stride),
                padding if isinstance(padding, str) else tuple(padding),
                tuple(layer.dilation),
                layer.groups,
            )
        return cls(kind, tuple(weight.shape))

    def row(self, values: Tensor) -> Tensor:
        """Return one number an output, shaped to be multiplied with the weight."""
        return values.view(-1, *[1] * (len(self.size) - 1))

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the layer makes of x with a weight."""
        if self.kind == "linear":
            return F.linear(x, weight, bias)
        convolve = F.conv1d if self.kind == "conv1d" else F.conv2d
        return convolve(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )


def bias_of(layer: nn.Module) -> Tensor | None:
    """Return a layer's bias, detached."""
    bias = layer.bias
    return bias.detach().clone() if isinstance(bias, Tensor) else None


def find_layers(
    model: nn.Module,
    *,
    skip: Iterable[str] = (),
    min_size: int = 0,
    keep_ends: bool = False,
) -> dict[str, nn.Module]:
    """Return the layers to compress by their names, in the network's order.

    Linear layers and convolutions of torch, of at least `min_size` numbers. Those
    with weights on a manifold, parametrised or shared, with hooks or with padding
    other than zeros are left, and subclasses, which may do more.

    Parameters
    ----------
    model : Module
    skip : iterable of str
        Names to leave, with * for any part.
    min_size : int
    keep_ends : bool
        Whether the first and the last that could be compressed are left as well.

    Raises
    ------
    EEGTensorError
        If a name to skip is that of no layer, or nothing is left to compress.
    """
    patterns = (skip,) if isinstance(skip, str) else tuple(skip)
    uses: dict[int, int] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            uses[id(p)] = uses.get(id(p), 0) + 1
    names: dict[int, int] = {}
    for _, layer in model.named_modules(remove_duplicate=False):
        names[id(layer)] = names.get(id(layer), 0) + 1
    whole = {n: m for n, m in model.named_modules() if type(m) in _KINDS}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in whole):
            fail(
                f"skip={pattern!r} is the name of no layer",
                fix=f"choose from {listing(whole, limit=40)}",
            )
    found = {
        name: layer
        for name, layer in whole.items()
        if names[id(layer)] == 1 and _plain(layer, uses)
    }
    if keep_ends:
        found = dict([*found.items()][1:-1])
    found = {
        name: layer
        for name, layer in found.items()
        if _numbers(layer) >= min_size
        and not any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not found:
        fail(
            f"{type(model).__name__} has no layer to compress",
            why="There is no linear layer or convolution of torch that is large "
            "enough, not skipped, not shared and not on a manifold",
            fix="lower min_size, or skip fewer",
        )
    return found


def _plain(layer: nn.Module, uses: Mapping[int, int]) -> bool:
    weight = layer.weight
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    return (
        not parametrize.is_parametrized(layer)
        and not any(hooks)
        and isinstance(weight, nn.Parameter)
        and not is_manifold_parameter(weight)
        and weight.is_floating_point()
        and uses[id(weight)] == 1
        and getattr(layer, "padding_mode", "zeros") == "zeros"
    )


def _numbers(layer: nn.Module) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.numel()


def replace_layers(model: nn.Module, made: Mapping[str, nn.Module]) -> nn.Module:
    """Put layers in their places, by name; return the model, which may be one."""
    for name, layer in made.items():
        if not name:
            return layer
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return model


def layers_of(model: nn.Module, kind: Any) -> dict[str, Any]:
    """Return all modules of a class by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, kind)}


def count_numbers(model: nn.Module) -> int:
    """Return how many numbers the parameters of a network hold."""
    return sum(p.numel() for p in model.parameters())


def tiny(x: Tensor) -> float:
    """Return the smallest normal number of a tensor's type."""
    return float(torch.finfo(x.dtype).tiny)
