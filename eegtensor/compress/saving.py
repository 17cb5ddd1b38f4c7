"""Compressed networks as files: safetensors and JSON, no code."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail, listing
from eegtensor.compress._layers import Shape, replace_layers, tiny
from eegtensor.compress._packing import pack_bits, unpack_bits
from eegtensor.compress.int8 import Int8Layer
from eegtensor.compress.packed import PackedLayer
from eegtensor.nn import FactorizedConv1d, FactorizedConv2d, FactorizedLinear
from eegtensor.training.files import read_state, write_state

FLOATS = ("float32", "float16", "int8")
_FORMAT = "eegtensor compressed 1"
# Numbers that share a scale, and the fewest for which that is worth it.
_RUN, _FEWEST = 128, 256


def _convolution(layer: Any) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
    return {name: getattr(layer, name) for name in (*names, "dilation", "groups")}


def _network(layer: Any, sizes: dict[str, Any], n_in: int, n_taps: int) -> Any:
    layout = layer.layout
    return sizes | {
        "kind": layout.kind,
        "rank": layout.ranks,
        "t": layout.t,
        "in_shape": layout.modes[:n_in],
        "out_shape": layout.modes[n_in + n_taps :],
    }


# What makes a layer of its kind again, but for its numbers.
_SPECS: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    nn.Linear: lambda m: {"in_features": m.in_features, "out_features": m.out_features},
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: lambda m: {"num_features": m.num_features},
    nn.BatchNorm2d: lambda m: {"num_features": m.num_features},
    FactorizedLinear: lambda m: _network(
        m, {"in_features": m.in_features, "out_features": m.out_features}, m._n_in, 0
    ),
    FactorizedConv1d: lambda m: _network(m, _convolution(m), m._n_in, 1),
    FactorizedConv2d: lambda m: _network(m, _convolution(m), m._n_in, 1),
    PackedLayer: lambda m: dict(m.spec),
    Int8Layer: lambda m: dict(m.spec),
}
_BY_NAME = {kind.__name__: kind for kind in _SPECS}
_NORMS = ("eps", "momentum", "affine", "track_running_stats")


def structure(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what each layer is that a compressor may have put there, by name."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        spec = _SPECS.get(type(module))
        if spec is None:
            continue
        found[name] = {"class": type(module).__name__} | spec(module)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            found[name] |= {key: getattr(module, key) for key in _NORMS}
        elif "bias" not in found[name]:
            found[name]["bias"] = getattr(module, "bias", None) is not None
    return found


def _built(spec: dict[str, Any]) -> nn.Module:
    options = {key: value for key, value in spec.items() if key != "class"}
    kind = _BY_NAME[spec["class"]]
    if kind in (PackedLayer, Int8Layer):
        kinds, size, *rest = options.pop("shape")
        shape = Shape(kinds, tuple(size), *(_tuples(part) for part in rest))
        return kind(shape, **options)
    # Numbers drawn here are replaced: others' random numbers stay as they are.
    with torch.random.fork_rng([]):
        return kind(**options)


def _tuples(part: Any) -> Any:
    return tuple(part) if isinstance(part, list) else part


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    floats: str = "float32",
    leave: Iterable[str] = (),
) -> int:
    """Write a compressed network to one file; return its bytes.

    Parameters
    ----------
    model : Module
        Of a compressor, or a plain one.
    path : path-like
    floats : "float32" | "float16" | "int8"
        Of numbers that are not codes: as they are; rounded to 16 bits; or to 8 with a
        scale for each 128, where there are at least 256. `load` makes float32 of them.
    leave : iterable of str
        Names of numbers that are not written, with * for any part: those that another
        file has, such as a tokenizer's table.
    """
    check_option("floats", floats, FLOATS)
    left = [leave] if isinstance(leave, str) else list(leave)
    tensors: dict[str, Any] = {}
    missing = []
    for name, value in model.state_dict().items():
        if any(fnmatchcase(name, pattern) for pattern in left):
            missing.append(name)
        else:
            tensors[name] = _shortened(value, floats)
    content = {"structure": structure(model), "tensors": tensors, "left": missing}
    write_state(Path(path), content, _FORMAT)
    return Path(path).stat().st_size


def load(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Return a network that `save` wrote.

    Parameters
    ----------
    path : path-like
    model : Module
        As before compression, with any weights: it says what cannot be a file. It is
        changed; numbers that were not written stay as they are in it.

    Returns
    -------
    model : Module
        In evaluation mode.

    Raises
    ------
    EEGTensorError
        If the file is damaged or of another network.
    """
    content = read_state(
        Path(path),
        _FORMAT,
        what="compressed network",
        fix="give the path of a file that compress.save wrote",
    )
    here = structure(model)
    tensors = {name: _restored(value) for name, value in content["tensors"].items()}
    for name, spec in content["structure"].items():
        if here.get(name) == spec:
            continue
        try:
            own = [v for n, v in tensors.items() if n.startswith(name and name + ".")]
            made = _built(spec).to(next(filter(torch.is_floating_point, own)).dtype)
            model = replace_layers(model, {name: made})
        except (AttributeError, KeyError, StopIteration, TypeError) as error:
            fail(
                f"{path} is of another network than {type(model).__name__}: {error}",
                fix="give the network that was compressed, as it was before",
                cause=error,
            )
    found = model.load_state_dict(tensors, strict=False)
    lost = set(found.missing_keys) - set(content["left"])
    if lost or found.unexpected_keys:
        fail(
            f"{path} is of another network than {type(model).__name__}: "
            f"{listing([*lost, *found.unexpected_keys])}",
            fix="give the network that was compressed, as it was before",
        )
    return model.eval()


def _shortened(value: Tensor, floats: str) -> Any:
    value = value.detach().as_subclass(Tensor)
    if value.dtype == torch.bool:
        return {"bits": pack_bits(value, 1), "size": list(value.shape)}
    if floats == "float32" or not value.is_floating_point():
        return value
    if floats == "float16":
        return {"half": value.half(), "like": str(value.dtype).removeprefix("torch.")}
    if value.numel() < _FEWEST or value.ndim < 2:
        return value
    flat = value.reshape(-1)
    rows = nn.functional.pad(flat, (0, -len(flat) % _RUN)).view(-1, _RUN)
    scale = rows.abs().amax(dim=1).clamp_min(tiny(rows)) / 127
    codes = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return {
        "codes": codes.reshape(-1)[: len(flat)],
        "scale": scale,
        "size": list(value.shape),
    }


def _restored(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if "bits" in value:
        n = math.prod(value["size"])
        return unpack_bits(value["bits"], 1, n).bool().view(value["size"])
    if "half" in value:
        half: Tensor = value["half"]
        return half.to(getattr(torch, value["like"]))
    codes, scale = value["codes"], value["scale"]
    whole = nn.functional.pad(codes, (0, -len(codes) % _RUN)).view(-1, _RUN)
    rows = whole.to(scale) * scale[:, None]
    return rows.reshape(-1)[: len(codes)].view(value["size"])
