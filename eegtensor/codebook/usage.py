"""Which codes are used, how evenly, and how much their order says."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook.lookup import check_ids
from eegtensor.geometry._bridge import Array, bridged


class Usage(NamedTuple):
    """How a codebook is used, one entry a level.

    Attributes
    ----------
    share : array, shape (n_levels,)
        Codes that occur at all.
    entropy : array, shape (n_levels,)
        Bits a code; log2(n_codes) if all occur equally often.
    perplexity : array, shape (n_levels,)
        2 to the entropy: how many codes used evenly would say as much.
    dead : array of int64, shape (n_levels,)
        Codes that never occur.
    """

    share: Array
    entropy: Array
    perplexity: Array
    dead: Array


@bridged
def code_counts(ids: Array, n_codes: int) -> Array:
    """Return how often each code occurs at each level, (n_levels, n_codes).

    Parameters
    ----------
    ids : array of int64, shape (..., n_levels)
        -1 is not counted.
    n_codes : int
    """
    flat = ids.reshape(-1, ids.shape[-1]).to(torch.int64)
    check_ids(flat, n_codes)
    n_levels = flat.shape[1]
    # One more column takes the -1.
    place = torch.arange(n_levels, device=flat.device) * (n_codes + 1) + flat + 1
    counts = torch.bincount(place.reshape(-1), minlength=n_levels * (n_codes + 1))
    return counts.view(n_levels, n_codes + 1)[:, 1:]


@bridged
def code_usage(counts: Array) -> Usage:
    """Return share, entropy, perplexity and dead codes of `code_counts`."""
    total = counts.sum(dim=-1, keepdim=True).clamp_min(1)
    p = counts.double() / total
    entropy = -torch.special.xlogy(p, p).sum(dim=-1) / math.log(2)
    used = (counts > 0).sum(dim=-1)
    n_codes = counts.shape[-1]
    return Usage(used / n_codes, entropy, 2.0**entropy, n_codes - used)


@bridged
def cross_entropy(counts: Array, train_counts: Array, *, prior: float = 1.0) -> Array:
    """Return bits a code that an arithmetic coder fitted on training codes pays.

    Parameters
    ----------
    counts, train_counts : array, shape (n_levels, n_codes)
        Of new codes, and of those that the coder learned from.
    prior : float
        Occurrences added to every code, so that new ones can be told at all.

    Returns
    -------
    bits : array, shape (n_levels,)
        NaN where nothing new occurs.
    """
    if counts.shape != train_counts.shape or prior <= 0:
        fail(
            f"counts have shapes {tuple(counts.shape)} and "
            f"{tuple(train_counts.shape)}, prior={prior}",
            fix="count both with one n_codes, and give a positive prior",
        )
    known = train_counts.double() + prior
    log = (known / known.sum(dim=-1, keepdim=True)).log2()
    return -(counts * log).sum(dim=-1) / counts.sum(dim=-1)


@bridged
def stability(ids: Array, ids_disturbed: Array) -> Array:
    """Return the share of codes that stay the same, one entry a level."""
    if ids.shape != ids_disturbed.shape:
        fail(
            f"ids have shapes {tuple(ids.shape)} and {tuple(ids_disturbed.shape)}",
            fix="encode the same trials twice",
        )
    same: Tensor = ids == ids_disturbed
    return same.reshape(-1, ids.shape[-1]).double().mean(dim=0)
