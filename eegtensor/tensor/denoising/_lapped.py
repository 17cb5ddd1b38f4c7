"""Signals as time x frequency and back: a tight frame of lapped cosines and sines.

Windowed stretches of 2 M samples give M complex coefficients each, at frequencies
(m + 1/2) / (2 M) of the sampling rate: real parts are the coefficients of a modified
discrete cosine transform, imaginary parts those of the sine transform. In both,
white noise of deviation 1 has coefficients of deviation 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def analyse(X: Tensor, n_bins: int, hop: int) -> Tensor:
    """Return complex coefficients, (..., n_bins, n_frames).

    Parameters
    ----------
    X : Tensor, shape (..., n_times)
        Outside of them signals count as zero.
    n_bins : int
        M; the window has 2 M samples.
    hop : int
        Samples from one window to the next, a divisor of M.

    References
    ----------
    H. Malvar, "A modulated complex lapped transform and its applications to audio
    processing", Proc. IEEE ICASSP, 1421-1424, 1999.
    """
    before, n_frames = _layout(X.shape[-1], n_bins, hop)
    after = (n_frames - 1) * hop + 2 * n_bins - before - X.shape[-1]
    frames = torch.nn.functional.pad(X, (before, after)).unfold(-1, 2 * n_bins, hop)
    parts = frames @ _atoms(X, n_bins)
    return torch.complex(*parts.split(n_bins, dim=-1)).mT


def synthesise(C: Tensor, hop: int, n_times: int) -> Tensor:
    """Return the signals, (..., n_times), that are nearest to the coefficients.

    Signals whose coefficients are given come back exactly.

    Parameters
    ----------
    C : Tensor, shape (..., n_bins, n_frames), complex
    hop, n_times : int
        As in `analyse`.
    """
    n_bins, n_frames = C.shape[-2:]
    before, _ = _layout(n_times, n_bins, hop)
    parts = torch.cat([C.real, C.imag], dim=-2).mT
    frames = parts @ _atoms(parts, n_bins).T
    at = torch.arange(n_frames, device=C.device)[:, None] * hop
    at = (at + torch.arange(2 * n_bins, device=C.device)).flatten()
    X = parts.new_zeros(*C.shape[:-2], (n_frames - 1) * hop + 2 * n_bins)
    X.index_add_(-1, at, frames.flatten(-2))
    # Each sample lies in 2 M / hop windows, whose squares have the mean 1/2; there
    # are two bases.
    return X[..., before : before + n_times] * (0.5 * hop / n_bins)


def _layout(n_times: int, n_bins: int, hop: int) -> tuple[int, int]:
    """Return zeros before the signal, and windows: as many hold each sample."""
    before = 2 * n_bins - hop
    return before, (n_times - 1 + before) // hop + 1


def _atoms(X: Tensor, n_bins: int) -> Tensor:
    """Return windowed cosines and negative sines, (2 M, 2 M), of norm 1."""
    n = torch.arange(2 * n_bins, dtype=X.dtype, device=X.device)
    angle = n[:n_bins] + 0.5
    angle = (n[:, None] + 0.5 * (n_bins + 1)) * angle * (math.pi / n_bins)
    window = torch.sin((n + 0.5) * (0.5 * math.pi / n_bins)) * (2.0 / n_bins) ** 0.5
    return window[:, None] * torch.cat([angle.cos(), -angle.sin()], dim=1)
