"""Signals with lost cells, every channel of zero mean and unit power."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.geometry._bridge import Array, floating
from eegtensor.tensor._shapes import as_tensor
from eegtensor.tensor.completion._kinds import hide, kinds_of


class Standard(NamedTuple):
    """What an array holds, and how to write the answer in its unit.

    Attributes
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times), float64
        Zero where lost.
    seen : Tensor of bool, same shape
    mean, scale : Tensor, shape (n_channels, 1)
    original : Tensor
        As given.
    """

    values: Tensor
    seen: Tensor
    mean: Tensor
    scale: Tensor
    original: Tensor

    def restored(self, values: Tensor) -> Tensor:
        """Return completed values in the unit, shape and dtype of the original."""
        shape = self.original.shape
        found = (values * self.scale + self.mean).to(self.original.dtype)
        return torch.where(self.seen.view(shape), self.original, found.view(shape))


def standardise(X: Array, mask: Array | None) -> Standard:
    """Return signals of shape (n_channels, n_times) or with trials before."""
    if X.ndim not in (2, 3):
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give (n_channels, n_times) or (n_trials, n_channels, n_times)",
        )
    known, observed, _ = as_tensor(X, mask)
    values = known.double().reshape(-1, *X.shape[-2:])
    seen = torch.ones_like(values, dtype=torch.bool)
    if observed is not None:
        seen = observed.reshape(values.shape)
    count = seen.sum(dim=(0, 2))
    if bool((count == 0).any()):
        fail(
            f"Channels {listing((count == 0).nonzero()[:, 0].tolist())} hold no data",
            why="Their own past is all that delays could say about them",
            fix="drop them, or use complete(), which takes their positions",
        )
    mean = (values.sum(dim=(0, 2)) / count)[:, None]
    values = torch.where(seen, values - mean, 0.0)
    scale = (values.square().sum(dim=(0, 2)) / count).sqrt()[:, None]
    scale = torch.where(scale > 0, scale, 1.0)
    return Standard(values / scale, seen, mean, scale, floating(X.detach()))


def hidden_cells(seen: Tensor, rng: np.random.Generator) -> Tensor:
    """Return about 5 % of the observed cells, in patterns like those of the lost."""
    cells = seen.numpy(force=True)
    return torch.from_numpy(hide(cells, kinds_of(cells), rng) > 0).to(seen.device)
