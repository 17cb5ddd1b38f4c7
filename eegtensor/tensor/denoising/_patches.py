"""Patches that resemble each other: where they lie, and their groups made low rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.tensor._shapes import check_rank
from eegtensor.tensor.denoising._lowrank import low_rank

# Numbers held at a time by the search and by the groups.
CHUNK = 1 << 22


class Form(NamedTuple):
    """Sizes of patches and groups, in columns.

    Attributes
    ----------
    patch, step, window, n_similar : int
        As `denoise_nonlocal` takes them.
    """

    patch: int
    step: int
    window: int = 0
    n_similar: int = 1


def stretches(X: Tensor, patch: int | None, step: int | None) -> Form:
    """Return sizes in time, or raise if signals are shorter."""
    size = 16 if patch is None else check_rank(patch, "patch")
    stride = max(1, size // 4) if step is None else check_rank(step, "step")
    if stride > size or size > X.shape[-1]:
        fail(
            f"patch={size} and step={stride} for {X.shape[-1]} samples",
            fix="choose step <= patch <= number of samples",
        )
    return Form(size, stride)


def windows(X: Tensor, patch: int | None, step: int | None) -> Form:
    """Return sizes of the windows of lapped coefficients, or raise."""
    size = 32 if patch is None else check_rank(patch, "patch")
    stride = size // (2 if size % 4 else 4)
    if step is not None:
        stride = check_rank(step, "step")
    # Squares of windows add up to a constant at such steps alone.
    if size % 2 or size > X.shape[-1] or size % stride or 2 * stride > size:
        fail(
            f"patch={size} and step={stride} for {X.shape[-1]} samples",
            why="Windows of the transform overlap so that it inverts exactly",
            fix="choose an even patch <= number of samples, and a step that divides "
            "it twice or more",
        )
    return Form(size, stride)


class Search(NamedTuple):
    """Where patches start and which are compared.

    Attributes
    ----------
    start : Tensor of int64, shape (n_segments,)
        First column of each segment in the signals laid side by side.
    last : Tensor of int64, shape (n_segments,)
        The last offset at which a patch of the segment may begin.
    offsets : Tensor of int64, shape (n_offsets,)
        Of the patches that groups are built about.
    form : Form
    """

    start: Tensor
    last: Tensor
    offsets: Tensor
    form: Form


def over_trials(n_trials: int, n_columns: int, form: Form, like: Tensor) -> Search:
    """Lay out trials side by side, each a segment."""
    start = torch.arange(n_trials) * n_columns
    return _search(start, torch.full_like(start, n_columns - form.patch), form, like)


def over_time(n_columns: int, length: int, form: Form, like: Tensor) -> Search:
    """Lay out segments of a recording such that every patch lies in exactly one."""
    start = torch.arange(0, n_columns - form.patch + 1, length)
    last = (n_columns - form.patch - start).clamp_max(length - 1)
    return _search(start, last, form, like)


def _search(start: Tensor, last: Tensor, form: Form, like: Tensor) -> Search:
    longest = int(last.max())
    # The last patch of each segment is added where steps do not reach it.
    offsets = torch.arange(0, longest + form.step, form.step).clamp_max(longest)
    device = like.device
    return Search(start.to(device), last.to(device), offsets.to(device), form)


def denoise_groups(
    Y: Tensor, search: Search, sigma: Tensor, strength: float, *, same_time: bool
) -> tuple[Tensor, float]:
    """Return signals averaged over their denoised patches, and the mean rank.

    Parameters
    ----------
    Y : Tensor, shape (k, n_columns), real or complex
        Complex patches are alike whatever their phase: an oscillation that comes
        later is the same oscillation.
    search : Search
    sigma : Tensor, shape ()
        Deviation of the noise, of real and imaginary parts each.
    strength : float
    same_time : bool
        Groups are the same time of all segments, compared or not.
    """
    span = torch.arange(search.form.patch, device=Y.device)
    total = Y.new_zeros(Y.shape)
    count = sigma.new_zeros(Y.shape[1])
    kept, n_groups = sigma.new_zeros(()), 0
    for at, turn in _same_time(Y, search) if same_time else _similar(Y, search):
        # (groups, n, patch) columns -> matrices (groups, k * patch, n).
        columns = at[..., None] + span
        G = Y[:, columns].permute(1, 0, 3, 2).flatten(1, 2)
        clean, ranks = _low_rank(G, turn, sigma, strength)
        kept, n_groups = kept + ranks.sum(), n_groups + len(ranks)
        clean = clean.unflatten(1, (len(Y), -1)).permute(1, 0, 3, 2)
        total.index_add_(1, columns.flatten(), clean.flatten(1))
        count += torch.bincount(columns.flatten(), minlength=Y.shape[1])
    return total / count, float(kept / n_groups)


def _low_rank(
    G: Tensor, turn: Tensor | None, sigma: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    if not G.is_complex():
        return low_rank(G, sigma, strength)
    if turn is not None:
        G = G * turn[:, None]
    # Of one phase, real and imaginary parts are rows of one real matrix.
    clean, ranks = low_rank(torch.cat([G.real, G.imag], dim=1), sigma, strength)
    clean = torch.complex(*clean.chunk(2, dim=1))
    return clean if turn is None else clean * turn.conj()[:, None], ranks


def _same_time(Y: Tensor, search: Search) -> Iterator[tuple[Tensor, None]]:
    """Yield first columns of groups of all segments, (n_groups, n_segments)."""
    at = search.offsets[:, None] + search.start
    size = max(1, CHUNK // (at.shape[1] * len(Y) * search.form.patch))
    yield from ((part, None) for part in at.split(size))


def _similar(Y: Tensor, search: Search) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield first columns of groups of like patches, (n_groups, n_similar)."""
    d, n_lags = len(Y) * search.form.patch, 2 * search.form.window + 1
    # Long recordings are searched in parts, so that one comparison fits in memory.
    n_segments = len(search.start)
    n_parts = max(
        math.ceil(n_segments * n_lags * d / CHUNK),
        math.ceil(n_segments * math.sqrt(n_lags / CHUNK)),
    )
    n_parts = min(n_parts, math.ceil(n_segments * n_lags / search.form.n_similar))
    for start, last in zip(
        search.start.tensor_split(n_parts),
        search.last.tensor_split(n_parts),
        strict=True,
    ):
        if len(start):
            yield from _similar_part(Y, search._replace(start=start, last=last))


def _similar_part(Y: Tensor, search: Search) -> Iterator[tuple[Tensor, Tensor | None]]:
    d, S = len(Y) * search.form.patch, len(search.start)
    lags = torch.arange(-search.form.window, search.form.window + 1, device=Y.device)
    span = torch.arange(search.form.patch, device=Y.device)
    each = torch.arange(S, device=Y.device)
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
        alike = P.conj() @ Q.mT
        size_q = Q.abs().square().sum(-1)[:, None]
        apart = size_q - 2.0 * (alike.abs() if Y.is_complex() else alike)
        apart.masked_fill_(outside[:, None], math.inf)
        # Itself first: among many that are equal it might be none of the nearest, and
        # its samples then in no group.
        apart[:, each, each * len(lags) + search.form.window] = -math.inf
        n = min(search.form.n_similar, int((~outside).sum(1).min()))
        best = apart.topk(n, dim=-1, largest=False).indices
        found = others[:, None].expand(-1, S, -1).gather(2, best)
        parts = found.flatten(0, 1).split(fits)
        if not Y.is_complex():
            yield from ((part, None) for part in parts)
            continue
        turn = torch.exp(-1j * alike.gather(2, best).angle()).flatten(0, 1)
        yield from zip(parts, turn.split(fits), strict=True)
