"""CP: planted factors, stationarity, masks, degeneracy, tensorly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _planted import cp_tensor, match, noisy

import eegtensor.tensor as T
from eegtensor import EEGTensorError
from eegtensor.tensor._alternate import alternate, solve
from eegtensor.tensor.cp import congruence


def planted(shape, rank, rng) -> list[np.ndarray]:
    return [rng.standard_normal((size, rank)) for size in shape]


def relative(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.linalg.norm(A - B) / np.linalg.norm(B))


@pytest.mark.parametrize(
    ("shape", "rank"), [((12, 13, 14), 8), ((9, 10, 11), 5), ((7, 8, 6, 9), 4)]
)
def test_planted_factors_at_20_decibel(shape, rank, rng) -> None:
    factors = planted(shape, rank, rng)
    X = noisy(cp_tensor(factors), 20.0, rng)
    model = T.cp(X, rank, n_init=4)
    assert match(model.factors, factors) > 0.99
    assert not model.degenerate


def test_the_fit_is_that_of_the_reconstruction(rng) -> None:
    X = rng.standard_normal((7, 8, 9))
    model = T.cp(X, 3)
    assert model.fit == pytest.approx(1 - relative(model.reconstruct(), X), abs=1e-9)


def test_the_optimum_is_stationary(rng) -> None:
    factors = planted((8, 9, 10), 3, rng)
    X = noisy(cp_tensor(factors), 5.0, rng)
    model = T.cp(X, 3, tol=1e-14, max_iter=3000)
    parts = [torch.tensor(model.factors[0] * model.weights)]
    parts += [torch.tensor(U) for U in model.factors[1:]]
    for U in parts:
        U.requires_grad_()
    estimate = torch.einsum("ar,br,cr->abc", *parts)
    loss = ((estimate - torch.from_numpy(X)) ** 2).sum()
    size = float(loss.detach())
    for U, G in zip(parts, torch.autograd.grad(loss, parts), strict=True):
        assert float((G.norm() * U.norm()).detach()) < 1e-4 * size


def test_as_good_as_tensorly(rng) -> None:
    pytest.importorskip("tensorly")
    from tensorly.decomposition import parafac

    X = noisy(cp_tensor(planted((12, 15, 20), 5, rng)), 0.0, rng)
    theirs = parafac(X, 5, tol=1e-10, n_iter_max=500)
    error = relative(cp_tensor([theirs[1][0] * theirs[0], *theirs[1][1:]]), X)
    assert 1 - T.cp(X, 5, tol=1e-10, max_iter=500).fit <= error + 1e-5


def test_canonical_form(rng) -> None:
    X = noisy(cp_tensor(planted((8, 9, 10), 4, rng)), 10.0, rng)
    model = T.cp(X, 4)
    assert (np.diff(model.weights) <= 0).all()
    for n, U in enumerate(model.factors):
        np.testing.assert_allclose(np.linalg.norm(U, axis=0), 1.0)
        if n:
            peaks = U[np.abs(U).argmax(axis=0), np.arange(4)]
            assert (peaks > 0).all()


def test_units_dtype_and_kind(rng) -> None:
    X = noisy(cp_tensor(planted((8, 9, 10), 3, rng)), 20.0, rng)
    model = T.cp(X, 3)
    small = T.cp(1e-6 * X, 3)
    np.testing.assert_allclose(small.weights, 1e-6 * model.weights, rtol=1e-6)
    np.testing.assert_allclose(small.factors[2], model.factors[2], atol=1e-6)
    single = T.cp(X.astype(np.float32), 3)
    assert single.weights.dtype == np.float32
    np.testing.assert_allclose(single.factors[0], model.factors[0], atol=1e-3)
    assert isinstance(T.cp(torch.from_numpy(X), 3).weights, torch.Tensor)


def test_the_same_seed_gives_the_same_bits(rng) -> None:
    X = rng.standard_normal((8, 9, 10))
    first, second = (T.cp(X, 4, random_state=3) for _ in range(2))
    for U, V in zip(first.factors, second.factors, strict=True):
        np.testing.assert_array_equal(U, V)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    first, second = (T.cp(X, 4, random_state=g) for g in generators)
    np.testing.assert_array_equal(first.weights, second.weights)


@pytest.mark.parametrize("rank", [5, 9])
def test_more_components_than_a_mode_is_long(rank: int, rng) -> None:
    factors = planted((4, 12, 13), rank, rng)
    X = cp_tensor(factors)
    model = T.cp(X, rank, n_init=4, max_iter=2000, tol=1e-10)
    assert model.fit > 0.99
    assert model.factors[0].shape == (4, rank)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_missing_cells(share: float, rng) -> None:
    X = cp_tensor(planted((12, 13, 14), 3, rng))
    mask = rng.random(X.shape) >= share
    model = T.cp(np.where(mask, X, np.nan), 3, tol=1e-9, max_iter=500, n_init=3)
    assert relative(model.reconstruct()[~mask], X[~mask]) < 1e-3
    error = relative(model.reconstruct()[mask], X[mask])
    assert model.fit == pytest.approx(1 - error, abs=1e-7)
    other = T.cp(np.where(mask, X, 1e9), 3, mask=mask, tol=1e-9, max_iter=500, n_init=3)
    np.testing.assert_array_equal(other.weights, model.weights)


def test_a_full_mask_changes_nothing(rng) -> None:
    # More pairs of columns than are worked on at a time.
    X = noisy(cp_tensor(planted((6, 7, 8), 6, rng)), 10.0, rng)
    plain = [torch.randn(s, 6, generator=torch.Generator().manual_seed(s)).double()
             for s in X.shape]  # fmt: skip
    masked = [U.clone() for U in plain]
    total = float((X**2).sum())
    tensor = torch.from_numpy(X)
    args = (total, 1e-9, 5, 0.0)
    e1, _ = alternate(tensor, plain, *args)
    e2, _ = alternate(
        tensor, masked, *args, observed=torch.ones_like(tensor, dtype=torch.bool)
    )
    assert e1 == pytest.approx(e2, abs=1e-12)
    for U, V in zip(plain, masked, strict=True):
        torch.testing.assert_close(U, V)


def test_a_slice_without_a_cell_is_zero(rng) -> None:
    X = cp_tensor(planted((6, 7, 8), 2, rng))
    X[3] = np.nan
    model = T.cp(X, 2)
    assert not model.factors[0][3].any()
    assert model.fit > 0.999


def test_degeneracy_is_seen() -> None:
    # The classical border case: a tensor of rank three, limit of rank two.
    rng = np.random.default_rng(0)
    a, b = (np.linalg.qr(rng.standard_normal((5, 2)))[0][:, i] for i in range(2))
    X = sum(
        np.einsum("i,j,k->ijk", *(b if n == m else a for n in range(3)))
        for m in range(3)
    )
    model = T.cp(X, 2, ridge=0.0, n_init=1, max_iter=1500, tol=1e-12)
    assert model.congruence > 0.95 and model.degenerate
    assert T.cp(X, 1).congruence == 0.0


def test_congruence_is_the_product_of_cosines(rng) -> None:
    factors = planted((5, 6, 7), 3, rng)
    product = np.ones((3, 3))
    for U in factors:
        unit = U / np.linalg.norm(U, axis=0)
        product *= unit.T @ unit
    wanted = np.abs(product[np.triu_indices(3, 1)]).max()
    found = congruence([torch.from_numpy(U) for U in factors])
    assert found == pytest.approx(wanted)


def test_the_solver_of_a_singular_system(rng) -> None:
    A = torch.from_numpy(rng.standard_normal((4, 2)))
    V = A.mT @ A
    V = torch.block_diag(V, torch.zeros(1, 1).double())
    M = torch.from_numpy(rng.standard_normal((5, 3)))
    M[:, 2] = 0
    found = solve(V, M, 0.0)
    torch.testing.assert_close(found @ V, M)


def test_the_ridge_is_relative_to_the_normal_matrix(rng) -> None:
    B = torch.from_numpy(rng.standard_normal((9, 3)))
    V, M = B.mT @ B, torch.from_numpy(rng.standard_normal((5, 3)))
    mu = 0.1 * V.diagonal().mean()
    wanted = M @ torch.linalg.inv(V + mu * torch.eye(3).double())
    torch.testing.assert_close(solve(V, M, 0.1), wanted)
    each = solve(V.expand(5, 3, 3), M, 0.1)
    torch.testing.assert_close(each, wanted)
    torch.testing.assert_close(solve(1e-12 * V, 1e-12 * M, 0.1), wanted)


def test_what_cannot_be_done_says_so(rng) -> None:
    X = rng.standard_normal((4, 5, 6))
    with pytest.raises(EEGTensorError, match="whole number"):
        T.cp(X, 2.5)
    with pytest.raises(EEGTensorError, match="n_init=0"):
        T.cp(X, 2, n_init=0)
    with pytest.raises(EEGTensorError, match=r"complex128.*real numbers"):
        T.cp(X * 1j, 2)
    for scale in (1e170, 1e-170):
        with pytest.raises(EEGTensorError, match="in another unit"):
            T.cp(scale * X, 2)
    with pytest.raises(EEGTensorError, match="random_state"):
        T.cp(X, 2, random_state="seed")


def test_nothing_but_zeros() -> None:
    model = T.cp(np.zeros((3, 4, 5)), 2)
    assert not model.reconstruct().any()
