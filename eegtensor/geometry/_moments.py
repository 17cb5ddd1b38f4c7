"""Second moments of trials, of missing samples too, and how sure they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry.spectral import symmetrize


class Moments(NamedTuple):
    """What the estimators shrink.

    Attributes
    ----------
    C : Tensor, shape (..., n, n)
        Mean products of centred samples.
    samples : Tensor, shape (..., n, n) or (1, 1)
        Number of samples behind each entry.
    error : Tensor, shape (...)
        Sum over entries of their squared standard errors; 0 unless asked for.
    """

    C: Tensor
    samples: Tensor
    error: Tensor


def full_moments(X: Tensor, *, fourth: bool) -> Moments:
    """Return moments of complete trials, shape (..., n, n_times)."""
    Z = X - X.mean(dim=-1, keepdim=True)
    n_times = X.shape[-1]
    C = Z @ Z.mT / n_times
    count = torch.full((1, 1), float(n_times), dtype=X.dtype, device=X.device)
    error = torch.zeros((), dtype=X.dtype, device=X.device)
    if fourth:
        # The mean over time of ||z z'||^2, without forming a matrix for each sample.
        squares = Z.square().sum(dim=-2)
        spread = squares.square().mean(dim=-1) - (C**2).sum(dim=(-1, -2))
        error = spread / n_times
    return Moments(C, count, error)


def masked_moments(X: Tensor, mask: Tensor, *, fourth: bool) -> Moments:
    """Return moments of the samples that the mask keeps.

    Parameters
    ----------
    X : Tensor, shape (..., n, n_times)
    mask : Tensor, shape (..., n_times) or (..., n, n_times)
    fourth : bool
        Whether `error` is needed.
    """
    shapes = (tuple(X.shape), (*X.shape[:-2], X.shape[-1]))
    if tuple(mask.shape) not in shapes:
        fail(
            f"mask has shape {tuple(mask.shape)}, X has {tuple(X.shape)}",
            fix=f"give a mask of shape {shapes[1]} or {shapes[0]}",
        )
    shared = mask.ndim < X.ndim
    used = (mask[..., None, :] if shared else mask).to(X.device, torch.bool)
    m = used.to(X.dtype)
    # NaN times 0 is NaN: what the mask leaves out goes first.
    kept = torch.where(used, X, 0.0)
    mean = kept.sum(dim=-1, keepdim=True) / m.sum(dim=-1, keepdim=True).clamp_min(1.0)
    Z = (kept - mean) * m
    count = m @ m.mT
    safe = count.clamp_min(1.0)
    C = symmetrize(Z @ Z.mT / safe)
    error = torch.zeros((), dtype=X.dtype, device=X.device)
    if fourth:
        squares = Z**2
        error = ((squares @ squares.mT / safe - C**2) / safe).sum(dim=(-1, -2))
    return Moments(C, count, error)
