"""Channels without any data: the spline, and what it is worth."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.tensor.completion._choose import widening
from eegtensor.tensor.completion._prepare import Prepared
from eegtensor.tensor.completion.spline import spline_error, spline_weights

# Samples that are worked through at a time.
TIMES = 4096


def restore_channels(
    values: Tensor, std: Tensor, prepared: Prepared
) -> tuple[int, float]:
    """Fill channels without data in place; return their cells and expected error.

    Each channel with data is left out in turn: its error, relative to how far it
    is from the others (`spline_error`), says how sure the spline is.
    """
    places, live = prepared.positions, prepared.live
    if places is None:
        fail("channels without data need positions")
    weights = torch.as_tensor(spline_weights(places[live], places[~live]))
    for at in range(0, values.shape[2], TIMES):
        part = values[:, :, at : at + TIMES]
        part[:, ~live] = (weights @ part[:, live].double()).to(values.dtype)
    cells = int((~prepared.seen[:, ~live]).sum())
    here = places[live]
    errors, distances, powers = [], [], []
    step = max(1, values.shape[2] // 4096)
    some = values[:, :, ::step][:, live].double()
    for c in range(len(here)) if len(here) > 3 else ():
        rest = torch.arange(len(here)) != c
        weight = torch.as_tensor(spline_weights(here[rest], here[c : c + 1]))
        left = some[:, c] - torch.einsum("mc,bct->bt", weight, some[:, rest])
        errors.append(left.flatten())
        powers.append(some[:, c].flatten() - prepared.mean[live][c])
        distances.append(spline_error(here[rest], here[c : c + 1]).expand(left.numel()))
    far = spline_error(here, places[~live])
    if not errors:
        std[:, ~live] = values[:, live].double().std().to(std.dtype)
        return cells, float("nan")
    error, distance = torch.cat(errors), torch.cat(distances)
    factor = widening(error.numpy(force=True), distance.numpy(force=True))
    std[:, ~live] = (factor * far)[:, None].to(std.dtype)
    relative = float(error.norm() / torch.cat(powers).norm().clamp_min(1e-300))
    return cells, relative
