"""Trials of one condition as each other's targets: halves, means, shifts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_lengths, fail, listing

# Rounds of averaging and aligning anew; they settle in two to four.
ALIGN_ROUNDS = 5


def conditions(y: Any, n_trials: int) -> NDArray:
    """Return each trial's condition as 0, 1, ...; all 0 without y.

    Raises
    ------
    EEGTensorError
        If a condition has one trial, or none has the four of which two can be
        held out.
    """
    if y is None:
        y = np.zeros(n_trials, dtype=np.int64)
    check_lengths(n_trials, y=y)
    labels = np.asarray(y.cpu() if isinstance(y, Tensor) else y)
    if labels.ndim != 1:
        fail(f"y has shape {labels.shape}", fix="give one condition per trial")
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if (counts < 2).any():
        fail(
            f"Conditions {listing(map(repr, names[counts < 2].tolist()))} have fewer "
            "than two trials",
            why="A trial is denoised by what other trials of its condition share",
            fix="give more trials, drop these conditions or join them with others",
        )
    if counts.max() < 4:
        fail(
            "No condition has four trials",
            why="Two are held out to tell when the network begins to learn noise",
            fix="give more trials, or join conditions (y=None joins all)",
        )
    return codes


def held_out(codes: NDArray, share: float, rng: np.random.Generator) -> NDArray:
    """Return which trials are held out: two or more of each condition of four."""
    place = _places(codes, rng)
    counts = np.bincount(codes)
    wanted = np.minimum(np.maximum(2, np.round(share * counts)), counts - 2)
    held: NDArray = place < np.where(counts < 4, 0, wanted)[codes]
    return held


def halves(codes: NDArray, rng: np.random.Generator) -> NDArray:
    """Return 0 or 1 for each trial: two random halves of each condition."""
    half: NDArray = _places(codes, rng) % 2
    return half


def _places(codes: NDArray, rng: np.random.Generator) -> NDArray:
    """Return each trial's place in a random order of its condition."""
    order = np.lexsort((rng.random(len(codes)), codes))
    first = np.searchsorted(codes[order], codes[order])
    place = np.empty(len(codes), dtype=np.int64)
    place[order] = np.arange(len(codes)) - first
    return place


def means(Z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and the number of trials of each code, (n_codes, ...)."""
    counts = torch.bincount(codes)
    sums = Z.new_zeros(len(counts), *Z.shape[1:]).index_add_(0, codes, Z)
    return sums, counts.to(Z.dtype)[:, None, None]


def shifted(Z: Tensor, lags: Tensor) -> Tensor:
    """Return Z(t + lag) of each trial, zero where the trial does not reach."""
    n = Z.shape[-1]
    at = torch.arange(n, device=Z.device) + lags[:, None]
    inside = (at >= 0) & (at < n)
    at = at.clamp(0, n - 1)[:, None].expand(Z.shape)
    return Z.gather(-1, at) * inside[:, None]


def align(F: Tensor, codes: Tensor, max_shift: int) -> Tensor:
    """Return the lag at which each trial fits the average of its condition best.

    The average is taken anew of the aligned trials until lags settle; their mean
    within a condition is near 0.

    Parameters
    ----------
    F : Tensor, shape (n_trials, n_channels, n_times)
        Denoised trials.
    codes : Tensor of int64, shape (n_trials,)
    max_shift : int
        Samples, either way.

    Returns
    -------
    lags : Tensor of int64, shape (n_trials,)
        ``shifted(F, lags)`` is aligned.

    References
    ----------
    C. D. Woody, "Characterization of an adaptive filter for the analysis of
    variable latency neuroelectric signals", Med. Biol. Eng. 5, 539-554, 1967.
    """
    lags = torch.zeros(len(F), dtype=torch.int64, device=F.device)
    near = torch.arange(-max_shift, max_shift + 1, device=F.device)
    spectra = torch.fft.rfft(F, 2 * F.shape[-1])
    for _ in range(ALIGN_ROUNDS):
        sums, counts = means(shifted(F, lags), codes)
        template = torch.fft.rfft(sums / counts, 2 * F.shape[-1])
        cross = (spectra * template[codes].conj()).sum(dim=1)
        fit = torch.fft.irfft(cross, 2 * F.shape[-1])[:, near]
        # Among equals, and all are where nothing was found, the trial stays.
        fit[:, max_shift] += torch.finfo(F.dtype).tiny
        new = near[fit.argmax(dim=1)]
        middle, n = means(new[:, None, None].to(F.dtype), codes)
        new = new - (middle / n).round().to(torch.int64)[codes, 0, 0]
        if bool((new == lags).all()):
            break
        lags = new.clamp(-max_shift, max_shift)
    return lags
