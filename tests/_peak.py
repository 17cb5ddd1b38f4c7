"""The memory that tensors take during a call."""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Peak(TorchDispatchMode):
    """Bytes of all tensors alive that operations made, at their highest."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given = given.untyped_storage().data_ptr()
        self.alive: dict[int, tuple[weakref.ref, int, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(item, torch.Tensor):
                storage = item.untyped_storage()
                self.alive[id(item)] = (
                    weakref.ref(item),
                    storage.data_ptr(),
                    storage.nbytes(),
                )
        self.alive = {k: v for k, v in self.alive.items() if v[0]() is not None}
        sizes = {at: size for _, at, size in self.alive.values() if at != self.given}
        self.bytes = max(self.bytes, sum(sizes.values()))
        return out
