"""What a fit of PARAFAC2 repeats: sweeps of all starts, scores of all groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eegtensor.tensor._race import BatchStep
from eegtensor.tensor._slice_scores import rescore
from eegtensor.tensor._slices import (
    Group,
    Slices,
    errors,
    modelled,
    project,
    sweep_slices,
)

# Slices of no more cells than this need not save memory.
_FEW_CELLS = 2_000_000


def starts_together(data: Slices, rank: int) -> int:
    """Return how many starts may hold projections of slices with missing cells.

    The copies that a sweep and its momentum need are to be no larger than the
    slices, or than 16 MB.
    """
    cells = sum(group.Z.numel() for group in data.groups if group.Z is not None)
    columns = data.groups[0].grams.shape[1]
    return max(1, max(cells, _FEW_CELLS) * columns // (8 * rank * max(cells, 1)))


def sweep_of(groups: Sequence[Group], ridge: float) -> BatchStep:
    """Return one sweep over [A, B, C, P of each group] of all starts."""
    sizes = [len(group.norms) for group in groups]
    total = sum(float(group.norms.sum()) for group in groups)
    total = max(total, torch.finfo(torch.float64).tiny)

    def step(state: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        A, B, C, *P = state
        models = modelled(A, B, C).split(sizes, dim=1)
        found = list(map(project, groups, models, P))
        Y, P = [y for y, _ in found], [p for _, p in found]
        factors = sweep_slices(torch.cat(Y, dim=1), [A, B, C], ridge)
        models = modelled(*factors).split(sizes, dim=1)
        lost = torch.cat(list(map(errors, groups, Y, models, P)), dim=1).sum(dim=1)
        return [*factors, *P], lost.clamp_min(0.0) / total

    return step


def rescore_all(
    data: Slices,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    P: Sequence[Tensor],
    max_iter: int,
    tol: float,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return A, P and squared errors of all groups for fixed B and C."""
    found = [
        rescore(group, B, C, a, p, max_iter, tol)
        for group, a, p in zip(data.groups, A.split(data.sizes, dim=1), P, strict=True)
    ]
    A, lost = (torch.cat([one[at] for one in found], dim=1) for at in (0, 2))
    return A, [p for _, p, _ in found], lost[0]
