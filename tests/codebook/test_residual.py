"""Residual quantisation: sums of codes, level by level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor.codebook import decode_residual, encode_residual, fit_residual


def vectors(n: int = 3000, dim: int = 6, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=g, dtype=torch.float64)
    return torch.randn(n, dim, generator=g, dtype=torch.float64) @ mix


def error(X: Tensor, ids: Tensor, tables: Tensor) -> float:
    return float((X - decode_residual(ids, tables)).square().mean())


@pytest.mark.parametrize("scale", [0.05, 1.0, 20.0])
def test_every_level_lowers_the_error_of_new_vectors_at_any_scale(scale: float) -> None:
    fitted, new = (scale * vectors(6000)).split(3000)
    tables = fit_residual(fitted, 32, 5)
    ids = encode_residual(new, tables)
    assert ids.shape == (3000, 5)
    errors = [error(new, ids[:, :k], tables) for k in range(1, 6)]
    assert all(b < 0.9 * a for a, b in itertools.pairwise(errors))


def test_a_prefix_of_levels_is_the_code_with_fewer_tables() -> None:
    X = vectors(200)
    tables = fit_residual(X, 16, 4)
    ids = encode_residual(X, tables)
    assert torch.equal(encode_residual(X, tables[:2]), ids[:, :2])
    padded = ids.clone()
    padded[:, 2:] = -1
    torch.testing.assert_close(
        decode_residual(padded, tables), decode_residual(ids[:, :2], tables)
    )


def test_a_wide_beam_finds_the_best_combination() -> None:
    X = vectors(60, 3)
    tables = fit_residual(X, 4, 3)
    all_ids = torch.cartesian_prod(*[torch.arange(4)] * 3)
    sums = decode_residual(all_ids, tables)
    best = torch.cdist(X, sums).square().amin(dim=1).sum() / X.numel()
    assert error(X, encode_residual(X, tables, beam=64), tables) == pytest.approx(
        float(best)
    )
    greedy = error(X, encode_residual(X, tables), tables)
    some = error(X, encode_residual(X, tables, beam=4), tables)
    assert float(best) <= some <= greedy


def test_leading_axes() -> None:
    X = vectors(24)
    tables = fit_residual(X, 8, 2)
    ids = encode_residual(X.view(2, 3, 4, 6), tables, beam=2)
    assert ids.shape == (2, 3, 4, 2)
    assert decode_residual(ids, tables).shape == (2, 3, 4, 6)
    assert encode_residual(X[:0], tables, beam=2).shape == (0, 2)


def test_what_does_not_fit_is_refused() -> None:
    X = vectors(50)
    tables = fit_residual(X, 8, 2)
    with pytest.raises(EEGTensorError, match="n_levels=0"):
        fit_residual(X, 8, 0)
    with pytest.raises(EEGTensorError, match=r"tables \(2, 8, 6\)"):
        encode_residual(X[:, :4], tables)
    with pytest.raises(EEGTensorError, match="between 8 and 8, codes between 0 and 7"):
        decode_residual(torch.tensor([[0, 8]]), tables)
    with pytest.raises(EEGTensorError, match="3 levels, the tables 2"):
        decode_residual(torch.zeros(1, 3, dtype=torch.int64), tables)


def test_outliers_are_reached_by_later_levels() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 3))
    far = 4 * rng.standard_normal((200, 3))
    tables = fit_residual(X, 64, 4, random_state=0)
    wider = fit_residual(X, 64, 4, later=far, random_state=0)
    np.testing.assert_array_equal(wider[0], tables[0])
    new = 4 * rng.standard_normal((500, 3))

    def left(books: NDArray) -> float:
        rebuilt = decode_residual(encode_residual(new, books), books)
        return float(np.mean((new - rebuilt) ** 2))

    assert left(wider) < 0.2 * left(tables)
    with pytest.raises(EEGTensorError, match="later"):
        fit_residual(X, 64, 2, later=far[:, :2])
