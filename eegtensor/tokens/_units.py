"""Channels to the units that are coded, and frames to and from their layout."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry import spectral
from eegtensor.tokens._signals import Signals, signals_from, spectra
from eegtensor.tokens.bandrvq import N_BINS


def scaled(signals: Signals, scale: NDArray) -> NDArray:
    """Return signals divided by one scale a channel; a silent one stays zero."""
    safe = np.where(scale > 0, scale, 1.0)[:, None]
    # float32 of the ratio: what rounding in V and uV differs by falls away.
    return np.asarray((signals.X / safe).astype(np.float32), dtype=np.float64)


def check_scale(scale: NDArray | float, n_channels: int) -> NDArray:
    """Return a given scale as one number a channel."""
    found = np.asarray(scale, dtype=np.float64)
    if found.shape not in ((), (n_channels,)) or not (
        np.isfinite(found).all() and (found >= 0).all()
    ):
        fail(
            f"scale has shape {found.shape} for {n_channels} channels",
            fix="give one positive number a channel, in the unit of the recording",
        )
    return np.broadcast_to(found, (n_channels,)).copy()


def components(recordings: list[Signals], X: list[NDArray]) -> NDArray:
    """Return the principal components of scaled recordings, largest first.

    Returns
    -------
    mixing : ndarray, shape (n_units, n_channels)
        Orthogonal rows.
    """
    names = {s.ch_names for s in recordings}
    counts = {x.shape[1] for x in X}
    if len(names) > 1 or len(counts) > 1:
        fail(
            "recordings have different channels: "
            f"{max(len(names), len(counts))} sets of them",
            fix="harmonise them, or fit with spatial=False",
        )
    gram = sum(np.einsum("tcn,tdn->cd", x, x, optimize=True) for x in X)
    vectors = spectral.eigh(np.asarray(gram))[1][:, ::-1].T
    # The sign of a component is free: its largest weight is positive.
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return np.ascontiguousarray(vectors * signs[:, None])


def to_frames(X: NDArray, sfreq: float, mixing: NDArray | None) -> Tensor:
    """Return spectra as the codec takes them, (n_frames, n_units, n_bins).

    Components of a second are one frame; without a mixing every channel's second
    is a frame of its own.
    """
    coefs = spectra(X, sfreq, N_BINS)
    if mixing is None:
        return torch.from_numpy(coefs.reshape(-1, 1, N_BINS))
    coefs = np.einsum("uc,tcfb->tfub", mixing, coefs, optimize=True)
    return torch.from_numpy(coefs.reshape(-1, *coefs.shape[2:]))


def from_frames(
    coefs: NDArray,
    shape: tuple[int, int, int],
    sfreq: float,
    mixing: NDArray | None,
) -> NDArray:
    """Return the inverse of `to_frames` for a shape of trials, channels and times."""
    n_trials, n_channels, n_times = shape
    if mixing is not None:
        frames = coefs.reshape(n_trials, -1, len(mixing), N_BINS)
        coefs = np.einsum("uc,tfub->tcfb", mixing, frames, optimize=True)
    coefs = coefs.reshape(n_trials, n_channels, -1, N_BINS)
    return signals_from(coefs, sfreq, n_times)


def by_unit(ids: Tensor, n_trials: int, n_channels: int, *, spatial: bool) -> NDArray:
    """Return ids of frames as (n_trials, n_units, n_frames, n_slots)."""
    found = ids.numpy().astype(np.int32)
    if not spatial:
        return found.reshape(n_trials, n_channels, -1, found.shape[-1])
    found = found.reshape(n_trials, -1, *found.shape[1:])
    return np.ascontiguousarray(found.swapaxes(1, 2))


def by_frame(ids: NDArray, *, spatial: bool) -> Tensor:
    """Return the inverse of `by_unit`, (n_frames, n_units, n_slots)."""
    n_units, n_slots = ids.shape[1], ids.shape[3]
    if spatial:
        flat = ids.swapaxes(1, 2).reshape(-1, n_units, n_slots)
    else:
        flat = ids.reshape(-1, 1, n_slots)
    return torch.from_numpy(flat.astype(np.int64))
