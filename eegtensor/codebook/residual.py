"""Residual vector quantisation: every level codes what those before left over."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook.kmeans import lloyd
from eegtensor.codebook.lookup import check_finite, look_up, prepare_codes, search
from eegtensor.geometry._bridge import Array, bridged, floating

_DISTANCES = 1 << 18
# Distances of which the least is found first.
_BLOCK = 16


@bridged
def fit_residual(
    X: Array,
    n_codes: int,
    n_levels: int,
    *,
    later: Array | None = None,
    max_iter: int = 20,
    random_state: int = 0,
) -> Array:
    """Fit one codebook a level by k-means, each on the residual of the last.

    Parameters
    ----------
    X : array, shape (n_vectors, dim)
    n_codes, n_levels : int
    later : array, shape (n_later, dim) | None
        Vectors that only levels from the second on are fitted to as well, such as
        outliers: what the first level leaves of them is most of what many levels
        leave, and the first level has better use for its codes.
    max_iter : int
        Of k-means.
    random_state : int

    Returns
    -------
    tables : array, shape (n_levels, n_codes, dim)

    Raises
    ------
    EEGTensorError
        See `kmeans`; or if n_levels is below one.
    """
    if n_levels < 1:
        fail(f"n_levels={n_levels!r}", fix="give at least one level")
    rest = floating(X.detach())
    tables: list[Tensor] = []
    for level in range(n_levels):
        if level == 1 and later is not None:
            left = floating(later.detach()).to(rest)
            if left.ndim != 2 or left.shape[1] != rest.shape[1]:
                fail(
                    f"later has shape {tuple(left.shape)}, X {tuple(X.shape)}",
                    fix="give vectors of the same length",
                )
            near = search(left, prepare_codes(tables[0]))
            rest = torch.cat([rest, left - tables[0][near]])
        codes, nearest, *_ = lloyd(
            rest, n_codes, max_iter=max_iter, random_state=random_state + level
        )
        tables.append(codes)
        # Less what was coded, not a unit vector: the norm is coded with the rest.
        rest = rest - codes[nearest]
    return torch.stack(tables)


@bridged
def encode_residual(X: Array, tables: Array, *, beam: int = 1) -> Array:
    """Return a code for every level of every vector.

    Parameters
    ----------
    X : array, shape (..., dim)
    tables : array, shape (n_levels, n_codes, dim)
    beam : int
        Prefixes kept from level to level. 1 takes the nearest code at every level
        and is what a prefix of levels is best with; more come nearer to the best
        combination of all levels.

    Returns
    -------
    ids : array of int64, shape (..., n_levels)

    Raises
    ------
    EEGTensorError
        If shapes do not fit, values are not finite, or beam is below one.
    """
    if tables.ndim != 3 or X.ndim < 1 or tables.shape[-1] != X.shape[-1]:
        fail(
            f"vectors have shape {tuple(X.shape)}, tables {tuple(tables.shape)}",
            fix="give tables of shape (n_levels, n_codes, dim) for vectors (..., dim)",
        )
    if beam < 1:
        fail(f"beam={beam!r}", fix="keep at least one prefix")
    rows = floating(X.detach()).reshape(-1, X.shape[-1])
    if beam > 1:
        check_finite(rows, "vectors", "restore or drop them first")
        # Distances held at one time: beam x codes for every vector.
        step = max(1, _DISTANCES // (beam * tables.shape[1]))
        parts = [_beam(part, tables.to(rows), beam) for part in rows.split(step)]
        ids = torch.cat(parts) if parts else rows.new_zeros(0, len(tables)).long()
    else:
        found = []
        for table in tables.to(rows):
            nearest = search(rows, prepare_codes(table))
            rows = rows - table[nearest]
            found.append(nearest)
        ids = torch.stack(found, dim=-1)
    return ids.view(*X.shape[:-1], len(tables))


@bridged
def decode_residual(ids: Array, tables: Array) -> Array:
    """Return the sum of the codes; of the first levels if ids have fewer.

    Parameters
    ----------
    ids : array of int64, shape (..., n_levels)
        -1 adds nothing.
    tables : array, shape (n_tables >= n_levels, n_codes, dim)

    Returns
    -------
    X : array, shape (..., dim)
    """
    n_levels = ids.shape[-1]
    if n_levels > len(tables):
        fail(
            f"ids have {n_levels} levels, the tables {len(tables)}",
            fix="decode with the tables that coded",
        )
    # Level by level: all at once would hold n_levels times the result.
    total = tables.new_zeros(*ids.shape[:-1], tables.shape[-1])
    for level, table in enumerate(tables[:n_levels]):
        total = total + look_up(table, ids[..., level])
    return total


def _beam(rows: Tensor, tables: Tensor, beam: int) -> Tensor:
    """Return the best of the combinations that a beam of prefixes reaches."""
    n, dim = rows.shape
    rest = rows[:, None]
    ids = torch.zeros(n, 1, 0, dtype=torch.int64, device=rows.device)
    for table in tables:
        n_codes = len(table)
        flat = rest.reshape(-1, dim)
        norms = table.square().sum(dim=-1)
        apart = torch.addmm(norms, flat, table.T, alpha=-2)
        apart.add_(flat.square().sum(dim=-1, keepdim=True))
        apart = apart.view(n, rest.shape[1] * n_codes)
        best = _smallest(apart, min(beam, apart.shape[1]))
        prefix, code = best // n_codes, best % n_codes
        rest = rest.gather(1, prefix[..., None].expand(-1, -1, dim)) - table[code]
        ids = torch.cat(
            [
                ids.gather(1, prefix[..., None].expand(-1, -1, ids.shape[-1])),
                code[..., None],
            ],
            dim=-1,
        )
    nearest = rest.square().sum(dim=-1).argmin(dim=1)
    return ids[torch.arange(n, device=ids.device), nearest]


def _smallest(values: Tensor, k: int) -> Tensor:
    """Return the places of the k smallest of each row, smallest first."""
    n, n_values = values.shape
    if n_values % _BLOCK or n_values < 4 * k * _BLOCK:
        return values.topk(k, dim=1, largest=False).indices
    # They lie in the k blocks with the least minima, which are found much faster.
    blocks = values.view(n, n_values // _BLOCK, _BLOCK)
    where = blocks.amin(dim=2).topk(k, dim=1, largest=False).indices
    few = blocks.gather(1, where[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    found = few.topk(k, dim=1, largest=False).indices
    return where.gather(1, found // _BLOCK) * _BLOCK + found % _BLOCK
