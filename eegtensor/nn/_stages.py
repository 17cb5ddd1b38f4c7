"""A factorised convolution in three stages: mix channels, filter, mix channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.nn._contract import MOVE, STEP, Plan, contract, plan
from eegtensor.nn._layout import Layout


class Mix(NamedTuple):
    """A linear map of channels, the same at every position.

    Attributes
    ----------
    cores : tuple of int
        Those that make the matrix; none where channels are only put in order.
    plan : Plan | None
        How they make it.
    fixed : int
        Axes that it leaves alone, the first after the trials.
    enter, leave : tuple of int
        Orders of the channels' axes: as the matrix wants them, and as they go on.
    rows : tuple of int
        Sizes of the matrix's result.
    source : tuple of int
        Sizes of the channels' axes as they come.
    """

    cores: tuple[int, ...]
    plan: Plan | None
    fixed: int
    enter: tuple[int, ...]
    leave: tuple[int, ...]
    rows: tuple[int, ...]
    source: tuple[int, ...]


class Stages(NamedTuple):
    """The three stages and what they cost.

    Letters of bonds tell how channels are grouped around the filter: those that
    input, kernel and output all have are groups of the convolution; those that only
    input and output have pass it by, as if they were further trials.

    Attributes
    ----------
    before, after : Mix
    kernel : Plan
    kernel_cores : tuple of int
    passing, groups, n_in, n_out : int
        Sizes around the filter; n_in and n_out for each group.
    merged : tuple of bool
        Whether the input's and the output's cores are in the kernel.
    cost, dense : float
        In flops; of the dense convolution, with its kernel at hand.
    """

    before: Mix
    kernel: Plan
    kernel_cores: tuple[int, ...]
    after: Mix
    passing: int
    groups: int
    n_in: int
    n_out: int
    merged: tuple[bool, bool]
    cost: float
    dense: float


def mix(x: Tensor, how: Mix, cores: Sequence[Tensor]) -> Tensor:
    """Return x with its channels mixed, shape (n, channels, positions).

    Parameters
    ----------
    x : Tensor, shape (n, channels, positions)
    """
    n, _, places = x.shape
    x = x.reshape(n, *how.source, places)
    x = x.permute(0, *(1 + k for k in how.enter), x.ndim - 1)
    fixed = x.shape[1 : 1 + how.fixed]
    if how.plan is not None:
        matrix = contract(how.plan, [cores[k] for k in how.cores])
        matrix = matrix.reshape(math.prod(how.rows), -1)
        # The matrix is the left operand: trials and positions need no copy.
        x = torch.matmul(matrix, x.reshape(n, *fixed, matrix.shape[1], places))
        x = x.reshape(n, *fixed, *how.rows, places)
    x = x.permute(0, *(1 + k for k in how.leave), x.ndim - 1)
    return x.reshape(n, -1, places)


def choose_stages(
    layout: Layout, n_in: int, n_trials: int, n_before: int, n_after: int
) -> Stages:
    """Return the cheapest of four ways for a batch.

    Input's and output's cores may each be multiplied into the kernel first; both
    together rebuild the dense kernel.

    Parameters
    ----------
    layout : Layout
        Modes of the input channels, one of the taps, those of the output channels.
    n_in : int
        Modes of the input channels.
    n_trials, n_before, n_after : int
        Trials, and positions before and after the filter.
    """
    work = (n_trials * n_before, n_trials * n_after)
    ways = itertools.product((False, True), (False, True))
    found = [stages(layout, n_in, way, *work) for way in ways]
    rebuilt = found[-1]
    best = min(found, key=lambda s: s.cost)
    return best._replace(dense=rebuilt.cost - rebuilt.kernel.cost)


def stages(
    layout: Layout, n_in: int, merged: tuple[bool, bool], before: int, after: int
) -> Stages:
    """Return one of the four ways, for numbers of positions in all trials."""
    size = dict(layout.sizes)
    N = len(layout.modes)
    # Tucker's core comes first, and belongs to the kernel.
    shift = len(layout.terms) - N
    first = tuple(range(shift, shift + n_in))
    last = tuple(range(shift + n_in + 1, shift + N))
    middle = (*range(shift), shift + n_in)
    if merged[0]:
        first, middle = (), (*first, *middle)
    if merged[1]:
        last, middle = (), (*middle, *last)
    x = "".join(layout.mode_terms[:n_in])
    taps = layout.mode_terms[n_in]
    y = "".join(layout.mode_terms[n_in + 1 :])

    def letters(part: tuple[int, ...], extra: str = "") -> str:
        joined = extra + "".join(layout.terms[n] for n in part)
        return "".join(dict.fromkeys(joined))

    def volume(letters: str) -> int:
        return math.prod(size[c] for c in letters)

    head, body, tail = letters(first, x), letters(middle), letters(last, y)
    passing = "".join(c for c in head if c in tail and c not in body)
    groups = "".join(c for c in head if c in body and c in tail)
    k_in = "".join(c for c in head if c in body and c not in tail)
    k_out = "".join(c for c in body if c in tail and c not in head)
    terms = tuple(layout.terms[n] for n in middle)
    kernel = plan(terms, groups + k_out + k_in + taps, layout.sizes)
    mix_in = _mix(layout, first, x, passing + groups + k_in)
    mix_out = _mix(layout, last, passing + groups + k_out, y)
    work = 2.0 * volume(passing + groups + k_out + k_in + taps) * after
    # A filter of few channels into few is bound by memory, not by products:
    # measured, one channel into one takes as long as 30 times the products.
    thin = max(1.0, 0.5 + 32.0 / min(volume(k_in), volume(k_out)))
    cost = work * thin + kernel.cost
    for way, source, n in ((mix_in, x, before), (mix_out, y, after)):
        if way.plan is not None:
            bonds = volume(passing + groups + (k_in if way is mix_in else k_out))
            product = volume(source) * bonds / math.prod(_sizes(way, size))
            cost += way.plan.cost + 2.0 * n * product + MOVE * n * bonds + STEP
    return Stages(
        mix_in,
        kernel,
        middle,
        mix_out,
        volume(passing),
        volume(groups),
        volume(k_in),
        volume(k_out),
        merged,
        cost,
        cost,
    )


def _sizes(way: Mix, size: dict[str, int]) -> tuple[int, ...]:
    return tuple(way.source[k] for k in way.enter[: way.fixed])


def _mix(layout: Layout, part: tuple[int, ...], source: str, target: str) -> Mix:
    size = dict(layout.sizes)
    fixed = "".join(c for c in source if c in target)
    if not part:
        fixed = source
    own = "".join(c for c in source if c not in fixed)
    new = "".join(c for c in target if c not in fixed)
    terms = tuple(layout.terms[n] for n in part)
    # A letter of both sides may be in a core too: then it is not an identity.
    assert not any(c in term for c in fixed for term in terms)
    after = fixed + new
    return Mix(
        part,
        plan(terms, new + own, layout.sizes) if part else None,
        len(fixed),
        tuple(source.index(c) for c in fixed + own),
        tuple(after.index(c) for c in target),
        tuple(size[c] for c in new),
        tuple(size[c] for c in source),
    )
