"""What is noise: white in time by its highest frequencies, or what does not repeat."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged, floating
from eegtensor.geometry.spectral import eigh
from eegtensor.tensor._shapes import norm_of

# Binomial weights of the fourth difference: no polynomial of degree 3 is left, and
# of a sampled signal only what lies near half the sampling rate.
FOURTH = (1.0, -4.0, 6.0, -4.0, 1.0)
# Median of the absolute value of a standard normal variable.
NORMAL_MEDIAN = 0.6744897501960817
# Eigenvalues of a noise covariance below this share of the largest are raised to it.
FLOOR = 1e-6


class Whitening(NamedTuple):
    """Linear maps under which noise is white with variance 1.

    ``space @ X @ time`` whitens, ``space_back @ Z @ time_back`` undoes it.

    Attributes
    ----------
    space, space_back : Tensor, shape (n_channels, n_channels), float64
    time, time_back : Tensor, shape (n_times, n_times), float64
    """

    space: Tensor
    space_back: Tensor
    time: Tensor
    time_back: Tensor

    def forward(self, X: Tensor) -> Tensor:
        """Return whitened signals."""
        return self.space @ X.to(self.space.dtype) @ self.time

    def back(self, Z: Tensor) -> Tensor:
        """Return signals in their own unit."""
        return self.space_back @ Z @ self.time_back


def as_trials(X: Any, *, two: bool = False) -> Tensor:
    """Return finite float64 signals, or raise.

    Raises
    ------
    EEGTensorError
        If X holds no real numbers, the shape is wrong, or a sample is NaN,
        infinite, or so large or small that its square is no number.
    """
    X = floating(X).detach().to(torch.float64)
    wanted = (2, 3) if two else (3,)
    if X.ndim not in wanted or 0 in X.shape:
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give (n_trials, n_channels, n_times)"
            + (" or (n_channels, n_times)" if two else ""),
        )
    if not bool(X.isfinite().all()):
        fail(
            "X holds NaN or infinite samples",
            why="Noise is told from signal by all samples together",
            fix="restore them first (eegtensor.features.Completer), or drop the trials",
        )
    # Second moments come next.
    norm_of(X)
    return X


@bridged
def noise_level(X: Array) -> Array:
    """Return the standard deviation of each channel's white noise.

    The median absolute fourth difference in time, over what it is for white noise
    of deviation 1. What the signal itself has near half the sampling rate counts as
    noise; after a low-pass filter there is next to none, and so is the answer.

    Parameters
    ----------
    X : array, shape (n_trials, n_channels, n_times) or (n_channels, n_times)
        At least 5 samples.

    Returns
    -------
    sigma : array, shape (n_channels,), float64, unit of X

    Raises
    ------
    EEGTensorError
        If there are fewer than 5 samples, or samples are not finite.

    References
    ----------
    D. L. Donoho, I. M. Johnstone, Biometrika 81, 425-455, 1994 (the median of the
    finest coefficients).
    """
    X = as_trials(X, two=True)
    if X.shape[-1] < len(FOURTH):
        fail(f"X has {X.shape[-1]} samples", fix="give 5 or more")
    weights = X.new_tensor(FOURTH)
    fine = X.unfold(-1, len(FOURTH), 1) @ (weights / weights.norm())
    fine = fine.movedim(-2, 0).flatten(1)
    level = fine.abs().median(dim=1).values / NORMAL_MEDIAN
    # Of a constant, rounding is left.
    tiny = 64.0 * torch.finfo(X.dtype).eps * X.abs().movedim(-2, 0).flatten(1).amax(1)
    return torch.where(level > tiny, level, 0.0)


def unrepeated_noise(
    X: Tensor, codes: Tensor, shared: Tensor | None = None
) -> Whitening:
    """Return the whitening of what differs among the trials of a condition.

    Deviations from the average of each condition, S in space and a stationary
    autocovariance in time: E[n(c, t) n(c', t')] = S[c, c'] r(|t - t'|), r(0) = 1.

    Parameters
    ----------
    X : Tensor, shape (n_trials, n_channels, n_times), float64
    codes : Tensor of int64, shape (n_trials,)
        Conditions, each with two trials or more.
    shared : Tensor, as X | None
        What is known of each trial's own signal: noise is told from the rest, so
        that latencies and amplitudes which vary do not count as noise.
    """
    rest, freedom = deviations(X if shared is None else X - shared, codes)
    flat = rest.transpose(0, 1).flatten(1)
    space, space_back = _roots(flat @ flat.T / (freedom * X.shape[-1]))
    n = X.shape[-1]
    white = space @ rest
    spectrum = torch.fft.rfft(white, 2 * n).abs().square().mean(dim=(0, 1))
    # The biased estimate: its Toeplitz matrix has no negative eigenvalue.
    lags = torch.fft.irfft(spectrum, 2 * n)[:n]
    at = torch.arange(n, device=X.device)
    toeplitz = (lags / lags[0].clamp_min(torch.finfo(X.dtype).tiny))[
        (at[:, None] - at).abs()
    ]
    time, time_back = _roots(toeplitz)
    # Windows are short against slow noise: what leaks would leave less than 1.
    left = ((white @ time).square().sum() / (freedom * X.shape[1] * n)).sqrt()
    return Whitening(space / left, space_back * left, time, time_back)


def deviations(X: Tensor, codes: Tensor) -> tuple[Tensor, int]:
    """Return trials less the average of their condition, and degrees of freedom."""
    n = int(codes.max()) + 1
    counts = torch.bincount(codes, minlength=n)
    sums = X.new_zeros(n, *X.shape[1:]).index_add_(0, codes, X)
    return X - (sums / counts[:, None, None])[codes], len(X) - n


def _roots(S: Tensor) -> tuple[Tensor, Tensor]:
    """Return S^-1/2 and S^1/2."""
    values, vectors = eigh(S)
    top = values[-1:]
    if not float(top) > 0.0:
        fail(
            "The trials of every condition are identical",
            why="Without differences among them nothing tells what noise is",
            fix="give recorded trials, not averages or copies",
        )
    root = torch.maximum(values, FLOOR * top).sqrt()
    return (vectors / root) @ vectors.T, (vectors * root) @ vectors.T
