"""Kernels against einsum and unfoldings written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _planted import LETTERS

from eegtensor.tensor import kernels

SHAPES = [(5, 7), (4, 5, 6), (3, 1, 6, 4), (2, 3, 2, 4, 3)]


def unfold(X: torch.Tensor, mode: int) -> torch.Tensor:
    return X.movedim(mode, 0).reshape(X.shape[mode], -1)


def example(shape: tuple[int, ...], rank: int = 3) -> tuple[torch.Tensor, list]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(shape, generator=generator, dtype=torch.float64)
    factors = [
        torch.randn(size, rank, generator=generator, dtype=torch.float64)
        for size in shape
    ]
    return X, factors


def direct(X: torch.Tensor, factors: list[torch.Tensor], mode: int) -> torch.Tensor:
    axes = LETTERS[: X.ndim]
    others = [n for n in range(X.ndim) if n != mode]
    terms = ",".join(f"{axes[n]}z" for n in others)
    return torch.einsum(
        f"{axes},{terms}->{axes[mode]}z", X, *[factors[n] for n in others]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_gram_and_mode_product(shape: tuple[int, ...], monkeypatch) -> None:
    X, factors = example(shape)
    # Pieces so small that every loop turns several times.
    monkeypatch.setattr(kernels, "_PIECE", 64)
    for n in range(X.ndim):
        M = unfold(X, n)
        torch.testing.assert_close(kernels.gram(X, n), M @ M.mT)
        found = kernels.mode_product(X, factors[n].mT, n)
        torch.testing.assert_close(unfold(found, n), factors[n].mT @ M)
    assert kernels.squared_norm(X) == pytest.approx(float((X**2).sum()), rel=1e-12)


def test_grams_of_float32_are_sums_in_float64() -> None:
    X = (1.0 + 1e-4 * torch.randn(3, 5, 4000)).float()
    exact = unfold(X.double(), 1) @ unfold(X.double(), 1).mT
    found = kernels.gram(X, 1)
    assert found.dtype == torch.float64
    assert float((found - exact).abs().max() / exact.max()) < 1e-13


@pytest.mark.parametrize("shape", SHAPES)
def test_project_and_expand(shape: tuple[int, ...]) -> None:
    X, factors = example(shape, 2)
    axes, new = LETTERS[: X.ndim], "uvwxy"[: X.ndim]
    terms = ",".join(a + b for a, b in zip(axes, new, strict=True))
    core = kernels.project(X, factors, range(X.ndim))
    torch.testing.assert_close(
        core, torch.einsum(f"{axes},{terms}->{new}", X, *factors)
    )
    back = kernels.expand(core, factors)
    torch.testing.assert_close(
        back, torch.einsum(f"{new},{terms}->{axes}", core, *factors)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_mttkrp_and_the_sweep(shape: tuple[int, ...]) -> None:
    X, factors = example(shape)
    for n in range(X.ndim):
        torch.testing.assert_close(
            kernels.mttkrp(X, factors, n), direct(X, factors, n), rtol=1e-10, atol=1e-10
        )
    mine, order = list(factors), []

    def update(n: int, M: torch.Tensor) -> torch.Tensor:
        order.append(n)
        # With the newest factors, those of this sweep among them.
        torch.testing.assert_close(M, direct(X, mine, n), rtol=1e-10, atol=1e-10)
        mine[n] = torch.tanh(M)
        return mine[n]

    given = list(factors)
    last = kernels.sweep_modes(X, given, update)
    assert order == list(range(X.ndim))
    torch.testing.assert_close(last, direct(X, mine, X.ndim - 1))
    for U, V in zip(given, mine, strict=True):
        torch.testing.assert_close(U, V)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (5, 5)])
def test_leading_vectors(shape: tuple[int, int]) -> None:
    X, _ = example(shape)
    U, S, _ = torch.linalg.svd(X, full_matrices=False)
    found, energy = kernels.leading_vectors(X, 0, 3)
    torch.testing.assert_close(energy, S**2)
    torch.testing.assert_close((found.mT @ U[:, :3]).abs(), torch.eye(3).double())


def test_leading_vectors_of_a_deficient_tensor_are_orthonormal() -> None:
    X = torch.zeros(30, 4, dtype=torch.float64)
    X[:, 0] = 1.0
    found, _ = kernels.leading_vectors(X, 0, 4)
    torch.testing.assert_close(found.mT @ found, torch.eye(4).double())
    more, _ = kernels.leading_vectors(X, 0, 6)
    torch.testing.assert_close(more.mT @ more, torch.eye(6).double())


def test_the_sum_of_components() -> None:
    _, factors = example((4, 5, 6))
    weights = torch.tensor([2.0, -1.0, 0.5]).double()
    found = kernels.sum_of_components(weights, factors)
    wanted = np.einsum("r,ar,br,cr->abc", *[t.numpy() for t in (weights, *factors)])
    np.testing.assert_allclose(found, wanted)


def test_modes_are_cut_where_the_halves_are_smallest() -> None:
    assert kernels.split_modes((10, 10, 10, 10)) == 2
    assert kernels.split_modes((100, 2, 2)) == 1
    assert kernels.split_modes((3, 7)) == 1


@pytest.mark.parametrize("rows", [1, 16, 37])
def test_a_wide_matrix_is_multiplied_a_few_rows_at_a_time(
    rows: int, monkeypatch, rng
) -> None:
    monkeypatch.setattr(kernels, "_LARGE", 1)
    X = rng.standard_normal((rows, 2100))
    thin = rng.standard_normal((5, rows))
    found = kernels.thin_product(torch.from_numpy(thin), torch.from_numpy(X))
    np.testing.assert_allclose(found.numpy(), thin @ X, rtol=1e-12, atol=1e-12)
