"""Denoising by what resembles: groups of like patches over trials, low rank each."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import check_rank
from eegtensor.tensor.denoising._noise import (
    as_trials,
    noise_level,
    unrepeated_noise,
)
from eegtensor.tensor.denoising._patches import Form, stretches, windows
from eegtensor.tensor.denoising._rounds import (
    Plan,
    Rounds,
    in_time,
    in_time_frequency,
)
from eegtensor.tensor.denoising._unshared import noise_spectrum

DOMAINS = ("time", "time-frequency")
# Of a channel's loudest noise, the least that its noise counts as at any frequency.
QUIET = 1e-6


class Denoised(NamedTuple):
    """Denoised signals.

    Attributes
    ----------
    X : array, as given, float64
    sigma : array, shape (n_channels,) or (n_channels, n_bins)
        Standard deviation of what counted as noise, unit of X; with a spectrum,
        ``patch // 2`` bins from 0 to half the sampling rate, each as high as that of
        white noise of this power density.
    ranks : tuple of int
        Eigen-channels kept in each round.
    group_rank : float
        Components that a group of patches kept beside its mean, on average over
        the last round.
    """

    X: Array
    sigma: Array
    ranks: tuple[int, ...]
    group_rank: float


@bridged
def denoise_nonlocal(
    X: Array,
    *,
    domain: str = "time",
    sigma: Any = None,
    noise: str = "white",
    rank: int | None = None,
    patch: int | None = None,
    step: int | None = None,
    n_similar: int = 40,
    window: int = 8,
    n_iter: int = 3,
    feedback: float = 0.1,
    strength: float = 0.9,
) -> Denoised:
    """Denoise trials, or a recording, by non-local low rank.

    Each round: (1) the leading eigenvectors A of the channels' second moments give
    eigen-channels A'Y, in which white noise stays white; (2) about every patch of
    eigen-channels x time, or x frequency and time, the patches most like it form
    the columns of a matrix whose singular values are shrunk in closed form
    (`shrink_singular`); overlapping patches are averaged; (3) A takes the result
    back to the channels; (4) a share of what was taken away is given back before
    the next round.

    Parameters
    ----------
    X : array, shape (n_trials, n_channels, n_times) or (n_channels, n_times)
        Volts, or any unit. Two axes are a continuous recording.
    domain : "time" | "time-frequency"
        "time": patches are stretches of the signals, alike if their waveforms are,
        at nearly the same time of any trial (of a recording: in segments of 8
        patches). "time-frequency": patches are coefficients of three neighbouring
        frequencies in a lapped transform that inverts exactly, alike whatever their
        phase, so that an oscillation is compared with itself at any time; nearly the
        same time of any trial, any time of a recording. Takes away more noise that
        is white, or whose spectrum is given or found (see `noise`), in two to three
        times the time; tests/benchmarks/bench_denoising_kinds.py has the numbers.
    sigma : float | array, shape (n_channels,) or (n_channels, patch // 2) | None
        Standard deviation of white noise, unit of X. Two axes are a spectrum, for
        "time-frequency" (see `Denoised`). None estimates it.
    noise : "white" | "unshared" | "unrepeated"
        "white": noise of the sensors, found at the highest frequencies
        (`noise_level`). "unshared": whatever of a channel the others do not tell
        (`noise_spectrum`; drifts, muscles near one electrode), for "time-frequency"
        and where noise is strong. "unrepeated": whatever differs among trials, with its
        covariance over channels and its spectrum, so that background activity
        counts as noise too; needs two trials or more of *one* condition.
    rank : int | None
        Eigen-channels. None keeps those that rise above white noise, and all with
        "unrepeated".
    patch, step, window : int
        Samples: length of a patch (None: 16; of the transform's windows, an even
        number: 32), distance of patches (None: a quarter of the length), and how
        much earlier or later a like patch may be.
    n_similar : int
        Patches of a group.
    n_iter : int
        Rounds.
    feedback : float
        Share of what was taken away that the next round sees again.
    strength : float
        Factor of the noise's largest singular value below which all is noise.

    Returns
    -------
    Denoised

    Raises
    ------
    EEGTensorError
        If shapes or options do not fit, or samples are not finite.

    References
    ----------
    W. He et al., "Non-local meets global: an iterative paradigm for hyperspectral
    image restoration", IEEE Trans. Pattern Anal. Mach. Intell. 44, 2089-2107, 2022.
    """
    check_option("domain", domain, DOMAINS)
    check_option("noise", noise, ("white", "unshared", "unrepeated"))
    signals = as_trials(X, two=True)
    spectral = domain == "time-frequency"
    form = (windows if spectral else stretches)(signals, patch, step)
    for name, value in (("n_similar", n_similar), ("n_iter", n_iter)):
        check_rank(value, name)
    whole = isinstance(window, Integral) and window >= 0
    if not whole or not 0.0 <= feedback < 1.0 or not strength >= 0.0:
        fail(
            f"window={window}, feedback={feedback}, strength={strength}",
            fix="choose a whole window >= 0, 0 <= feedback < 1 and strength >= 0",
        )
    if noise != "white" and sigma is not None:
        fail(f"noise={noise!r} is found in the signals", fix="give no sigma")
    if noise == "unshared" and not spectral:
        fail(
            "noise='unshared' has a spectrum",
            fix="choose domain='time-frequency', or noise='white'",
        )
    form = form._replace(window=window, n_similar=n_similar)
    denoise = _denoise_windows if spectral else _denoise_patches
    plan = Plan(rank, n_iter, feedback, strength, noise == "unrepeated")
    if plan.aligned:
        if signals.ndim != 3 or len(signals) < 2:
            fail(
                "noise='unrepeated' is what differs among trials",
                fix="give two trials or more",
            )
        codes = torch.zeros(len(signals), dtype=torch.int64, device=signals.device)
        white = unrepeated_noise(signals, codes)
        unit = signals.new_ones(signals.shape[-2])
        Z, ranks, group_rank = denoise(white.forward(signals), unit, form, plan)
        level = white.space_back.square().sum(1).sqrt()
        return Denoised(white.back(Z), level, ranks, group_rank)
    if noise == "unshared":
        level = noise_spectrum(signals, patch=form.patch, step=form.step)
    else:
        level = _level(signals, sigma, form.patch // 2 if spectral else None)
    # A channel without noise has no unit in which to stand beside the others.
    noisy = (level > 0.0).reshape(len(level), -1).any(dim=1)
    if not bool(noisy.any()):
        return Denoised(signals.clone(), level, (signals.shape[-2],) * n_iter, 0.0)
    found = denoise(signals[..., noisy, :], level[noisy], form, plan)
    clean = signals.clone()
    clean[..., noisy, :] = found.Z
    return Denoised(clean, level, found.ranks, found.group_rank)


def _denoise_patches(X: Tensor, level: Tensor, form: Form, plan: Plan) -> Rounds:
    found = in_time(X / level[:, None], form, plan)
    return found._replace(Z=found.Z * level[:, None])


def _denoise_windows(X: Tensor, level: Tensor, form: Form, plan: Plan) -> Rounds:
    level = level.reshape(len(level), -1).expand(-1, form.patch // 2)
    level = torch.maximum(level, QUIET * level.amax(dim=1, keepdim=True))
    return in_time_frequency(X, level, form, plan)


def _level(X: Tensor, sigma: Any, n_bins: int | None) -> Tensor:
    if sigma is None:
        return noise_level(X)
    n_channels = X.shape[-2]
    level = torch.as_tensor(sigma, dtype=X.dtype, device=X.device)
    fits = level.shape in ((), (n_channels,), (n_channels, n_bins))
    if not fits or not bool(((level >= 0.0) & level.isfinite()).all()):
        spectrum = "" if n_bins is None else f", or ({n_channels}, {n_bins}) of them"
        fail(
            f"sigma={sigma!r} for {n_channels} channels",
            fix=f"give one number from 0 up, or one for each channel{spectrum}",
        )
    return level if level.ndim == 2 else level.expand(n_channels)
