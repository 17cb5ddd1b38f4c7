"""Rounds of non-local low rank: eigen-channels, groups, noise given back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry.spectral import eigh
from eegtensor.tensor._shapes import check_rank
from eegtensor.tensor.denoising._lapped import analyse, synthesise
from eegtensor.tensor.denoising._patches import (
    Form,
    Search,
    denoise_groups,
    over_time,
    over_trials,
)

# Neighbouring frequencies of a patch of the time-frequency form.
BINS = 3


class Plan(NamedTuple):
    """What `denoise_nonlocal` takes, beside sizes.

    Attributes
    ----------
    rank : int | None
    n_iter : int
    feedback, strength : float
    aligned : bool
        Whether trials repeat: the first round then compares nothing, but takes the
        same time of all trials.
    """

    rank: int | None
    n_iter: int
    feedback: float
    strength: float
    aligned: bool


class Rounds(NamedTuple):
    """Signals, eigen-channels of each round, and the last groups' mean rank."""

    Z: Tensor
    ranks: tuple[int, ...]
    group_rank: float


def in_time(Z: Tensor, form: Form, plan: Plan) -> Rounds:
    """Denoise signals, (..., n_channels, n_times), of unit white noise."""
    columns = Z if Z.ndim == 2 else Z.transpose(0, 1).flatten(1)
    search = (
        over_time(Z.shape[-1], 8 * form.patch, form, Z)
        if Z.ndim == 2
        else over_trials(len(Z), Z.shape[-1], form, Z)
    )
    done = _rounds(columns[:, None], columns.shape[1], search, plan, lambda C: C)
    clean = done.Z[:, 0]
    if Z.ndim == 3:
        clean = clean.unflatten(1, (len(Z), -1)).transpose(0, 1).contiguous()
    return done._replace(Z=clean)


def in_time_frequency(Z: Tensor, level: Tensor, form: Form, plan: Plan) -> Rounds:
    """Denoise signals whose noise has a spectrum, as complex coefficients.

    Parameters
    ----------
    Z : Tensor, shape (..., n_channels, n_times)
    level : Tensor, shape (n_channels, n_bins)
        Deviation of real and imaginary parts of the noise's coefficients, above 0.
    form : Form
        `patch` is the window of the coefficients, `step` the distance of windows.
    """
    n_bins, hop, n_times = form.patch // 2, form.step, Z.shape[-1]

    def forward(X: Tensor) -> Tensor:
        C = analyse(X, n_bins, hop) / level[..., None]
        return C if X.ndim == 2 else C.movedim(0, 2).flatten(2)

    def back(C: Tensor) -> Tensor:
        if Z.ndim == 3:
            C = C.unflatten(2, (len(Z), -1)).movedim(2, 0)
        return synthesise(C * level[..., None], hop, n_times)

    columns = forward(Z)
    n_frames = columns.shape[-1] // (len(Z) if Z.ndim == 3 else 1)
    frames = Form(1, 1, form.window // hop, form.n_similar)
    if Z.ndim == 3:
        search = over_trials(len(Z), n_frames, frames, Z)
    else:
        # Any window of a recording may resemble any other.
        search = over_time(n_frames, 1, frames._replace(window=0), Z)
    energy = Z[..., 0, :].numel() * 2.0 * n_bins / hop
    # Of what was denoised, only what signals can have is kept.
    done = _rounds(columns, energy, search, plan, lambda C: forward(back(C)))
    return done._replace(Z=back(done.Z))


def _rounds(
    noisy: Tensor,
    energy: float,
    search: Search,
    plan: Plan,
    project: Callable[[Tensor], Tensor],
) -> Rounds:
    """Denoise signals, (n_channels, n_bands, n_columns).

    Parameters
    ----------
    noisy : Tensor, real or complex
    energy : float
        What unit noise of one channel is expected to have in all.
    search : Search
    plan : Plan
    project : callable
        Applied to the result of each round.
    """
    Y = clean = noisy
    n_channels, n_bands = noisy.shape[:2]
    n_samples = math.prod(noisy.shape[1:])
    sigma = noisy.real.new_ones(())
    ranks: list[int] = []
    group_rank = 0.0
    for i in range(plan.n_iter):
        flat = Y.flatten(1)
        values, vectors = eigh((flat @ flat.mH).real / energy)
        if plan.rank is None and plan.aligned:
            # Much noise hides channels whose trials together do tell something.
            k = n_channels
        elif plan.rank is None:
            # The largest eigenvalue that noise alone has (Marchenko and Pastur).
            edge = (sigma * (1.0 + math.sqrt(n_channels / min(energy, n_samples)))) ** 2
            # Noise falls from round to round: no eigen-channel is given up again.
            k = max([1, int((values > edge).sum()), *ranks[-1:]])
        else:
            k = min(check_rank(plan.rank), n_channels)
        A = vectors[:, -k:].to(Y.dtype)
        E = (A.T @ flat).unflatten(1, (n_bands, -1))
        same_time = plan.aligned and i == 0
        E, group_rank = _bands(E, search, sigma, plan.strength, same_time)
        clean = project((A @ E.flatten(1)).unflatten(1, (n_bands, -1)))
        ranks.append(k)
        Y = clean + plan.feedback * (noisy - clean)
        # A projection leaves of unit noise what it does not take; with the share
        # given back, (1 - f^2) left + f^2.
        taken = (noisy - clean).abs().square().sum() / (energy * n_channels)
        left = (1.0 - taken).clamp_min(0.0)
        sigma = (left + plan.feedback**2 * (1.0 - left)).sqrt()
    return Rounds(clean, tuple(ranks), group_rank)


def _bands(
    E: Tensor, search: Search, sigma: Tensor, strength: float, same_time: bool
) -> tuple[Tensor, float]:
    """Denoise bands of neighbouring frequencies, and average where they overlap."""
    n_bands = E.shape[1]
    width = min(BINS, n_bands)
    total = torch.zeros_like(E)
    count = sigma.new_zeros(n_bands)
    ranks = []
    for first in range(n_bands - width + 1):
        band = slice(first, first + width)
        clean, rank = denoise_groups(
            E[:, band].flatten(0, 1), search, sigma, strength, same_time=same_time
        )
        total[:, band] += clean.unflatten(0, (-1, width))
        count[band] += 1.0
        ranks.append(rank)
    return total / count[:, None], sum(ranks) / len(ranks)
