"""Tensor networks in place of the large weights of a trained network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import geoopt
import torch
from torch import nn
from torch.nn.utils import parametrize

from eegtensor._check import EEGTensorError, check_count, check_option, fail
from eegtensor.nn._factorised import FactorizedLayer
from eegtensor.nn._layout import KINDS, choose_layout
from eegtensor.nn._mode_shapes import balanced_shape
from eegtensor.nn.factorised import FactorizedLinear
from eegtensor.nn.factorised_conv import FactorizedConv1d, FactorizedConv2d


class FactorizedReport(NamedTuple):
    """What became of one layer.

    Attributes
    ----------
    name : str
        As in ``model.named_modules()``.
    before, after : int
        Numbers of the layer.
    error : float
        ||W - rebuilt W|| / ||W||; 0 where it was left as it is.
    reason : str
        Why it was left; empty where it was factorised.
    """

    name: str
    before: int
    after: int
    error: float
    reason: str


class Factorization(NamedTuple):
    """What `factorize_` did; as text, a table.

    Attributes
    ----------
    layers : tuple of FactorizedReport
        Every linear layer and convolution, in the model's order.
    before, after : int
        Numbers of the whole model.
    """

    layers: tuple[FactorizedReport, ...]
    before: int
    after: int

    @property
    def ratio(self) -> float:
        """How many times fewer numbers the model has."""
        return self.before / max(self.after, 1)

    def __str__(self) -> str:
        """Return one line for each layer, and one for the model."""
        width = max([len(layer.name) for layer in self.layers] + [5])
        lines = [f"{'layer':{width}} {'before':>9} {'after':>9}  error"]
        for name, before, after, error, reason in self.layers:
            note = reason or f"{error:.3f}"
            lines.append(f"{name:{width}} {before:9d} {after:9d}  {note}")
        total = f"{'model':{width}} {self.before:9d} {self.after:9d}"
        return "\n".join([*lines, f"{total}  {self.ratio:.1f}x"])


def factorize_(
    model: nn.Module,
    rank: int | float | Sequence[int] = 0.1,
    kind: str = "tt",
    *,
    skip: Iterable[str] = (),
    min_size: int = 1024,
    t: int = 2,
) -> Factorization:
    """Replace linear layers and convolutions by factorised ones, in place.

    Each weight is decomposed, so the network still does nearly what it did; train
    it on for a few epochs to win back what the report calls the error. Make the
    optimizer afterwards: the parameters are new.

    Layers that stay: smaller than `min_size`, of several groups, with weights on a
    manifold, parametrised or shared, with hooks, subclasses of torch's (they may do
    more), and those that would not become smaller.

    Parameters
    ----------
    model : nn.Module
        Trained. A model that is itself one layer cannot be replaced in place: use
        `FactorizedLinear.from_linear`.
    rank : int | float | sequence of int
        Below 1 a share of each weight's numbers; see `FactorizedLinear`.
    kind : "tt" | "tr" | "tucker" | "cp" | "stt" | "str" | "sttu"
    skip : iterable of str
        Names of layers to leave, with * for any part: "head.*".
    min_size : int
        Fewest numbers of a weight worth the trouble. A narrow last layer, 256 to 4,
        has little to win and much to lose: leave it with 4096, or by `skip`.
    t : int
        Of the semi-tensor product kinds.

    Returns
    -------
    Factorization
        Numbers before and after and the relative error, layer by layer.

    Raises
    ------
    EEGTensorError
        If kind, rank or a name to skip are not known.
    """
    check_option("kind", kind, KINDS)
    check_count("min_size", min_size, least=0)
    listed = isinstance(skip, Iterable) and not isinstance(skip, str)
    patterns = tuple(skip) if listed else (skip,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        fail(f"skip={skip!r}", fix="give a list of names of layers")
    before = _numbers(model)
    found = [
        (name, layer)
        for name, layer in model.named_modules()
        if name and isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d))
    ]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in found):
            fail(
                f"skip={pattern!r} is the name of no layer",
                fix="choose from " + ", ".join(repr(name) for name, _ in found),
            )
    uses: dict[int, int] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            uses[id(p)] = uses.get(id(p), 0) + 1
    # A layer under two names is seen once, but must be replaced under both.
    names: dict[int, int] = {}
    for _, layer in model.named_modules(remove_duplicate=False):
        names[id(layer)] = names.get(id(layer), 0) + 1
    reports, made = [], []
    for name, layer in found:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            reason = "skipped by name"
        elif names[id(layer)] > 1:
            reason = "the layer has several names"
        else:
            reason = _reason(layer, uses, min_size)
        numbers = _numbers(layer)
        report = FactorizedReport(name, numbers, numbers, 0.0, reason)
        if not reason:
            new = _factorised(name, layer, kind, rank, t)
            if new is None:
                report = report._replace(reason="would not be smaller")
            else:
                made.append((name, new))
                report = report._replace(after=_numbers(new), error=new.error)
        reports.append(report)
    # Only now: an error above has left the model whole.
    for name, new in made:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    return Factorization(tuple(reports), before, _numbers(model))


def _reason(layer: nn.Module, uses: dict[int, int], min_size: int) -> str:
    """Return why a layer has to stay, or nothing."""
    if parametrize.is_parametrized(layer):
        return "parametrised"
    if type(layer) not in (nn.Linear, nn.Conv1d, nn.Conv2d):
        return f"a {type(layer).__name__} may do more than its base class"
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    if any(hooks):
        return "has hooks"
    weight = layer.weight
    if isinstance(weight, geoopt.ManifoldParameter):
        return "on a manifold"
    if not isinstance(weight, nn.Parameter):
        return "its weight is not a parameter"
    if not weight.is_floating_point():
        return "not of real numbers"
    if uses[id(weight)] > 1:
        return "its weight is shared"
    if weight.numel() < min_size:
        return f"smaller than {min_size}"
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        if layer.groups > 1:
            return f"{layer.groups} groups"
        if layer.padding_mode != "zeros":
            return f"padding_mode={layer.padding_mode}"
    return ""


def _factorised(
    name: str,
    layer: nn.Module,
    kind: str,
    rank: int | float | Sequence[int],
    t: int,
) -> FactorizedLayer | None:
    """Return the layer that takes the place of another; None if it is no smaller."""
    new: FactorizedLayer
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    n_out, n_in = weight.shape[:2]
    first, last = balanced_shape(n_in), balanced_shape(n_out)
    linear = isinstance(layer, nn.Linear)
    taps = () if linear else (math.prod(weight.shape[2:]),)
    whole = () if linear else (len(first),)
    try:
        cut = len(first) if linear else None
        layout = choose_layout(kind, (*first, *taps, *last), rank, t, whole, cut)
        # Counted first: a decomposition of high rank takes long.
        if layout.n_parameters >= weight.numel():
            return None
        if isinstance(layer, nn.Linear):
            new = FactorizedLinear.from_linear(layer, kind, rank, t=t)
        elif isinstance(layer, nn.Conv1d):
            new = FactorizedConv1d.from_conv(layer, kind, rank, t=t)
        else:
            assert isinstance(layer, nn.Conv2d)
            new = FactorizedConv2d.from_conv(layer, kind, rank, t=t)
    except EEGTensorError as cause:
        fail(
            f"Layer {name!r} cannot become kind={kind!r}: {cause}",
            fix=f"leave it with skip=({name!r},), or choose another kind, rank or t",
            cause=cause,
        )
    for core in new.cores:
        core.requires_grad_(layer.weight.requires_grad)
    if new.bias is not None and layer.bias is not None:
        new.bias.requires_grad_(layer.bias.requires_grad)
    return new


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
