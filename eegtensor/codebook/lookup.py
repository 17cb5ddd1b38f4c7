"""Which code is nearest, exactly, without the table of all distances."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook._shortlist import (
    FEWEST_ROWS,
    Rough,
    pays,
    round_codes,
    shortlist,
)
from eegtensor.geometry._bridge import Array, bridged, floating

# Scores held at one time, and codes in a block of the two-stage search: a row of
# block maxima and one block stay in the processor's cache.
_SCORES = 1 << 20
_BLOCK = 128


class Codes(NamedTuple):
    """A codebook prepared for searching.

    Attributes
    ----------
    table : Tensor, shape (n_codes, dim)
    transposed : Tensor, shape (dim, n_padded)
        With zeros behind the last code.
    offset : Tensor, shape (n_padded,)
        -||c||^2 / 2, by angle 0; -inf behind the last code.
    rough : Rough | None
        The table in bfloat16, where that is worth while.
    """

    table: Tensor
    transposed: Tensor
    offset: Tensor
    rough: Rough | None = None


def prepare_codes(codes: Tensor, *, cosine: bool = False) -> Codes:
    """Return a codebook with what every search of it needs.

    Parameters
    ----------
    codes : Tensor, shape (n_codes, dim)
    cosine : bool
        Whether searches are by angle: codes of unit norm and no offset.

    Raises
    ------
    EEGTensorError
        If the table is empty or of another shape, or a code is not finite.
    """
    if codes.ndim != 2 or 0 in codes.shape:
        fail(
            f"codes have shape {tuple(codes.shape)}",
            fix="give a table of shape (n_codes, dim)",
        )
    table = floating(codes.detach())
    traced = is_traced()
    if not traced and table.device.type == "cpu" and not bool(table.isfinite().all()):
        bad = (~table.isfinite().all(dim=1)).nonzero()[:, 0]
        fail(
            f"{len(bad)} codes are not finite, the first is {int(bad[0])}",
            fix="fit the codebook again, on finite vectors",
        )
    if cosine:
        table = torch.nn.functional.normalize(table, dim=1)
    n_codes, dim = table.shape
    block = _block(n_codes)
    padded = -(-n_codes // block) * block
    transposed = table.new_zeros(dim, padded)
    transposed[:, :n_codes] = table.T
    offset = table.new_full((padded,), -torch.inf)
    # By angle, norms say nothing, and would drown small vectors' products.
    offset[:n_codes] = 0.0 if cosine else -0.5 * (table**2).sum(dim=1)
    rough = round_codes(table, cosine=cosine) if not traced and pays(table) else None
    return Codes(table, transposed, offset, rough)


@bridged
def nearest_codes(X: Array, codes: Array, *, cosine: bool = False) -> Array:
    """Return the index of each vector's nearest code.

    ||x - c||^2 is smallest where <x, c> - ||c||^2 / 2 is largest: one matrix
    product with precomputed norms, a few hundred vectors at a time. The largest
    of a row is found among the maxima of blocks, then inside one block.

    Parameters
    ----------
    X : array, shape (..., dim)
    codes : array, shape (n_codes, dim)
    cosine : bool
        Whether the nearest in angle is wanted; a zero vector gets code 0.

    Returns
    -------
    indices : array of int64, shape (...)
        The first among equals.

    Raises
    ------
    EEGTensorError
        If shapes do not fit or values are not finite.
    """
    return search(X, prepare_codes(codes, cosine=cosine))


def search(X: Tensor, codes: Codes) -> Tensor:
    """As `nearest_codes`, for codes that `prepare_codes` prepared."""
    dim = codes.table.shape[1]
    if X.ndim < 1 or X.shape[-1] != dim:
        fail(
            f"vectors have shape {tuple(X.shape)}, codes have {dim} entries",
            fix=f"give vectors of shape (..., {dim})",
        )
    rows = X.detach().reshape(-1, dim).to(codes.table)
    # One graph for all batch sizes: no parts, no checks of values.
    if is_traced():
        scores = torch.addmm(codes.offset, rows, codes.transposed)
        return scores.max(dim=1).indices.view(X.shape[:-1])
    if codes.rough is not None and len(rows) >= FEWEST_ROWS:
        found = shortlist(rows, codes.table, codes.offset, codes.rough)
        left = (found < 0).nonzero()[:, 0]
        if len(left):
            found[left] = _exhaustive(rows[left], codes)
    else:
        found = _exhaustive(rows, codes)
    # A vector that is not finite has no nearest code; its scores are NaN.
    if rows.device.type == "cpu" and not bool(rows.isfinite().all()):
        bad = (~rows.isfinite().all(dim=1)).nonzero()[:, 0]
        fail(
            f"{len(bad)} of {len(rows)} vectors are not finite, "
            f"the first is {int(bad[0])}",
            fix="restore or drop them first (see eegtensor.features.Completer)",
        )
    return found.view(X.shape[:-1])


def _exhaustive(rows: Tensor, codes: Codes) -> Tensor:
    """Return the best code of each row by all scores in the codebook's dtype."""
    out = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    n_padded = codes.transposed.shape[1]
    step = min(max(1, _SCORES // n_padded), max(1, len(rows)))
    # One buffer for all parts: no page is touched for the first time twice.
    scores = rows.new_empty(step, n_padded)
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        held = scores[: len(part)]
        torch.addmm(codes.offset, part, codes.transposed, out=held)
        out[begin : begin + step] = _first_largest(held)
    return out


def is_traced() -> bool:
    """Whether the call is recorded for export or compilation, not run."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def _block(n_codes: int) -> int:
    return _BLOCK if n_codes > 2 * _BLOCK else n_codes


def _first_largest(scores: Tensor) -> Tensor:
    """Return the first index of each row's maximum, in two stages."""
    n = scores.shape[1]
    block = _block(n)
    if block == n:
        return scores.max(dim=1).indices
    blocks = scores.view(len(scores), n // block, block)
    best = blocks.amax(dim=2).max(dim=1).indices
    inside = blocks[torch.arange(len(scores), device=scores.device), best]
    return best * block + inside.max(dim=1).indices
