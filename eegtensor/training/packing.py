"""Nested states as JSON and tensors: nothing in a file can run code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail

# Keys that begin so are ours: a dict that has one of its own is written as pairs.
_MARK = "$"


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return what JSON can hold of a value, and its tensors by a running number.

    Dicts, lists, tuples, tensors, arrays, numbers, strings and None come back
    from `unpack` as they were; arrays and tensors bit for bit.

    Raises
    ------
    EEGTensorError
        If something else is in it.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(value, tensors, "state"), tensors


def _pack(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        is_array = isinstance(value, np.ndarray)
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        key = str(len(tensors))
        # A copy: safetensors refuses tensors that share memory.
        plain = tensor.detach().as_subclass(Tensor).cpu()
        tensors[key] = plain.clone(memory_format=torch.contiguous_format)
        return {_MARK + ("array" if is_array else "tensor"): key}
    if isinstance(value, np.generic):
        return _pack(value.item(), tensors, where)
    if isinstance(value, Mapping):
        plain_keys = all(isinstance(k, str) and k[:1] != _MARK for k in value)
        items = {k: _pack(v, tensors, f"{where}[{k!r}]") for k, v in value.items()}
        if plain_keys:
            return items
        return {
            _MARK + "dict": [[_pack(k, tensors, where), v] for k, v in items.items()]
        }
    if isinstance(value, (list, tuple)):
        packed = [_pack(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]
        return packed if isinstance(value, list) else {_MARK + "tuple": packed}
    fail(
        f"A checkpoint cannot hold {where}, which is a {type(value).__name__}",
        why="Checkpoints hold numbers, strings, arrays and tensors, never code",
        fix="let its state_dict() return these alone",
    )


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `pack` took apart."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    content: Any
    mark, content = next(iter(value.items()), ("", None))
    if mark[:1] != _MARK:
        return {k: unpack(v, tensors) for k, v in value.items()}
    if mark == _MARK + "tensor":
        return tensors[content]
    if mark == _MARK + "array":
        return tensors[content].numpy()
    if mark == _MARK + "tuple":
        return tuple(unpack(v, tensors) for v in content)
    return {unpack(k, tensors): unpack(v, tensors) for k, v in content}
