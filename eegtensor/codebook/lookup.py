"""Which code is nearest, exactly, without the table of all distances."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eegtensor._check import fail
from eegtensor.codebook._shortlist import (
    FEWEST_ROWS,
    Rough,
    pays,
    round_codes,
    shortlist,
)
from eegtensor.geometry._bridge import Array, bridged, floating

# Scores held at one time: they stay in the processor's cache.
_SCORES = 1 << 20
_RESTORE = "restore or drop them first (see eegtensor.features.Completer)"


class Codes(NamedTuple):
    """A codebook prepared for searching.

    Attributes
    ----------
    table : Tensor, shape (n_codes, dim)
        Codes less their mean: what all have in common would drown differences.
    centre : Tensor, shape (dim,)
        To be taken from the vectors: that mean, by angle 0.
    transposed : Tensor, shape (dim, n_padded)
        The table, with zeros behind the last code.
    offset : Tensor, shape (n_padded,)
        -||c||^2 / 2 of the table, by angle 0; -inf behind the last code.
    rough : Rough | None
        The table in bfloat16, where that is worth while.
    """

    table: Tensor
    centre: Tensor
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
    check_finite(table, "codes", "fit the codebook again, on finite vectors")
    if cosine:
        table = directions(table)
    centre = table.mean(dim=0)
    table = table - centre
    n_codes, dim = table.shape
    block = _block(n_codes)
    padded = -(-n_codes // block) * block
    transposed = table.new_zeros(dim, padded)
    transposed[:, :n_codes] = table.T
    offset = table.new_full((padded,), -torch.inf)
    # By angle, norms say nothing, and would drown small vectors' products.
    offset[:n_codes] = 0.0 if cosine else -0.5 * (table**2).sum(dim=1)
    fast = not is_traced() and pays(table)
    rough = round_codes(table, cosine=cosine) if fast else None
    # By angle, the centre moves all scores of a vector alike.
    moved = torch.zeros_like(centre) if cosine else centre
    return Codes(table, moved, transposed, offset, rough)


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
    rows = X.detach().reshape(-1, dim).to(codes.table) - codes.centre
    # One graph for all batch sizes: no parts, no checks of values.
    if is_traced():
        scores = torch.addmm(codes.offset, rows, codes.transposed)
        return scores.max(dim=1).indices.view(X.shape[:-1])
    check_finite(rows, "vectors", _RESTORE)
    if codes.rough is not None and len(rows) >= FEWEST_ROWS:
        found = shortlist(rows, codes.table, codes.offset, codes.rough)
        left = (found < 0).nonzero()[:, 0]
        if len(left):
            found[left] = _exhaustive(rows[left], codes)
    else:
        found = _exhaustive(rows, codes)
    return found.view(X.shape[:-1])


def look_up(table: Tensor, ids: Tensor) -> Tensor:
    """Return the codes of ids; -1 is zero.

    Raises
    ------
    EEGTensorError
        If an id is no code (not checked on a GPU).
    """
    check_ids(ids, len(table))
    return torch.where((ids >= 0)[..., None], table[ids.clamp_min(0)], 0.0)


def directions(X: Tensor) -> Tensor:
    """Return vectors (..., dim) of unit norm, whatever their unit; zero stays zero."""
    size = X.detach().abs().amax(dim=-1, keepdim=True)
    # The largest entry is one now, so that no norm is below eps but that of zero.
    return normalize(X / torch.where(size > 0, size, 1.0), dim=-1, eps=1.0)


def check_finite(rows: Tensor, what: str, fix: str) -> None:
    """Raise if rows (n, dim) are not finite (not checked on a GPU or in a trace)."""
    # A sum costs a tenth of a look at every entry, and what is not finite shows in it.
    if is_traced() or rows.device.type != "cpu" or bool(rows.sum().isfinite()):
        return
    bad = (~rows.isfinite().all(dim=1)).nonzero()[:, 0]
    if len(bad):
        fail(
            f"{len(bad)} of {len(rows)} {what} are not finite, "
            f"the first is {int(bad[0])}",
            fix=fix,
        )


def check_ids(ids: Tensor, n_codes: int, *, least: int = -1) -> None:
    """Raise if ids are no codes (not checked on a GPU or in a trace)."""
    if is_traced() or ids.device.type != "cpu" or not ids.numel():
        return
    low, high = int(ids.min()), int(ids.max())
    if low < least or high >= n_codes:
        fail(
            f"ids lie between {low} and {high}, codes between 0 and {n_codes - 1}",
            fix="decode and count with the codebook that coded",
        )


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
    """Return how many codes of a row make a block of the two-stage search."""
    if n_codes < 128:
        return n_codes
    return 32 if n_codes <= 256 else 64 if n_codes <= 2048 else 128


def _first_largest(scores: Tensor) -> Tensor:
    """Return the first index of each row's maximum, in two stages."""
    n, n_codes = scores.shape
    block = _block(n_codes)
    if block == n_codes:
        return scores.max(dim=1).indices
    # A maximum without its place is found ten times faster than one with it.
    blocks = scores.view(-1, block)
    each = n_codes // block
    best = blocks.amax(dim=1).view(n, each).max(dim=1).indices
    rows = best + torch.arange(0, n * each, each, device=scores.device)
    inside = blocks.index_select(0, rows)
    return best * block + inside.max(dim=1).indices
