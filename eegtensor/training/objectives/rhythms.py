"""How sequences resemble themselves, and how rhythmic that is."""

from __future__ import annotations

import torch
from torch import Tensor


def similarity_matrix(h: Tensor) -> Tensor:
    """Return the cosines between times of sequences, (n_trials, n_times, n_times)."""
    unit = torch.nn.functional.normalize(h, dim=2)
    return unit @ unit.mT


def wave_of(S: Tensor) -> Tensor:
    """Return the mean of each upper diagonal, as a function of lag, (n, n_times)."""
    return _diagonals(S).sum(1) / _counts(S)


def diagonal_spread(S: Tensor) -> Tensor:
    """Return the standard deviation along diagonals, longer ones more, (n_trials,).

    Each is weighted by its length over that of the longest.
    """
    entries, count = _diagonals(S), _counts(S)
    mean = entries.sum(1) / count
    variance = (entries.square().sum(1) / count - mean.square()).clamp_min(0.0)
    # The root has no slope at 0, where a pure rhythm arrives.
    spread = (variance + 1e-12).sqrt() - 1e-6
    return (spread * count / count[0])[:, :-1].mean(1)


def band_loss(wave: Tensor, sfreq: float, low: float, high: float) -> Tensor:
    """Return total power over power in the band, minus 1, (n_trials,)."""
    # A window, or a rhythm between two bins would leak out of its band.
    window = torch.hann_window(wave.shape[1], periodic=False).to(wave)
    level = (wave * window).sum(1, keepdim=True) / window.sum()
    spectrum = torch.fft.rfft((wave - level) * window, dim=1).abs().square()
    f = torch.fft.rfftfreq(wave.shape[1], 1.0 / sfreq).to(wave)
    # Half a bin to both sides: a narrow band is never empty.
    half = 0.5 * sfreq / wave.shape[1]
    inside = ((f >= low - half) & (f <= high + half)).to(wave)
    total, kept = spectrum.sum(1), (spectrum * inside).sum(1)
    return (total - kept) / (kept + 1e-6 * total + 1e-30)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation of rows, (n_trials,); 0 where one does not vary."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norm = (a.square().sum(1) * b.square().sum(1) + 1e-24).sqrt()
    return (a * b).sum(1) / norm


def _diagonals(S: Tensor) -> Tensor:
    """Return entry (i, i + lag) at (i, lag), zero beyond the end."""
    n = S.shape[-1]
    i = torch.arange(n, device=S.device)
    j = i[:, None] + i
    rows = S.gather(2, j.clamp_max(n - 1).expand(len(S), n, n))
    return torch.where(j < n, rows, 0.0)


def _counts(S: Tensor) -> Tensor:
    n = S.shape[-1]
    return torch.arange(n, 0, -1, device=S.device).to(S)
