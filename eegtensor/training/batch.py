"""The trials of one step: signals, labels, domains, positions and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import fail

# A tensor, or a tuple or mapping of tensors with one row a trial each.
Inputs = Any
# Class code of a trial whose class is not known.
UNLABELLED = -1


# Not compared: equality of tensors has no truth value.
@dataclass(frozen=True, eq=False)
class Batch:
    """Trials that travel whole through a training step.

    The whole training set is a `Batch` too; `pick` cuts the batches of a step
    out of it.

    Parameters
    ----------
    x : Tensor | tuple | mapping of Tensor
        One row a trial; a tuple or a mapping where the network takes more than
        one array, such as lagged covariances and edges.
    y : Tensor, shape (n_trials, ...) | None
        Class codes (int64), -1 where the class is not known, or targets (float).
    domain : Tensor of int64, shape (n_trials,) | None
        Codes of the network's own name table; -1 is unseen.
    index : Tensor of int64, shape (n_trials,) | None
        Position of each trial in the training set: methods that remember
        something about every trial find it by this.
    weight : Tensor, shape (n_trials,) | None
        Factor of each trial's loss.

    Raises
    ------
    EEGTensorError
        If the parts differ in their number of trials.
    """

    x: Inputs
    y: Tensor | None = None
    domain: Tensor | None = None
    index: Tensor | None = None
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        n_trials = len(self)
        for field in fields(self):
            for leaf in _leaves(getattr(self, field.name)):
                if leaf.ndim == 0 or leaf.shape[0] != n_trials:
                    fail(
                        f"{field.name} of a batch has shape {tuple(leaf.shape)} for "
                        f"{n_trials} trials",
                        fix="give every part one row a trial",
                    )

    def __len__(self) -> int:
        return _first_leaf(self.x).shape[0]

    @property
    def device(self) -> torch.device:
        """Where the trials are."""
        return _first_leaf(self.x).device

    def pick(self, index: Tensor) -> Batch:
        """Return the trials at `index` (int64, on the device of the trials).

        Their `index` is their position in this batch, or where this batch was
        itself picked, in the set that it was picked from.
        """
        picked = {
            field.name: _map(
                lambda leaf: leaf.index_select(0, index), getattr(self, field.name)
            )
            for field in fields(self)
        }
        if self.index is None:
            picked["index"] = index
        return Batch(**picked)

    def parts(self, count: int) -> list[Batch]:
        """Return the trials in order, cut into `count` batches (fewer if too few)."""
        if count == 1:
            return [self]
        order = torch.arange(len(self), device=self.device)
        return [self.pick(part) for part in order.tensor_split(min(count, len(self)))]

    def to(self, device: torch.device | str) -> Batch:
        """Return the trials on another device, without waiting for the copy."""
        device = torch.device(device)
        if all(
            leaf.device == device
            for field in fields(self)
            for leaf in _leaves(getattr(self, field.name))
        ):
            # Callers ask in every step: nothing is made anew where all is in place.
            return self
        return Batch(
            **{
                field.name: _map(
                    lambda leaf: leaf.to(device, non_blocking=True),
                    getattr(self, field.name),
                )
                for field in fields(self)
            }
        )


def labels_of(batch: Batch, who: str) -> Tensor:
    """Return the class codes of a batch.

    Raises
    ------
    EEGTensorError
        If it has none, in the name of `who` needs them.
    """
    if batch.y is None:
        fail(f"{who} got trials without labels", fix="give y to the Batch")
    return batch.y


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map(function, item) for key, item in value.items()}
    items = [_map(function, item) for item in value]
    # A named tuple takes its parts one by one.
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


def _leaves(value: Any) -> list[Tensor]:
    if value is None:
        return []
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        fail(
            f"A part of a batch is a {type(value).__name__}",
            fix="give torch tensors (torch.as_tensor(array)), or a tuple or mapping "
            "of them for x",
        )
    return [leaf for item in value for leaf in _leaves(item)]


def _first_leaf(value: Any) -> Tensor:
    leaves = _leaves(value)
    if not leaves or leaves[0].ndim == 0:
        fail("x of a batch holds no trials", fix="give a tensor with one row a trial")
    return leaves[0]
