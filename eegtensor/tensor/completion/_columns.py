"""Columns with equal patterns of lost channels share one operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Patterns(NamedTuple):
    """Which channels are seen together, and when.

    Attributes
    ----------
    seen : Tensor of bool, shape (n_patterns, n_channels)
    counts : Tensor, shape (n_patterns,)
        Columns that have this pattern.
    owner : Tensor of int64, shape (n_groups,)
        Pattern of every group of columns.
    columns : Tensor of int64, shape (n_groups, width)
        Columns of every group; n_columns stands where a group is not full.
    """

    seen: Tensor
    counts: Tensor
    owner: Tensor
    columns: Tensor


def patterns(seen: Tensor) -> Patterns:
    """Return the patterns of a mask of shape (n_channels, n_columns)."""
    array = seen.numpy(force=True)
    n_columns = array.shape[1]
    packed = np.ascontiguousarray(np.packbits(array, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    counts = np.bincount(index, minlength=len(first))
    # Groups as wide as patterns are common: little is padded, few are needed.
    width = max(1, n_columns // len(first))
    order = np.argsort(index, kind="stable")
    rank = np.arange(n_columns) - np.repeat(np.cumsum(counts) - counts, counts)
    per_pattern = -(-counts // width)
    begin = np.cumsum(per_pattern) - per_pattern
    columns = np.full((per_pattern.sum(), width), n_columns, dtype=np.int64)
    columns[begin[index[order]] + rank // width, rank % width] = order
    return Patterns(
        torch.from_numpy(array[:, first].T.copy()),
        torch.from_numpy(counts),
        torch.from_numpy(np.repeat(np.arange(len(first)), per_pattern)),
        torch.from_numpy(columns),
    )


def complete_columns(
    operators: Callable[[Tensor], Tensor],
    values: Tensor,
    found: Patterns,
    *,
    cells: int = 1 << 18,
) -> Tensor:
    """Return every column times its pattern's operator, (n_channels, n_columns).

    Operators are made for a few patterns at a time: where cells are lost at random
    every column has its own, and all of them are many times the signals.

    Parameters
    ----------
    operators : callable
        ``seen (k, n_channels) -> (k, n_channels, n_channels)``: of some patterns.
    values : Tensor, shape (n_channels, n_columns)
        Zero where lost.
    found : Patterns
    cells : int
        Entries of operators, and of signals, that are made at a time.
    """
    n, n_columns = values.shape
    padded = torch.cat([values, values.new_zeros(n, 1)], dim=1)
    out = torch.zeros_like(padded)
    width = found.columns.shape[1]
    at_once, step = max(1, cells // n**2), max(1, cells // (n * max(n, width)))
    for first in range(0, len(found.seen), at_once):
        made = operators(found.seen[first : first + at_once]).to(values)
        ends = torch.tensor([first, first + at_once], device=found.owner.device)
        begin, end = torch.searchsorted(found.owner, ends).tolist()
        for at in range(begin, end, step):
            groups = slice(at, min(at + step, end))
            columns = found.columns[groups]
            block = padded[:, columns].permute(1, 0, 2)
            block = made[found.owner[groups] - first] @ block
            out[:, columns] = block.permute(1, 0, 2)
    return out[:, :n_columns]
