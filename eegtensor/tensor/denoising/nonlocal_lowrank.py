"""Denoising by what resembles: groups of like patches over trials, low rank each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry.spectral import eigh
from eegtensor.tensor._shapes import check_rank
from eegtensor.tensor.denoising._lowrank import low_rank
from eegtensor.tensor.denoising._noise import (
    as_trials,
    noise_level,
    unrepeated_noise,
)

# Numbers held at a time by the search and by the groups.
CHUNK = 1 << 22


class Denoised(NamedTuple):
    """Denoised signals.

    Attributes
    ----------
    X : array, as given, float64
    sigma : array, shape (n_channels,)
        Standard deviation of what counted as noise, unit of X.
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


class _Form(NamedTuple):
    """Sizes in samples, as `denoise_nonlocal` takes them.

    Attributes
    ----------
    patch, step, window, n_similar : int
    aligned : bool
        Whether trials repeat: the first round then compares nothing, but takes the
        same time of all trials.
    """

    patch: int
    step: int
    window: int
    n_similar: int
    aligned: bool


class _Search(NamedTuple):
    """Where patches start and which are compared.

    Attributes
    ----------
    start : Tensor of int64, shape (n_segments,)
        First sample of each segment in the signals laid side by side.
    last : Tensor of int64, shape (n_segments,)
        The last offset at which a patch of the segment may begin.
    offsets : Tensor of int64, shape (n_offsets,)
        Of the patches that groups are built about.
    form : _Form
    """

    start: Tensor
    last: Tensor
    offsets: Tensor
    form: _Form


@bridged
def denoise_nonlocal(
    X: Array,
    *,
    sigma: Any = None,
    noise: str = "white",
    rank: int | None = None,
    patch: int = 16,
    step: int | None = None,
    n_similar: int = 40,
    window: int = 8,
    n_iter: int = 3,
    feedback: float = 0.1,
    strength: float = 0.9,
) -> Denoised:
    """Denoise trials by non-local low rank.

    Each round: (1) the leading eigenvectors A of the channels' second moments give
    eigen-channels A'Y, in which white noise stays white; (2) about every patch of
    eigen-channels x time, the patches most like it, of any trial and nearly the
    same time, form the columns of a matrix whose singular values are shrunk in
    closed form (`shrink_singular`); overlapping patches are averaged; (3) A takes
    the result back to the channels; (4) a share of what was taken away is given
    back before the next round.

    Parameters
    ----------
    X : array, shape (n_trials, n_channels, n_times) or (n_channels, n_times)
        Volts, or any unit. Two axes are a continuous recording: it is searched as
        segments of 8 patches.
    sigma : float | array, shape (n_channels,) | None
        Standard deviation of white noise, unit of X. None estimates it.
    noise : "white" | "unrepeated"
        "white": noise of the sensors, found at the highest frequencies
        (`noise_level`). "unrepeated": whatever differs among trials, with its
        covariance over channels and its spectrum, so that background activity
        counts as noise too; needs two trials or more of *one* condition.
    rank : int | None
        Eigen-channels. None keeps those that rise above white noise, and all with
        "unrepeated".
    patch, step, window : int
        Samples: length of a patch, distance of patches (None: a quarter of the
        length), and how much earlier or later a like patch may be.
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
    check_option("noise", noise, ("white", "unrepeated"))
    for name, value in (("patch", patch), ("n_similar", n_similar), ("n_iter", n_iter)):
        check_rank(value, name)
    signals = as_trials(X, two=True)
    stride = max(1, patch // 4) if step is None else check_rank(step, "step")
    if stride > patch or patch > signals.shape[-1]:
        fail(
            f"patch={patch} and step={stride} for {signals.shape[-1]} samples",
            fix="choose step <= patch <= number of samples",
        )
    if window < 0 or not 0.0 <= feedback < 1.0 or strength < 0.0:
        fail(
            f"window={window}, feedback={feedback}, strength={strength}",
            fix="choose window >= 0, 0 <= feedback < 1 and strength >= 0",
        )
    form = _Form(patch, stride, window, n_similar, noise == "unrepeated")
    shape = (rank, n_iter, feedback, strength)
    if form.aligned:
        if sigma is not None or signals.ndim != 3 or len(signals) < 2:
            fail(
                "noise='unrepeated' is what differs among trials",
                fix="give two trials or more, and no sigma",
            )
        codes = torch.zeros(len(signals), dtype=torch.int64, device=signals.device)
        white = unrepeated_noise(signals, codes)
        Z, ranks, group_rank = _rounds(white.forward(signals), form, *shape)
        level = white.space_back.square().sum(1).sqrt()
        return Denoised(white.back(Z), level, ranks, group_rank)
    level = _level(signals, sigma)
    if not bool((level > 0.0).any()):
        return Denoised(signals.clone(), level, (signals.shape[-2],) * n_iter, 0.0)
    # A channel without noise has no unit in which to stand beside the others.
    noisy = level > 0.0
    unit = level[noisy, None]
    Z, ranks, group_rank = _rounds(signals[..., noisy, :] / unit, form, *shape)
    clean = signals.clone()
    clean[..., noisy, :] = Z * unit
    return Denoised(clean, level, ranks, group_rank)


def _level(X: Tensor, sigma: Any) -> Tensor:
    if sigma is None:
        return noise_level(X)
    level = torch.as_tensor(sigma, dtype=X.dtype, device=X.device)
    if level.shape not in ((), (X.shape[-2],)) or not bool((level >= 0.0).all()):
        fail(
            f"sigma={sigma!r} for {X.shape[-2]} channels",
            fix="give one number from 0 up, or one for each channel",
        )
    return level.expand(X.shape[-2])


def _search(Z: Tensor, form: _Form) -> _Search:
    """Lay out segments such that every patch lies in exactly one."""
    patch, step, n_times = form.patch, form.step, Z.shape[-1]
    if Z.ndim == 3:
        start = torch.arange(len(Z)) * n_times
        last = torch.full_like(start, n_times - patch)
    else:
        length = 8 * patch
        start = torch.arange(0, n_times - patch + 1, length)
        last = (n_times - patch - start).clamp_max(length - 1)
    longest = int(last.max())
    # The last patch of each segment is added where steps do not reach it.
    offsets = torch.arange(0, longest + step, step).clamp_max(longest)
    device = Z.device
    return _Search(start.to(device), last.to(device), offsets.to(device), form)


def _rounds(
    Z: Tensor,
    form: _Form,
    rank: int | None,
    n_iter: int,
    feedback: float,
    strength: float,
) -> tuple[Tensor, tuple[int, ...], float]:
    """Denoise signals, (..., n_channels, n_times), of unit white noise."""
    search = _search(Z, form)
    noisy = Z if Z.ndim == 2 else Z.transpose(0, 1).flatten(1)
    Y, sigma = noisy, noisy.new_ones(())
    ranks: list[int] = []
    group_rank = 0.0
    for i in range(n_iter):
        values, vectors = eigh(Y @ Y.T / Y.shape[1])
        if rank is None and form.aligned:
            # Much noise hides channels whose trials together do tell something.
            k = len(Y)
        elif rank is None:
            # The largest eigenvalue that noise alone has (Marchenko and Pastur).
            edge = (sigma * (1.0 + math.sqrt(len(Y) / Y.shape[1]))) ** 2
            # Noise falls from round to round: no eigen-channel is given up again.
            k = max([1, int((values > edge).sum()), *ranks[-1:]])
        else:
            k = min(check_rank(rank), len(Y))
        A = vectors[:, -k:]
        clean, group_rank = _groups(
            A.T @ Y, search, sigma, strength, form.aligned and i == 0
        )
        clean = A @ clean
        ranks.append(k)
        Y = clean + feedback * (noisy - clean)
        # A projection leaves of unit noise what it does not take; with the share
        # given back, (1 - f^2) left + f^2.
        left = (1.0 - (noisy - clean).square().mean()).clamp_min(0.0)
        sigma = (left + feedback**2 * (1.0 - left)).sqrt()
    if Z.ndim == 3:
        clean = clean.unflatten(1, (len(Z), -1)).transpose(0, 1).contiguous()
    return clean, tuple(ranks), group_rank


def _groups(
    Y: Tensor, search: _Search, sigma: Tensor, strength: float, aligned: bool
) -> tuple[Tensor, float]:
    """Return signals (k, n_columns) averaged over their denoised patches."""
    span = torch.arange(search.form.patch, device=Y.device)
    total = Y.new_zeros(Y.shape)
    count = Y.new_zeros(Y.shape[1])
    kept, n_groups = Y.new_zeros(()), 0
    # Much noise hides what is alike; the small would seem alike to everything.
    groups = _same_time(Y, search) if aligned else _similar(Y, search)
    for at in groups:
        # (groups, n, patch) samples -> matrices (groups, k * patch, n).
        samples = at[..., None] + span
        G = Y[:, samples].permute(1, 0, 3, 2).flatten(1, 2)
        clean, ranks = low_rank(G, sigma, strength)
        kept, n_groups = kept + ranks.sum(), n_groups + len(ranks)
        clean = clean.unflatten(1, (len(Y), -1)).permute(1, 0, 3, 2)
        total.index_add_(1, samples.flatten(), clean.flatten(1))
        count += torch.bincount(samples.flatten(), minlength=Y.shape[1])
    return total / count, float(kept / n_groups)


def _same_time(Y: Tensor, search: _Search) -> Iterator[Tensor]:
    """Yield first samples of groups of all trials, (n_groups, n_trials)."""
    at = search.offsets[:, None] + search.start
    yield from at.split(max(1, CHUNK // (at.shape[1] * len(Y) * search.form.patch)))


def _similar(Y: Tensor, search: _Search) -> Iterator[Tensor]:
    """Yield first samples of groups of like patches, (n_groups, n_similar)."""
    d, n_lags = len(Y) * search.form.patch, 2 * search.form.window + 1
    # Long recordings are searched in parts, so that one comparison fits in memory.
    n_parts = math.ceil(len(search.start) * n_lags * d / CHUNK)
    n_parts = min(
        n_parts, math.ceil(len(search.start) * n_lags / search.form.n_similar)
    )
    for start, last in zip(
        search.start.tensor_split(n_parts),
        search.last.tensor_split(n_parts),
        strict=True,
    ):
        if len(start):
            yield from _similar_part(Y, search._replace(start=start, last=last))


def _similar_part(Y: Tensor, search: _Search) -> Iterator[Tensor]:
    d, S = len(Y) * search.form.patch, len(search.start)
    lags = torch.arange(-search.form.window, search.form.window + 1, device=Y.device)
    span = torch.arange(search.form.patch, device=Y.device)
    size = max(1, CHUNK // (S * len(lags) * d))
    fits = max(1, CHUNK // (search.form.n_similar * d))
    for offsets in search.offsets.split(size):
        about = torch.minimum(offsets[:, None], search.last)
        near = about[..., None] + lags
        outside = (near < 0) | (near > search.last[:, None])
        own = search.start + about
        others = torch.where(outside, own[..., None], search.start[:, None] + near)
        outside, others = outside.flatten(1), others.flatten(1)
        P = Y[:, own[..., None] + span].permute(1, 2, 0, 3).flatten(2)
        Q = Y[:, others[..., None] + span].permute(1, 2, 0, 3).flatten(2)
        apart = Q.square().sum(-1)[:, None] - 2.0 * (P @ Q.mT)
        apart.masked_fill_(outside[:, None], math.inf)
        n = min(search.form.n_similar, int((~outside).sum(1).min()))
        best = apart.topk(n, dim=-1, largest=False).indices
        found = others[:, None].expand(-1, S, -1).gather(2, best)
        yield from found.flatten(0, 1).split(fits)
