"""After training no code is left that no vector uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor.codebook import (
    ResidualQuantizer,
    VectorQuantizer,
    code_counts,
    code_usage,
    nearest_codes,
)
from eegtensor.codebook._learning import fill_unused
from eegtensor.models._directions import DirectionQuantizer


def vectors(n: int, dim: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def far_ones(n_used: int, n: int) -> Tensor:
    """Return codes of which those from n_used on are far from all vectors."""
    codes = vectors(n, seed=2)
    codes[n_used:] += 100
    return codes


def test_unused_codes_get_the_worst_coded_vectors() -> None:
    codes = torch.tensor([[0.0, 0], [10, 0], [99, 0], [77, 0], [5, 50]])
    rows = torch.tensor(
        [[0.0, 1], [0, -2], [0, 3], [10, 1], [10, -1], [10, 2], [5, 58]]
    )
    found, ids, moved = fill_unused(codes, rows)
    # The last is coded worst of all, but has its code to itself; the others get the
    # worst of either cluster.
    want = codes.clone()
    want[2], want[3] = rows[2], rows[5]
    assert torch.equal(found, want)
    assert torch.equal(moved, torch.tensor([False, False, True, True, False]))
    assert torch.equal(ids, nearest_codes(rows, found))
    # A code without a vector, whichever it is; the one given stays as it was.
    assert torch.equal(codes[2], torch.tensor([99.0, 0]))


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("n_used", [1, 30, 64])
def test_all_codes_are_used_and_errors_fall(n_used: int, unit: float) -> None:
    rows, codes = vectors(300) * unit, far_ones(n_used, 64) * unit
    found, ids, moved = fill_unused(codes, rows)
    assert len(ids.unique()) == 64
    assert torch.equal(ids, nearest_codes(rows, found))
    before = (rows - codes[nearest_codes(rows, codes)]).square().sum(1)
    after = (rows - found[ids]).square().sum(1)
    assert bool((after <= before * (1 + 1e-5)).all())
    assert torch.equal(found[~moved], codes[~moved])
    again, _, none = fill_unused(found, rows)
    assert torch.equal(again, found)
    assert not none.any()


def test_fewer_places_than_codes_leave_some_unused() -> None:
    rows = torch.cat([vectors(20).repeat(5, 1), torch.zeros(30, 5)])
    _, ids, _ = fill_unused(far_ones(3, 64), rows)
    assert len(ids.unique()) == 21
    _, ids, _ = fill_unused(far_ones(3, 64), rows, cosine=True)
    # Zeros have no direction.
    assert len(ids.unique()) in (20, 21)


@pytest.mark.parametrize(
    "options", [{}, {"cosine": True}, {"unit": True}, {"update": "gradient"}]
)
def test_every_level_of_a_module(options: dict[str, Any]) -> None:
    rule = DirectionQuantizer if "unit" in options else ResidualQuantizer
    module = rule(5, 32, 3, revive=0.0, start="random", **options)
    z = vectors(2000)
    module(z)
    module.eval()
    with torch.no_grad():
        for level in module.levels:
            # None is nearer than the first, which comes first among equals.
            level.codes[20:] = level.codes[0]
    dead = code_usage(code_counts(module(z).ids, 32)).dead
    assert bool((dead >= 12).all())
    before = [(level.table.clone(), level.counts.clone()) for level in module.levels]
    module.use_all_codes(z.view(40, 50, 5))
    out = module(z)
    assert code_usage(code_counts(out.ids, 32)).dead.tolist() == [0, 0, 0]
    moved = 0
    for level, (table, counts) in zip(module.levels, before, strict=True):
        new = (level.table != table).any(1)
        moved += int(new.sum())
        torch.testing.assert_close(level.counts[new], counts.mean().expand(new.sum()))
        assert torch.equal(level.counts[~new], counts[~new])
        if "unit" in options:
            torch.testing.assert_close(level.table.norm(dim=1), torch.ones(32))
    assert int(dead.sum()) <= moved < 96
    # Nothing more to do.
    tables = module.tables.clone()
    module.use_all_codes(z)
    assert torch.equal(module.tables, tables)


def test_a_mapped_table_is_refused() -> None:
    module = VectorQuantizer(5, 8, update="gradient", simvq=True)
    with pytest.raises(EEGTensorError, match="simvq"):
        module.use_all_codes(vectors(50))
