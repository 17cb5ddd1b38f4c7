"""What one channel has and no other tells: noise of sensors, with its spectrum."""

from __future__ import annotations

import torch

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry.spectral import eigh
from eegtensor.tensor.denoising._lapped import analyse
from eegtensor.tensor.denoising._noise import as_trials
from eegtensor.tensor.denoising._patches import windows

# Rounds of factor analysis; more change little.
ROUNDS = 5
# Of its first estimate, the least that a channel's noise may fall to (variance).
FLOOR = 1e-3


@bridged
def noise_spectrum(
    X: Array, *, patch: int | None = None, step: int | None = None
) -> Array:
    """Return the deviation of each channel's own noise at each frequency.

    What a regression on all other channels leaves is noise and too much of it:
    no channel is told in full by others. So a few rounds of factor analysis follow:
    channels are whitened by their noise, and what principal components below the
    largest that noise alone has carry is the noise of the next round. What a sensor
    alone picks up counts as noise: its offset, and activity of the brain, too.

    Parameters
    ----------
    X : array, shape (n_trials, n_channels, n_times) or (n_channels, n_times)
        Three channels or more.
    patch, step : int | None
        As `denoise_nonlocal` takes them with ``domain="time-frequency"``.

    Returns
    -------
    level : array, shape (n_channels, patch // 2), float64, unit of X
        Bins from 0 to half the sampling rate; white noise of deviation 1 has 1 in
        each.

    Raises
    ------
    EEGTensorError
        If there are too few channels or samples.

    References
    ----------
    J. M. Bioucas-Dias, J. M. P. Nascimento, "Hyperspectral subspace identification",
    IEEE Trans. Geosci. Remote Sens. 46, 2435-2445, 2008 (the regression).
    """
    X = as_trials(X, two=True)
    form = windows(X, patch, step)
    n_bins, hop = form.patch // 2, form.step
    n_channels = X.shape[-2]
    n = 2.0 * X[..., 0, :].numel() / n_bins
    if n_channels < 3 or n < 2 * n_channels:
        fail(
            f"noise='unshared' for {n_channels} channels and {X[..., 0, :].numel()} "
            "samples of each",
            why="Each channel is predicted from all others, at each frequency",
            fix=f"give 3 channels or more and {n_channels * n_bins} samples or more, "
            "or choose noise='white'",
        )
    C = analyse(X, n_bins, hop)
    C = C if X.ndim == 2 else C.movedim(0, 2).flatten(2)
    # Volume conduction has no delay: the real part holds what channels share.
    C = torch.cat([C.real, C.imag], dim=2).movedim(1, 0)
    S = C @ C.mT * (hop / (2.0 * X[..., 0, :].numel()))
    size = S.diagonal(dim1=-2, dim2=-1)
    silent = size <= 1e-20 * size.amax()
    root = torch.where(silent, 1.0, size).sqrt()
    R = S / (root[:, :, None] * root[:, None])
    R = R + torch.diag_embed(silent.to(R.dtype))
    values, vectors = eigh(R)
    values = values.clamp_min(1e-12 * values[:, -1:])
    noise = 1.0 / (vectors.square() / values[:, None]).sum(-1)
    noise = noise * (n / (n - n_channels))
    least = FLOOR * noise
    edge = (1.0 + (n_channels / n) ** 0.5) ** 2
    for _ in range(ROUNDS):
        scale = noise.sqrt()
        values, vectors = eigh(R / (scale[:, :, None] * scale[:, None]))
        signal = torch.where(values > edge, values - 1.0, 0.0)
        shared = (vectors.square() * signal[:, None]).sum(-1)
        noise = torch.maximum(1.0 - noise * shared, least)
    noise = torch.where(silent, 0.0, noise)
    return (noise.sqrt() * root).mT
