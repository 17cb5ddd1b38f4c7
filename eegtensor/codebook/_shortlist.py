"""The nearest code from products in bfloat16, proved or looked for again.

Where the processor multiplies bfloat16, a product costs less than half of one in
float32. An error bound says which codes can still be nearest; those few, one or
two a vector, are scored in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Scores held at one time.
_SCORES = 1 << 21
_BLOCK = 128
# A vector with more blocks of candidates is searched in float32 instead.
_MOST_BLOCKS = 24
# Twice the unit roundoff of bfloat16: a margin for second-order terms.
_ROUNDOFF = 2.0**-8
_FEWEST_CODES, _FEWEST_ENTRIES, FEWEST_ROWS = 4096, 64, 64


class Rough(NamedTuple):
    """A codebook in bfloat16, and how far it may be from the true one.

    Attributes
    ----------
    table : Tensor of bfloat16, shape (dim + 3, n_padded)
        The last rows add up to -||c||^2 / 2.
    norm, error, reach : float
        Largest norm of a code, of what rounding took from one, and largest
        -||c||^2 / 2 in size.
    """

    table: Tensor
    norm: float
    error: float
    reach: float


def pays(table: Tensor) -> bool:
    """Whether bfloat16 is fast here and the codebook large enough to gain by it."""
    return (
        table.device.type == "cpu"
        and table.dtype == torch.float32
        and len(table) >= _FEWEST_CODES
        and table.shape[1] >= _FEWEST_ENTRIES
        and _fast()
    )


def _fast() -> bool:
    try:
        found = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):
        return False
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def round_codes(table: Tensor, *, cosine: bool = False) -> Rough:
    """Return a `Codes.table` rounded for `shortlist`; cosine: for <x, c> alone."""
    n_codes, dim = table.shape
    norms = table.norm(dim=1)
    rounded = table.bfloat16()
    lost = (table - rounded.float()).norm(dim=1)
    padded = -(-n_codes // _BLOCK) * _BLOCK
    rough = torch.zeros(dim + 3, padded, dtype=torch.bfloat16)
    rough[:dim, :n_codes] = rounded.T
    # Behind the last code lies nothing that could be nearest.
    rough[dim, n_codes:] = torch.finfo(torch.bfloat16).min
    rest = torch.zeros_like(norms) if cosine else -0.5 * norms**2
    reach = float(rest.abs().max())
    for row in range(3):
        rough[dim + row, :n_codes] = rest.bfloat16()
        rest = rest - rough[dim + row, :n_codes].float()
    return Rough(rough, float(norms.max()), float(lost.max()), reach)


def shortlist(rows: Tensor, table: Tensor, offset: Tensor, rough: Rough) -> Tensor:
    """Return the index of each row's best code, or -1 where too many are near.

    Parameters
    ----------
    rows : Tensor of float32, shape (n, dim)
        Less `Codes.centre`.
    table : Tensor of float32, shape (n_codes, dim)
    offset : Tensor, shape (>= n_codes,)
        See `Codes`.
    rough : Rough
    """
    n_padded = rough.table.shape[1]
    step = max(1, _SCORES // n_padded)
    # One buffer for all parts: no page is touched for the first time twice.
    scores = rows.new_empty(min(step, len(rows)), n_padded)
    products = scores.new_empty(scores.shape, dtype=torch.bfloat16)
    found = torch.full((len(rows),), -1)
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        held = scores[: len(part)], products[: len(part)]
        ids = _part(part, table, offset, rough, held)
        found[begin : begin + step] = ids
        # Codes whose norms differ much leave too wide a doubt for this to pay.
        if 2 * int((ids < 0).sum()) > len(ids):
            break
    return found


def _part(
    rows: Tensor,
    table: Tensor,
    offset: Tensor,
    rough: Rough,
    held: tuple[Tensor, Tensor],
) -> Tensor:
    scores, products = held
    n, dim = rows.shape
    rounded = torch.ones(n, dim + 3, dtype=torch.bfloat16)
    rounded[:, :dim] = rows
    # As float32, maxima are found four times faster.
    scores.copy_(torch.mm(rounded, rough.table, out=products))
    blocks = scores.view(n, -1, _BLOCK)
    highest = blocks.amax(dim=2)
    best = highest.amax(dim=1)
    # |<x, c> - <x', c'>| <= |x - x'| |c| + |x'| |c - c'|, then what sums lose and
    # what the rounding of the score itself does.
    near = rounded[:, :dim].float()
    size = near.norm(dim=1)
    doubt = (rows - near).norm(dim=1) * rough.norm + size * rough.error
    doubt += (dim + 3) * 2.0**-22 * (rough.norm * size + rough.reach)
    doubt += _ROUNDOFF * best.abs()
    least = best - 2 * doubt
    open_blocks = highest >= least[:, None]
    sure = open_blocks.sum(dim=1) <= _MOST_BLOCKS
    row, block = (open_blocks & sure[:, None]).nonzero(as_tuple=True)
    pair, place = (blocks[row, block] >= least[row][:, None]).nonzero(as_tuple=True)
    row, code = row[pair], block[pair] * _BLOCK + place
    exact = (rows[row] * table[code]).sum(dim=1) + offset[code]
    top = rows.new_full((n,), -torch.inf).scatter_reduce_(0, row, exact, "amax")
    # Of equals the first; a row without candidates keeps a code too high.
    behind = scores.shape[1]
    code = torch.where(exact == top[row], code, behind)
    first = torch.full((n,), behind).scatter_reduce_(0, row, code, "amin")
    return torch.where(first < len(table), first, -1)
