"""How a codebook learns: dead codes get vectors of the batch, the living stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eegtensor.codebook import (
    GroupedQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
    fit_residual,
)
from eegtensor.codebook._learning import moved_codes, revived


def vectors(n: int, dim: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def where(found: Tensor, among: Tensor) -> Tensor:
    """Return the row of `among` that each row of `found` equals, or -1."""
    same = (found[:, None] == among).all(dim=2)
    return torch.where(same.any(dim=1), same.int().argmax(dim=1), -1)


@pytest.mark.parametrize("n", [300, 60, 20])
def test_dead_codes_get_different_vectors_and_an_even_share(n: int) -> None:
    codes, rows = vectors(40), vectors(n, seed=1)
    counts = torch.full((40,), 10.0)
    # An even use is 6.25; its eighth is .78, below the threshold of two.
    counts[10:25] = 0.5
    draw = torch.Generator().manual_seed(0)
    new, after = revived(codes, counts, rows, 2.0, draw, together=False)
    dead = counts < 1
    assert torch.equal(new[~dead], codes[~dead])
    assert torch.equal(after[~dead], counts[~dead])
    torch.testing.assert_close(after[dead], counts.mean().expand(15))
    from_batch = where(new[dead], rows)
    assert bool((from_batch >= 0).all())
    # Without replacement where there are vectors enough.
    assert len(from_batch.unique()) == 15 if n >= 40 else len(from_batch.unique()) > 5
    other = torch.Generator().manual_seed(1)
    again, _ = revived(codes, counts, rows, 2.0, other, together=False)
    assert not torch.equal(again, new)


@pytest.mark.parametrize(("count", "revives"), [(0.5, True), (1.0, False)])
def test_the_threshold_is_in_vectors_a_batch(count: float, revives: bool) -> None:
    codes, counts = vectors(8), torch.full((8,), 100.0)
    counts[3] = count
    draw = torch.Generator().manual_seed(0)
    new, _ = revived(codes, counts, vectors(50, seed=1), 0.75, draw, together=False)
    assert torch.equal(new[3], codes[3]) is not revives


def test_a_later_level_is_revived_with_what_earlier_ones_left() -> None:
    module = ResidualQuantizer(5, 16, 2, start="sample", decay=0.9)
    module(vectors(200))
    dead = 4
    second = module.levels[1]
    second.codes[dead] = 1e6
    second.counts[dead] = 0.0
    module.eval()
    # The codes before the batch moves them: evaluation at the same table.
    z = vectors(200, seed=1)
    rest = z - module.levels[0].decode(module(z).ids[:, 0])
    module.train()
    seen: list[Tensor] = []
    after = second._after

    def watched(rows: Tensor, ids: Tensor) -> Tensor:
        seen.append(second.codes.clone())
        return after(rows, ids)

    second._after = watched
    module(z)
    far = torch.cdist(seen[0][dead : dead + 1], rest)
    assert float(far.min()) < 1e-5


@pytest.mark.parametrize("start", ["kmeans", "sample", "random"])
def test_the_seed_decides_starts_and_revivals(start: str) -> None:
    def run(seed: int) -> tuple[Tensor, Tensor]:
        module = VectorQuantizer(5, 40, start=start, random_state=seed)
        first = module.codes.clone()
        for k in range(4):
            module(vectors(60, seed=k))
        return first, module.codes

    one, same, other = run(0), run(0), run(1)
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_a_code_that_never_had_a_vector_stays() -> None:
    codes, counts = vectors(3), torch.tensor([0.0, 0.0, 4.0])
    batch = torch.tensor([0.0, 2.0, 0.0]), vectors(3, seed=1)
    new, after = moved_codes(codes, counts, batch, 0.9)
    assert torch.equal(new[::2], codes[::2])
    torch.testing.assert_close(new[1], batch[1][1] / 2)
    torch.testing.assert_close(after, torch.tensor([0.0, 0.2, 3.6]))


@pytest.mark.parametrize("n_levels", [1, 2])
def test_every_group_level_and_seed_draws_its_own(n_levels: int) -> None:
    def drawn(seed: int) -> list[Tensor]:
        module = GroupedQuantizer(
            10, 4, 2, n_levels=n_levels, start="random", random_state=seed
        )
        return [v for k, v in module.state_dict().items() if k.endswith("codes")]

    assert len(torch.cat(drawn(0)).unique(dim=0)) == 8 * n_levels
    assert not torch.equal(drawn(0)[0], drawn(9)[0])


def test_the_seed_decides_the_levels() -> None:
    one, same, other = (
        fit_residual(vectors(200), 8, 2, random_state=s) for s in (0, 0, 5)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one[0], other[0])
