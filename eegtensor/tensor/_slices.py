"""Steps of PARAFAC2: slices in groups, projections, sweeps.

Starts are the first axis: A is (S, K, R), B (S, R, R), C (S, J, R).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import EEGTensorError, fail
from eegtensor.geometry._batched_eigh import eigh
from eegtensor.tensor._alternate import solve
from eegtensor.tensor._shapes import as_tensor, normal

# Weight of the last projection in the next one: settles directions without data.
_INERTIA = 1e-6
# Squared directions of a projection below this share of the largest are rounding.
_ROUNDING = 1e-11
# Cells worked through at a time: copies stay small beside the slices.
_CELLS = 200_000


class Group(NamedTuple):
    """Neighbouring slices: what PARAFAC2 needs of them is X' X if nothing is missing.

    Attributes
    ----------
    grams : Tensor, shape (k, J, J), float64
        Of the slices with zero for missing cells.
    norms : Tensor, shape (k,), float64
        Squared norms.
    Z : Tensor, shape (k, m, J) | None
        The slices, zero where missing and beyond their end; None if none is missing.
    observed : Tensor of bool, shape (k, m, J) | None
        True beyond the end.
    """

    grams: Tensor
    norms: Tensor
    Z: Tensor | None = None
    observed: Tensor | None = None


class Slices(NamedTuple):
    """All slices: those that miss nothing first, then the others, each by length.

    Attributes
    ----------
    parts : list of Tensor, shape (I_k, J)
        Zero where missing.
    order : list of int
        The number with which each was given.
    groups : list of Group
    """

    parts: list[Tensor]
    order: list[int]
    groups: list[Group]

    @property
    def sizes(self) -> list[int]:
        """Number of slices in each group."""
        return [len(group.norms) for group in self.groups]

    @property
    def filled(self) -> Group:
        """All slices as if zero were the value of missing cells."""
        columns = [[g.grams for g in self.groups], [g.norms for g in self.groups]]
        return Group(*(torch.cat(parts) for parts in columns))

    @property
    def as_given(self) -> list[int]:
        """Where the slices given first, second, ... are."""
        return sorted(range(len(self.order)), key=self.order.__getitem__)


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
    order = sorted(range(n), key=lambda k: (seen[k] is not None, len(parts[k])))
    n_whole = sum(found is None for found in seen)
    parts, seen = [parts[k] for k in order], [seen[k] for k in order]
    whole, groups = [], []
    for first, last in runs(parts, n_whole):
        if first < n_whole:
            whole.append(_inner_products(stacked(parts[first:last])))
            continue
        Z = stacked(parts[first:last])
        observed = torch.ones_like(Z, dtype=torch.bool)
        for at in range(first, last):
            X, found = parts[at], seen[at]
            assert found is not None
            observed[at - first, : len(X)] = found
            # A view, so that the copy that was checked can go.
            parts[at], seen[at] = Z[at - first, : len(X)], None
        groups.append(Group(*_inner_products(Z), Z, observed))
    if whole:
        columns = zip(*whole, strict=True)
        groups.insert(0, Group(*(torch.cat(blocks) for blocks in columns)))
    return Slices(parts, order, groups)


def runs(parts: Sequence[Tensor], n_whole: int) -> Iterator[tuple[int, int]]:
    """Yield bounds of neighbours that have `_CELLS` cells or less, or are alone."""
    first = 0
    for at, X in enumerate(parts):
        full = (at + 1 - first) * X.numel() > _CELLS or at == n_whole
        if full and at > first:
            yield first, at
            first = at
    yield first, len(parts)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Return slices as one batch with zeros beyond their ends."""
    if len(parts) == 1:
        return parts[0][None]
    dtype = max((X.dtype for X in parts), key=lambda kind: kind.itemsize)
    return torch.nn.utils.rnn.pad_sequence([X.to(dtype) for X in parts], True)


def _inner_products(Z: Tensor) -> tuple[Tensor, Tensor]:
    Z = Z.double()
    grams = Z.mT @ Z
    return grams, grams.diagonal(dim1=1, dim2=2).sum(dim=1)


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


def modelled(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Return B diag(a_k) C' of each start and slice, (S, K, R, J)."""
    S, K, R = A.shape
    rows = (A[:, :, None, :] * B[:, None]).flatten(1, 2)
    return (rows @ C.mT).view(S, K, R, -1)


def project(group: Group, N: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    """Return Y = P' X for the P that are best for models P N, and these.

    Parameters
    ----------
    group : Group
    N : Tensor, shape (S, k, R, J)
    P : Tensor, shape (S, k, m, R) | (S, 0)
        The last ones, which fill missing cells; nothing where none is missing.

    Returns
    -------
    Y : Tensor, shape (S, k, R, J)
    P : Tensor
        As given where no cell is missing.
    """
    if group.Z is not None:
        return _project_filled(group, N, P)
    S, k, R, J = N.shape
    rows = N.transpose(0, 1).reshape(k, S * R, J)
    inner = torch.bmm(rows, group.grams).view(k * S, R, J)
    # P = X N' (N X' X N')^-1/2, and nothing along directions without data.
    values, vectors = eigh(inner @ rows.reshape(k * S, R, J).mT)
    weak = values <= _ROUNDING * values[:, -1:]
    root = torch.where(weak, 0.0, torch.where(weak, 1.0, values).rsqrt())
    Y = ((vectors * root[:, None, :]) @ vectors.mT) @ inner
    return Y.view(k, S, R, J).transpose(0, 1), P


def _row_parts(Z: Tensor) -> list[slice]:
    """Return rows of slices, (k, m, J), that are worked through at a time."""
    step = max(1, _CELLS * Z.shape[1] // max(Z.numel(), 1))
    return [slice(at, at + step) for at in range(0, Z.shape[1], step)]


def _project_filled(group: Group, N: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    assert group.Z is not None and group.observed is not None
    Z, observed, parts = group.Z, group.observed, _row_parts(group.Z)
    Y, P_next = torch.zeros_like(N), torch.empty_like(P)
    step = max(1, _CELLS // Z.numel())
    for at in range(0, len(N), step):
        some = slice(at, at + step)
        model, last = N[some], P[some]
        filled = Z
        for rows in parts:
            estimate = last[:, :, rows] @ model
            filled = torch.where(observed[:, rows], Z[:, rows], estimate)
            P_next[some, :, rows] = filled @ model.mT
        P_next[some] = polar(P_next[some], last)
        for rows in parts:
            # A long slice is filled twice: it would take twice its memory to keep.
            if len(parts) > 1:
                estimate = last[:, :, rows] @ model
                filled = torch.where(observed[:, rows], Z[:, rows], estimate)
            Y[some] += P_next[some, :, rows].mT @ filled
    return Y, P_next


def errors(group: Group, Y: Tensor, N: Tensor, P: Tensor) -> Tensor:
    """Return squared errors of models P N over the observed cells, (S, k)."""
    if group.Z is None or group.observed is None:
        return group.norms - ((2.0 * Y - N) * N).sum(dim=(2, 3))
    Z, observed = group.Z, group.observed
    step = max(1, _CELLS // Z.numel())
    found = P.new_zeros(P.shape[:2])
    for at in range(0, len(N), step):
        some = slice(at, at + step)
        for rows in _row_parts(Z):
            rest = P[some, :, rows] @ N[some]
            rest.sub_(Z[:, rows]).mul_(observed[:, rows]).square_()
            found[some] += rest.sum(dim=(2, 3))
    return found


def first_projection(group: Group, N: Tensor) -> Tensor:
    """Return P of models N for missing cells that are zero; see `project`."""
    if group.Z is None:
        return N.new_empty(len(N), 0)
    eye = torch.eye(group.Z.shape[1], N.shape[2]).to(N)
    parts = _row_parts(group.Z)
    M = torch.cat([group.Z[:, rows].double() @ N.mT for rows in parts], dim=-2)
    return polar(M, polar(M, eye))


def first_states(filled: Group, rank: int, n_init: int, random: Any) -> list[Tensor]:
    """Return A, B, C of all starts: leading singular vectors, then random ones."""
    K, J, _ = filled.grams.shape
    A, C = [torch.ones(K, rank)], []
    leading = eigh(filled.grams.sum(dim=0))[1].flip(-1)[:, :rank].cpu()
    C.append(torch.cat([leading, normal((J, max(0, rank - J)), random)], dim=1))
    for _ in range(n_init - 1):
        A.append(1.0 + 0.1 * normal((K, rank), random))
        C.append(normal((J, rank), random))
    B = torch.eye(rank).expand(n_init, rank, rank)
    return [U.to(filled.grams) for U in (torch.stack(A), B, torch.stack(C))]


def sweep_slices(Y: Tensor, factors: Sequence[Tensor], ridge: float) -> list[Tensor]:
    """Return A, B, C of every start after one sweep of CP over its Y (S, K, R, J)."""
    A, B, C = factors
    # The same norms for a component's three columns: the ridge treats them alike.
    sizes = torch.stack([U.norm(dim=1) for U in factors])
    product = sizes.prod(dim=0)
    live = product > 0
    scale = product.pow(1.0 / 3.0) / torch.where(live, sizes, 1.0)
    A, B, C = (
        U * w[:, None]
        for U, w in zip(factors, torch.where(live, scale, 1.0), strict=True)
    )
    inner = (Y.flatten(1, 2) @ C).view(*Y.shape[:3], -1)
    C_gram = C.mT @ C
    A = solve((B.mT @ B) * C_gram, (inner * B[:, None]).sum(dim=2), ridge)
    A_gram = A.mT @ A
    B = solve(A_gram * C_gram, (inner * A[:, :, None]).sum(dim=1), ridge)
    both = (A[:, :, None] * B[:, None]).flatten(1, 2)
    C = solve(A_gram * (B.mT @ B), Y.flatten(1, 2).mT @ both, ridge)
    return [A, B, C]
