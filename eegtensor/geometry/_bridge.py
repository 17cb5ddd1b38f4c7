"""One code for NumPy and torch: what goes in comes out.

The mathematics is written once, in torch. NumPy arrays are handed over without
a copy, computed without gradients, and handed back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import as_array, fail

# numpy.ndarray or torch.Tensor; the kind that a function gets is the kind it returns.
Array: TypeAlias = Any


def bridged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of tensors take NumPy arrays as well.

    If any argument is a tensor, arrays among the others become tensors on its
    device; without any, the result is a NumPy array again.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        tensors = [v for v in values if isinstance(v, Tensor)]
        if not any(isinstance(v, np.ndarray) for v in values):
            if not tensors:
                fail(
                    f"{function.__name__} got neither an array nor a tensor",
                    fix="give numpy arrays or torch tensors",
                )
            return function(*args, **kwargs)
        device = tensors[0].device if tensors else None
        args = tuple(_to_tensor(v, device) for v in args)
        kwargs = {k: _to_tensor(v, device) for k, v in kwargs.items()}
        if tensors:
            return function(*args, **kwargs)
        with torch.no_grad():
            return _to_numpy(function(*args, **kwargs))

    return wrapper


def _to_tensor(value: Any, device: torch.device | None) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "fiub":
        return value
    if np.ma.is_masked(value):
        value = as_array(value)
    if value.dtype.byteorder not in "=|":
        value = value.astype(value.dtype.newbyteorder("="))
    # torch warns at read-only memory (a memory map), although nothing writes here.
    if not value.flags.writeable or any(step < 0 for step in value.strides):
        value = value.copy()
    tensor = torch.from_numpy(value)
    return tensor if device is None else tensor.to(device)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, tuple):
        items = [_to_numpy(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def floating(X: Tensor) -> Tensor:
    """Return X in a dtype that has eigenvalues: float32 or float64.

    Raises
    ------
    EEGTensorError
        If X is no array of numbers, or holds complex ones.
    """
    if not isinstance(X, Tensor) or X.is_complex():
        kind = f"of dtype {X.dtype}" if hasattr(X, "dtype") else type(X).__name__
        fail(
            f"The array is {kind}",
            why="Only real numbers are worked on",
            fix="of complex numbers give the magnitude (numpy.abs), or the real and "
            "imaginary parts as further channels",
        )
    if X.dtype in (torch.float32, torch.float64):
        return X
    if X.dtype.is_floating_point:
        return X.float()
    return X.double()
