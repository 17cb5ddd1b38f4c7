"""Sizes of perturbations that do not depend on the unit of the signals."""

from __future__ import annotations

import torch
from torch import Tensor


def channel_scale(x: Tensor) -> Tensor:
    """Return each channel's standard deviation over trials and times, (1, c, 1, ...).

    The first axis after trials is the channel, of vectors every entry.
    """
    others = (0, *range(2, x.ndim))
    wide = x.double()
    return wide.std(dim=others, keepdim=True, correction=0).to(x.dtype)


def lengths(d: Tensor) -> Tensor:
    """Return the l2 norm of each trial's displacement, shape (n_trials, 1, ...)."""
    norm = d.flatten(1).norm(dim=1)
    return norm.view(-1, *[1] * (d.ndim - 1))


def units(d: Tensor) -> Tensor:
    """Return displacements of length one; those of length zero stay zero."""
    # Divided by the largest entry first: squares of small gradients underflow.
    top = d.flatten(1).abs().amax(1).view(-1, *[1] * (d.ndim - 1))
    d = d / torch.where(top == 0, 1.0, top)
    return d / lengths(d).clamp_min(torch.finfo(d.dtype).tiny)
