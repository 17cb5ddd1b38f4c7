"""Scores of slices for a PARAFAC2 model that stays, and its one form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eegtensor.geometry._batched_eigh import eigh
from eegtensor.tensor._alternate import solve
from eegtensor.tensor._slices import (
    Group,
    Slices,
    errors,
    modelled,
    polar,
    project,
    runs,
    stacked,
)
from eegtensor.tensor.kernels import peak_signs


def settle_scores(
    group: Group, B: Tensor, C: Tensor, A: Tensor, P: Tensor, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Alternate A and P for fixed B and C; return also each squared error, (S, k).

    A slice that has settled stays as it is: it does not depend on the others.
    """
    H = (B.mT @ B) * (C.mT @ C)
    B, C = B.expand(len(A), -1, -1), C.expand(len(A), -1, -1)
    best = torch.full_like(A[:, :, 0], torch.inf)
    live = torch.ones_like(best, dtype=torch.bool)
    for _ in range(max_iter):
        Y, P_next = project(group, modelled(A, B, C), P)
        right = ((Y @ C[:, None]) * B[:, None]).sum(dim=2)
        A_next = solve(H[0], right.flatten(0, 1), 1e-12).view_as(right)
        found = errors(group, Y, modelled(A_next, B, C), P_next)
        A = torch.where(live[:, :, None], A_next, A)
        if group.Z is not None:
            P = torch.where(live[:, :, None, None], P_next, P)
        gain = best - found
        best = torch.where(live, found, best)
        live = live & (gain > tol * group.norms)
        if not bool(live.any()):
            break
    return A, P, best.clamp_min(0.0)


def rescore(
    group: Group, B: Tensor, C: Tensor, A: Tensor, P: Tensor, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `settle_scores`, and no flip of one component's sign is better.

    The signs of a slice's scores never cross zero by themselves: they are minima
    of their own.
    """
    A, P, least = settle_scores(group, B, C, A, P, max_iter, tol)
    R = A.shape[2]
    flips = (1.0 - 2.0 * torch.eye(R).to(A))[:, None, :]
    for _ in range(R if R > 1 else 0):
        copies = P.expand(R, *P.shape[1:])
        tried = settle_scores(group, B, C, A * flips, copies, max_iter // 8, tol)
        lower, which = tried[2].min(dim=0)
        better = lower < least[0] - tol * group.norms
        if not bool(better.any()):
            break
        index = torch.arange(len(which), device=A.device)
        turned = tried[0][which, index][None]
        moved = tried[1][which, index][None] if group.Z is not None else P
        turned, moved, lower = settle_scores(group, B, C, turned, moved, max_iter, tol)
        A = torch.where(better[:, None], turned, A)
        least = torch.where(better, lower, least)
        if group.Z is not None:
            P = torch.where(better[:, None, None], moved, P)
    return A, P, least


def canonical_form(
    A: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return A, B, C in one form, and what it does to P: columns, slices' signs."""
    sizes = B.norm(dim=0), C.norm(dim=0)
    B, C = (
        U / torch.where(size > 0, size, 1.0)
        for U, size in zip((B, C), sizes, strict=True)
    )
    A = A * (sizes[0] * sizes[1])
    order = A.norm(dim=0).argsort(descending=True, stable=True)
    A, B, C = A[:, order], B[:, order], C[:, order]
    flip = peak_signs(C)
    C, A = C * flip, A * flip
    # Signs s t' of a matrix s t' * |A| are those of its first singular vectors.
    first = eigh(A.mT @ A)[1][:, -1]
    columns = torch.where(first < 0, -1.0, 1.0).to(A)
    A, B, sign = A * columns, B * columns, torch.ones_like(A[:, 0])
    # Each turn raises the sum of A or changes nothing.
    for _ in range(10):
        rows = torch.where(A.sum(dim=1) < 0, -1.0, 1.0).to(A)
        A, sign = A * rows[:, None], sign * rows
        columns = torch.where(A.sum(dim=0) < 0, -1.0, 1.0).to(A)
        A, B = A * columns, B * columns
    # P B = (P O) (O' B) for every rotation O: the polar one makes O' B symmetric.
    turn = polar(B, torch.eye(len(B), dtype=B.dtype, device=B.device))
    B = turn.mT @ B
    return A, 0.5 * (B + B.mT), C, turn, sign


def project_parts(
    data: Slices, A: Tensor, B: Tensor, C: Tensor, P: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Return the projections of all slices, (I_k, R), and their squared errors, (K,).

    Parameters
    ----------
    P : sequence of Tensor, shape (1, k, m, R)
        Of each group; not used where no cell is missing.
    """
    N = modelled(A[None], B[None], C[None])
    found: list[Tensor] = []
    lost = []
    for group, last in zip(data.groups, P, strict=True):
        if group.Z is not None:
            rows = slice(len(found), len(found) + len(group.norms))
            found += list(last[0])
            lost.append(errors(group, last, N[:, rows], last)[0])
            continue
        for first, end in runs(data.parts[: len(group.norms)], -1):
            X = stacked(data.parts[first:end]).double()
            eye = torch.eye(X.shape[1], len(B)).to(X)
            models = N[0, first:end]
            M = X @ models.mT
            # The second time without the pull to the unit matrix.
            best = polar(M, polar(M, eye))
            found += list(best)
            lost.append((X - best @ models).square().sum(dim=(1, 2)))
    parts = [U[: len(X)].to(X.dtype) for U, X in zip(found, data.parts, strict=True)]
    return parts, torch.cat(lost)
