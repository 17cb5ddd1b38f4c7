"""Second moments of trials, of missing samples too, and how sure they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry.spectral import _eager_cpu, symmetrize


class Moments(NamedTuple):
    """What the estimators shrink.

    Attributes
    ----------
    C : Tensor, shape (..., n, n)
        Mean products of centred samples.
    samples : Tensor, shape (..., n or 1, n or 1)
        Number of samples behind each entry.
    error : Tensor, shape (...)
        Sum over entries of their squared standard errors; 0 unless asked for.
    """

    C: Tensor
    samples: Tensor
    error: Tensor


# Bytes of float64 samples whose centred copy stays in the cache: twice as fast.
_PIECE = 4_000_000


def moments(X: Tensor, mask: Tensor | None, *, fourth: bool) -> Moments:
    """Return moments of trials, in float64.

    Parameters
    ----------
    X : Tensor, shape (..., n, n_times)
    mask : Tensor, shape (..., n_times) or (..., n, n_times) | None
        Samples to use.
    fourth : bool
        Whether `error` is needed.
    """
    if mask is not None:
        mask = _checked(mask, X)
    if not _eager_cpu(X) or X.requires_grad:
        return _moments(X, mask, fourth)
    n_trials = X.shape[:-2].numel()
    step = max(1, _PIECE // (8 * max(1, X.shape[-1] * X.shape[-2])))
    if n_trials <= step:
        return _moments(X, mask, fourth)
    flat = X.reshape(n_trials, *X.shape[-2:])
    masks = None if mask is None else mask.reshape(n_trials, *mask.shape[-2:])
    pieces = [
        _moments(
            flat[i : i + step], None if masks is None else masks[i : i + step], fourth
        )
        for i in range(0, n_trials, step)
    ]
    whole = (torch.cat(field) for field in zip(*pieces, strict=True))
    return Moments(*(part.reshape(*X.shape[:-2], *part.shape[1:]) for part in whole))


def _checked(mask: Tensor, X: Tensor) -> Tensor:
    """Return the mask as bool with an axis of channels, which may be of length one."""
    shapes = (tuple(X.shape), (*X.shape[:-2], X.shape[-1]))
    if tuple(mask.shape) not in shapes:
        fail(
            f"mask has shape {tuple(mask.shape)}, X has {tuple(X.shape)}",
            fix=f"give a mask of shape {shapes[1]} or {shapes[0]}",
        )
    wide = mask if mask.ndim == X.ndim else mask[..., None, :]
    return wide.to(X.device, torch.bool)


def _moments(X: Tensor, mask: Tensor | None, fourth: bool) -> Moments:
    X = X.to(torch.float64)
    if mask is None:
        return _full(X, fourth)
    return _masked(X, mask, fourth)


def _gram(Z: Tensor) -> Tensor:
    if _eager_cpu(Z) and not Z.requires_grad:
        # NumPy sees that both factors are one matrix and does half of the work.
        array = Z.numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            return torch.from_numpy(np.matmul(array, array.swapaxes(-1, -2)))
    return symmetrize(Z @ Z.mT)


def _full(X: Tensor, fourth: bool) -> Moments:
    Z = X - X.mean(dim=-1, keepdim=True)
    n_times = X.shape[-1]
    C = _gram(Z) / n_times
    samples = X.new_full((*X.shape[:-2], 1, 1), float(n_times))
    error = X.new_zeros(X.shape[:-2])
    if fourth:
        # The mean over time of ||z z'||^2, without forming a matrix for each sample.
        squares = Z.square().sum(dim=-2)
        spread = squares.square().mean(dim=-1) - (C**2).sum(dim=(-1, -2))
        error = spread / n_times
    return Moments(C, samples, error)


def _masked(X: Tensor, used: Tensor, fourth: bool) -> Moments:
    m = used.to(X.dtype)
    # NaN times 0 is NaN: what the mask leaves out goes first.
    kept = torch.where(used, X, 0.0)
    mean = kept.sum(dim=-1, keepdim=True) / m.sum(dim=-1, keepdim=True).clamp_min(1.0)
    Z = (kept - mean) * m
    samples = _gram(m)
    safe = samples.clamp_min(1.0)
    C = _gram(Z) / safe
    error = X.new_zeros(X.shape[:-2])
    if fourth:
        error = ((_gram(Z**2) / safe - C**2) / safe).sum(dim=(-1, -2))
    return Moments(C, samples, error)
