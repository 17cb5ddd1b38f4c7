"""Trials as tensors: checks, and least squares where cells are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import as_array, fail, listing


def check_tensor(X: Any, shape: tuple[int, ...] | None = None) -> NDArray:
    """Return trials (n_trials, d1, ..., dm) as a float array, NaN where missing.

    Raises
    ------
    EEGTensorError
        If X is no numeric array of three or more axes, its trials have another
        shape than `shape`, or a trial holds infinity or nothing but NaN.
    """
    array = as_array(X)
    if array.dtype.kind not in "fiu":
        fail(
            f"X has dtype {array.dtype}, not real numbers",
            fix="of complex ones give the magnitude (numpy.abs), or the real and "
            "imaginary parts along another axis",
        )
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim < 3 or 0 in array.shape:
        fail(
            f"X has shape {array.shape}",
            fix="give one or more trials of shape (n_trials, d1, d2, ...), such as "
            "channels x frequencies x times",
        )
    if shape is not None and array.shape[1:] != shape:
        fail(
            f"Trials have shape {array.shape[1:]}, fit saw {shape}",
            fix="use the same channels, frequencies and times as in fit",
        )
    flat = array.reshape(len(array), -1)
    if np.isfinite(np.einsum("ij,ij->", flat, flat, dtype=np.float64)):
        return array
    infinite = np.flatnonzero(np.isinf(flat).any(axis=1))
    if len(infinite):
        fail(f"Trials {listing(infinite)} hold infinity", fix="drop them or set NaN")
    empty = np.flatnonzero(np.isnan(flat).all(axis=1))
    if len(empty):
        fail(f"Trials {listing(empty)} hold nothing but NaN", fix="drop them")
    return array


def observed_scores(
    observed: Tensor,
    b: Tensor,
    decode: Callable[[Tensor], Tensor],
    correlate: Callable[[Tensor], Tensor],
    level: float,
) -> Tensor:
    """Return least squares over the observed cells, by conjugate gradients.

    The normal equations of each trial are applied, never formed: patterns are
    many in a Tucker model and each trial misses other cells.

    Parameters
    ----------
    observed : Tensor of bool, shape (n_trials, d1, ..., dm)
    b : Tensor, shape (n_trials, n_features)
        Inner products of patterns with trials that are zero where missing.
    decode, correlate : callable
        Scores times the patterns, and inner products of trials with them.
    level : float
        Ridge.
    """
    dtype = b.dtype
    b = b.double()

    def normal(S: Tensor) -> Tensor:
        whole = decode(S.to(dtype)) * observed
        return correlate(whole).double() + level * S

    S = torch.zeros_like(b)
    R = b.clone()
    P = R.clone()
    old = (R * R).sum(dim=1, keepdim=True)
    stop = (1e-10**2) * old
    for _ in range(min(10 * b.shape[1], 500)):
        going = old > stop
        if not bool(going.any()):
            break
        AP = normal(P)
        curvature = (P * AP).sum(dim=1, keepdim=True)
        step = torch.where(going & (curvature > 0), old / curvature, 0.0)
        S, R = S + step * P, R - step * AP
        new = (R * R).sum(dim=1, keepdim=True)
        P = R + torch.where(going, new / old.clamp_min(1e-300), 0.0) * P
        old = torch.where(going, new, old)
    return S.to(dtype)
