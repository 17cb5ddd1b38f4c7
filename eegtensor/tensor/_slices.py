"""Steps of PARAFAC2: slices as one batch, projections, scores, canonical form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import EEGTensorError, fail
from eegtensor.geometry._batched_eigh import eigh
from eegtensor.tensor._alternate import balance_columns, solve
from eegtensor.tensor._shapes import as_tensor, normal
from eegtensor.tensor.kernels import gram, squared_norm

# Weight of the last projection in the next one: settles directions without data.
_INERTIA = 1e-6


class Slices(NamedTuple):
    """Slices as one batch: compressed to J rows where nothing is missing.

    Attributes
    ----------
    parts : list of Tensor, shape (I_k, J)
        Zero where missing.
    Z : Tensor, shape (K, m, J), float64
        Any rows with the same inner products as the slice's, then zeros.
    observed : Tensor of bool, shape (K, m, J) | None
    norms : Tensor, shape (K,)
        Squared norms.
    """

    parts: list[Tensor]
    Z: Tensor
    observed: Tensor | None
    norms: Tensor


def read_slices(given: Sequence[Tensor], n: int, rank: int) -> Slices:
    parts, masks = list(given[:n]), list(given[n:])
    if n == 0 or len(masks) not in (0, n):
        fail(f"{n} slices and {len(masks)} masks", fix="give one mask for each slice")
    seen: list[Tensor | None] = []
    for k in range(n):
        try:
            parts[k], found, _ = as_tensor(parts[k], masks[k] if masks else None)
        except EEGTensorError as error:
            fail(f"Slice {k}: {error}", cause=error)
        seen.append(found)
        if parts[k].ndim != 2 or parts[k].shape[1] != parts[0].shape[-1]:
            fail(
                f"Slice {k} has shape {tuple(parts[k].shape)}, the first has "
                f"{tuple(parts[0].shape)}",
                fix="give matrices (I_k, J) with the same number of columns",
            )
        if len(parts[k]) < rank:
            fail(
                f"Slice {k} has {len(parts[k])} rows and rank is {rank}",
                why="Its time courses cannot have the common inner products",
                fix="lower the rank or drop the slice",
            )
    norms = torch.tensor([squared_norm(X) for X in parts], dtype=torch.float64)
    norms = norms.to(parts[0].device)
    if all(found is None for found in seen):
        return Slices(parts, _compress(parts, rank), None, norms)
    longest = max(len(X) for X in parts)
    Z = torch.zeros(n, longest, parts[0].shape[1], dtype=torch.float64).to(norms.device)
    observed = torch.ones_like(Z, dtype=torch.bool)
    for k, X in enumerate(parts):
        Z[k, : len(X)] = X
        found = seen[k]
        if found is not None:
            observed[k, : len(X)] = found
    return Slices(parts, Z, observed, norms)


def _compress(parts: list[Tensor], rank: int) -> Tensor:
    """Return T_k with T_k' T_k = X_k' X_k, (K, max(J, rank), J)."""
    J = parts[0].shape[1]
    values, vectors = eigh(torch.stack([gram(X, 1) for X in parts]))
    scale = values.flip(-1).clamp_min(0.0).sqrt()
    # A slice of fewer rows than J has no more directions than rows.
    rows = torch.tensor([len(X) for X in parts], device=scale.device)
    scale = scale * (torch.arange(J, device=scale.device) < rows[:, None])
    T = scale[:, :, None] * vectors.flip(-1).mT
    return torch.nn.functional.pad(T, (0, 0, 0, max(0, rank - J)))


def polar(M: Tensor, before: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal columns, (..., m, R).

    `before` decides where M has nothing to say.
    """
    size = M.norm(dim=(-2, -1), keepdim=True)
    M = M / torch.where(size > 0, size, 1.0) + _INERTIA * before
    values, vectors = eigh(M.mT @ M)
    floor = values[..., -1:] * 1e-15
    root = torch.maximum(values, floor).rsqrt()
    P = M @ ((vectors * root[..., None, :]) @ vectors.mT)
    # Newton's iteration takes off what the Gram's rounding left.
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    for _ in range(2):
        P = P @ (1.5 * eye - 0.5 * (P.mT @ P))
    return P


def modelled(P: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    return P @ ((B * A[:, None, :]) @ C.mT)


def first_state(Z: Tensor, rank: int, start: int, random: Any) -> list[Tensor]:
    K, m, J = Z.shape
    P = torch.eye(m, rank, dtype=Z.dtype, device=Z.device).expand(K, m, rank)
    A = torch.ones(K, rank, dtype=Z.dtype, device=Z.device)
    B = torch.eye(rank, dtype=Z.dtype, device=Z.device)
    if start == 0:
        C = eigh(torch.einsum("kmi,kmj->ij", Z, Z))[1].flip(-1)[:, :rank]
        if rank > J:
            C = torch.cat([C, normal((J, rank - J), random).to(C)], dim=1)
        return [P, A, B, C]
    A = A + 0.1 * normal((K, rank), random).to(Z)
    return [P, A, B, normal((J, rank), random).to(Z)]


def settle_scores(
    data: Slices,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    P: Tensor,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Alternate A and P for fixed B and C; return also each squared error.

    A slice that has settled stays as it is: it does not depend on the others.
    """
    H = (B.mT @ B) * (C.mT @ C)
    errors = torch.full_like(data.norms, torch.inf)
    live = torch.ones_like(errors, dtype=torch.bool)
    for _ in range(max_iter):
        Z = data.Z
        if data.observed is not None:
            Z = torch.where(data.observed, Z, modelled(P, A, B, C))
        P_next = polar(Z @ ((C * A[:, None, :]) @ B.mT), P)
        right = ((P_next.mT @ Z @ C) * B).sum(dim=1)
        A_next = solve(H, right, 1e-12)
        if data.observed is None:
            found = data.norms - (A_next * (2.0 * right - A_next @ H)).sum(dim=1)
        else:
            rest = data.Z - modelled(P_next, A_next, B, C)
            found = torch.where(data.observed, rest, 0.0).square().sum(dim=(1, 2))
        A = torch.where(live[:, None], A_next, A)
        P = torch.where(live[:, None, None], P_next, P)
        gain = errors - found
        errors = torch.where(live, found, errors)
        live = live & (gain > tol * data.norms)
        if not bool(live.any()):
            break
    return A, P, errors.clamp_min(0.0)


def rescore(
    data: Slices,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    P: Tensor,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `settle_scores`, and no flip of one component's sign is better.

    The signs of a slice's scores never cross zero by themselves: they are minima
    of their own.
    """
    A, P, errors = settle_scores(data, B, C, A, P, max_iter, tol)
    for r in range(A.shape[1] if A.shape[1] > 1 else 0):
        flip = torch.ones_like(A[0])
        flip[r] = -1.0
        tried = settle_scores(data, B, C, A * flip, P, max_iter // 8, tol)
        better = tried[2] < errors - tol * data.norms
        A = torch.where(better[:, None], tried[0], A)
        P = torch.where(better[:, None, None], tried[1], P)
    return settle_scores(data, B, C, A, P, max_iter, tol)


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
    largest = C.gather(0, C.abs().argmax(dim=0, keepdim=True))[0]
    flip = torch.where(largest < 0, -1.0, 1.0).to(C)
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
    data: Slices, A: Tensor, B: Tensor, C: Tensor, P: Tensor
) -> tuple[Tensor, ...]:
    """Return the projections of the slices themselves, shapes (I_k, R)."""
    if data.observed is not None:
        return tuple(P[k, : len(X)].to(X.dtype) for k, X in enumerate(data.parts))
    groups = defaultdict(list)
    for k, X in enumerate(data.parts):
        groups[len(X)].append(k)
    found: dict[int, Tensor] = {}
    for size, members in groups.items():
        eye = torch.eye(size, len(B), dtype=B.dtype, device=B.device)
        W = (C * A[members][:, None, :]) @ B.mT
        M = torch.stack(
            [data.parts[k].double() @ w for k, w in zip(members, W, strict=True)]
        )
        found |= dict(zip(members, polar(M, eye), strict=True))
    return tuple(found[k].to(X.dtype) for k, X in enumerate(data.parts))


def sweep_slices(
    Y: Tensor, factors: list[Tensor], total: float, ridge: float
) -> tuple[list[Tensor], float]:
    """Return A, B, C after one sweep of CP over Y (K, R, J), and the relative error.

    Two products with Y serve all three updates.
    """
    factors = list(factors)
    balance_columns(factors)
    A, B, C = factors
    inner = Y @ C
    B_gram, C_gram = B.mT @ B, C.mT @ C
    A = solve(B_gram * C_gram, (inner * B).sum(dim=1), ridge)
    A_gram = A.mT @ A
    B = solve(A_gram * C_gram, (inner * A[:, None, :]).sum(dim=0), ridge)
    both = (A[:, None, :] * B).flatten(0, 1)
    right = Y.flatten(0, 1).mT @ both
    V = A_gram * (B.mT @ B)
    C = solve(V, right, ridge)
    lost = total + float((C * (C @ V - 2.0 * right)).sum())
    return [A, B, C], max(lost, 0.0) / total if total > 0 else 0.0
