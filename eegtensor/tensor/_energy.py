"""Ranks by the energy that they keep, of whole tensors and of those with holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from eegtensor.tensor._missing import squared_error
from eegtensor.tensor._shapes import check_ranks
from eegtensor.tensor.kernels import leading_vectors, squared_norm

# Share of the observed cells that is hidden to tell how many columns are real.
HIDDEN = 0.1
# Smaller held-out error, relative, that more columns must bring.
GAIN = 0.01


def energy_ranks(
    X: Tensor, modes: Sequence[int], share: float, shape: Sequence[int]
) -> tuple[int, ...]:
    """Return the smallest rank of each mode that keeps a share of its energy.

    Parameters
    ----------
    X : Tensor
        Or the core of its model with orthonormal factors.
    modes : sequence of int
        The others stay whole.
    share : float
    shape : sequence of int
        Of the tensor itself.
    """
    ranks: list[int | None] = [None] * X.ndim
    for n in modes:
        values = leading_vectors(X, n, 1)[1]
        kept = values.cumsum(0) / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
        ranks[n] = min(int((kept < share - 1e-12).sum()) + 1, X.shape[n])
    return check_ranks(ranks, shape)


def observed_energy_ranks(
    X: Tensor,
    observed: Tensor,
    modes: Sequence[int],
    share: float,
    imputed: Callable[[Sequence[int], Tensor], Any],
    *,
    rows: Callable[[Any, slice], Any],
) -> tuple[int, ...]:
    """Return such ranks of a tensor with missing cells.

    The spectra are those of the model that tells hidden observed cells best: with
    zeros in the place of missing cells they would be too flat.

    Parameters
    ----------
    X : Tensor
        Zero where missing; these cells are overwritten.
    observed : Tensor of bool
    modes, share
        As in `energy_ranks`.
    imputed : callable
        ``(ranks, observed) -> Tucker model`` of the observed cells.
    rows : callable
        As in `impute`.
    """
    random = torch.Generator().manual_seed(0)
    drawn = torch.rand(observed.shape, generator=random) < HIDDEN
    hidden = observed & drawn.to(X.device)
    del drawn
    if bool((hidden == observed).all()):
        hidden = torch.zeros_like(observed)
    truth, seen = X[hidden], observed & ~hidden
    total, count = squared_norm(X), int(observed.sum())

    def same(rank: int) -> tuple[int, ...]:
        wanted = [rank if n in modes else None for n in range(X.ndim)]
        return check_ranks(wanted, X.shape)

    def tried(sizes: tuple[int, ...]) -> tuple[float, Tensor]:
        found = imputed(sizes, seen)
        X[hidden] = truth
        error = squared_error(X, hidden, lambda part: rows(found, part).reconstruct())
        return error, found.core

    best, rank = same(1), 1
    lowest, core = tried(best)
    while len(truth):
        rank += max(1, rank // 2)
        sizes = same(rank)
        error, larger = tried(sizes) if sizes != best else (math.inf, core)
        if not error < (1.0 - GAIN) * lowest:
            break
        best, lowest, core = sizes, error, larger
    # Modes alike are a start; noise in those that need less is left out.
    fewer = energy_ranks(core, modes, 1.0 - GAIN, X.shape)
    if fewer != best and tried(fewer)[0] < lowest:
        best = fewer
    found = imputed(best, observed)
    # What it leaves of the observed cells, it leaves of the missing ones too.
    left = (1.0 - found.fit) ** 2 * total * X.numel() / count
    modelled = max(squared_norm(found.core), torch.finfo(torch.float64).tiny)
    within = min(share * (1.0 + left / modelled), 1.0)
    return energy_ranks(found.core, modes, within, X.shape)
