"""Changes of trials that leave their class: plain functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.training.perturbations.scales import channel_scale


def channel_dropout(x: Tensor, share: Tensor, generator: Any = None) -> Tensor:
    """Return trials with each channel silent with a probability, but one at least.

    Parameters
    ----------
    x : Tensor, shape (n_trials, n_channels, n_times)
    share : Tensor, shape (n_trials,)
    generator : torch.Generator | None
    """
    drawn = _uniform(x, x.shape[:2], generator)
    # A trial of zeros has no covariance matrix.
    kept = (drawn >= share[:, None]) | (drawn == drawn.amax(1, keepdim=True))
    return x * kept[..., None]


def time_shift(x: Tensor, share: Tensor, generator: Any = None) -> Tensor:
    """Return trials rolled along time by up to a share of their length either way."""
    n_times = x.shape[-1]
    drawn = 2 * _uniform(x, (len(x),), generator) - 1
    steps = (drawn * share * n_times).round().long()
    index = torch.arange(n_times, device=x.device) - steps[:, None]
    index = (index % n_times)[:, None].expand(x.shape)
    return x.gather(-1, index)


def frequency_shift(x: Tensor, cycles: Tensor, generator: Any = None) -> Tensor:
    """Return trials whose spectrum is moved by up to so many cycles a sample.

    The real part of the analytic signal times exp(2 pi i f t): `cycles` are Hz
    divided by the sampling rate.
    """
    drawn = (2 * _uniform(x, (len(x),), generator) - 1) * cycles
    return shifted_spectrum(x, drawn)


def shifted_spectrum(x: Tensor, cycles: Tensor) -> Tensor:
    """Return trials whose spectrum is moved by exactly so many cycles a sample."""
    n_times = x.shape[-1]
    # Zeros behind the trial: its end does not leak into its beginning.
    n = 1 << (n_times - 1).bit_length()
    spectrum = torch.fft.fft(x, n=n)
    gain = torch.zeros(n, dtype=x.dtype, device=x.device)
    gain[0], gain[n // 2], gain[1 : n // 2] = 1.0, 1.0, 2.0
    analytic = torch.fft.ifft(spectrum * gain)[..., :n_times]
    t = torch.arange(n_times, dtype=x.dtype, device=x.device)
    phase = 2 * torch.pi * cycles.to(x.dtype)[:, None, None] * t
    return (analytic * torch.polar(torch.ones_like(phase), phase)).real


def amplitude(x: Tensor, spread: Tensor, generator: Any = None) -> Tensor:
    """Return trials times exp(spread g), g standard normal, one factor a trial."""
    drawn = torch.randn(len(x), generator=generator, dtype=x.dtype, device=x.device)
    return x * (spread * drawn).exp()[:, None, None]


def noise(x: Tensor, size: Tensor, generator: Any = None) -> Tensor:
    """Return trials with white noise of `size` standard deviations of the channel."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x + size[:, None, None] * channel_scale(x) * drawn


def sign_flip(x: Tensor, share: Tensor, generator: Any = None) -> Tensor:
    """Return trials with the other sign; how much is no question."""
    return -x


def time_reverse(x: Tensor, share: Tensor, generator: Any = None) -> Tensor:
    """Return trials backwards; how much is no question."""
    return x.flip(-1)


class Operation(NamedTuple):
    """One augmentation.

    Attributes
    ----------
    function : callable
        ``function(x, magnitude, generator)``.
    largest : float
        Largest magnitude of a policy; 0 where there is no magnitude.
    """

    function: Callable[..., Tensor]
    largest: float


OPERATIONS = {
    "channel-dropout": Operation(channel_dropout, 0.5),
    "time-shift": Operation(time_shift, 0.25),
    "frequency-shift": Operation(frequency_shift, 0.02),
    "amplitude": Operation(amplitude, 0.5),
    "noise": Operation(noise, 0.5),
    "sign-flip": Operation(sign_flip, 0.0),
    "time-reverse": Operation(time_reverse, 0.0),
}


def check_signal(x: Any) -> Tensor:
    """Return trials of channels and times, or raise."""
    if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
        fail(
            "Augmentations are of trials of shape (n_trials, n_channels, n_times)",
            fix="use a network that takes trials themselves, such as front='conv'",
        )
    return x


def _uniform(x: Tensor, shape: Any, generator: Any) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=x.dtype, device=x.device)
