"""Tucker: against SVDs of the unfoldings, planted models and tensorly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _planted import noisy

import eegtensor.tensor as T
from eegtensor import EEGTensorError
from eegtensor.tensor.tucker import cheapest_order


def planted(
    shape: tuple[int, ...], ranks: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    X = rng.standard_normal(ranks)
    for n, (size, rank) in enumerate(zip(shape, ranks, strict=True)):
        U = rng.standard_normal((size, rank))
        X = np.moveaxis(np.tensordot(U, X, axes=(1, n)), 0, n)
    return X


def relative(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.linalg.norm(A - B) / np.linalg.norm(B))


@pytest.mark.parametrize("shape", [(8, 9), (5, 6, 7), (4, 5, 3, 6)])
def test_planted_ranks_are_found_exactly(shape, rng) -> None:
    ranks = (2, 3, 2, 3)[: len(shape)]
    ranks = (2, 2) if len(shape) == 2 else ranks
    X = planted(shape, ranks, rng)
    model = T.tucker(X, ranks)
    assert model.fit > 1 - 1e-7
    assert relative(model.reconstruct(), X) < 1e-12
    for U in model.factors:
        np.testing.assert_allclose(U.T @ U, np.eye(U.shape[1]), atol=1e-12)


def test_the_fit_is_that_of_the_reconstruction(rng) -> None:
    X = rng.standard_normal((7, 8, 9))
    model = T.tucker(X, (2, 4, 3))
    assert model.fit == pytest.approx(1 - relative(model.reconstruct(), X), abs=1e-10)


def test_a_matrix_gets_its_truncated_svd(rng) -> None:
    X = rng.standard_normal((8, 12))
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    best = (U[:, :3] * s[:3]) @ Vt[:3]
    np.testing.assert_allclose(T.tucker(X, 3).reconstruct(), best, atol=1e-10)


def test_the_start_is_within_its_bound_and_iteration_improves_it(rng) -> None:
    X = noisy(planted((9, 10, 11), (3, 3, 3), rng), 0.0, rng)
    start = T.tucker(X, 2, max_iter=0)
    best = T.tucker(X, 2, tol=1e-12)
    assert start.n_iter == 0
    assert best.fit > start.fit
    assert 1 - start.fit <= np.sqrt(3) * (1 - best.fit) + 1e-12


def test_the_optimum_is_stationary(rng) -> None:
    # Each factor spans the leading directions of the tensor seen by the others.
    X = noisy(planted((9, 10, 11), (2, 2, 2), rng), 3.0, rng)
    model = T.tucker(X, 2, tol=1e-14, max_iter=500)
    for n in range(3):
        Y = X
        for m in range(3):
            if m != n:
                Y = np.moveaxis(np.tensordot(model.factors[m].T, Y, axes=(1, m)), 0, m)
        M = np.moveaxis(Y, n, 0).reshape(X.shape[n], -1)
        U = np.linalg.svd(M)[0][:, :2]
        cosines = np.linalg.svd(U.T @ model.factors[n])[1]
        np.testing.assert_allclose(cosines, 1.0, atol=1e-6)


def test_as_good_as_tensorly(rng) -> None:
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import tucker

    X = noisy(planted((12, 15, 20), (4, 4, 4), rng), 0.0, rng)
    core, factors = tucker(X, (4, 4, 4), tol=1e-10, n_iter_max=500)
    theirs = relative(tensorly.tucker_to_tensor((core, factors)), X)
    assert 1 - T.tucker(X, 4, tol=1e-10).fit <= theirs + 1e-6


def test_hosvd_is_each_modes_own(rng) -> None:
    X = rng.standard_normal((5, 6, 7))
    model = T.tucker(X, (2, 3, 4), init="hosvd", max_iter=0)
    for n, U in enumerate(model.factors):
        M = np.moveaxis(X, n, 0).reshape(X.shape[n], -1)
        V = np.linalg.svd(M)[0][:, : U.shape[1]]
        np.testing.assert_allclose(np.linalg.svd(U.T @ V)[1], 1.0, atol=1e-10)


def test_columns_are_in_order_of_the_cores_energy() -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((7, 8, 9))
    for init, max_iter in (("hosvd", 0), ("st-hosvd", 0), ("st-hosvd", 50)):
        model = T.tucker(X, (4, 5, 6), init=init, max_iter=max_iter)
        core = np.einsum("abc,ax,by,cz->xyz", X, *model.factors)
        np.testing.assert_allclose(model.core, core, atol=1e-12)
        for n, U in enumerate(model.factors):
            energy = (np.moveaxis(core, n, 0).reshape(U.shape[1], -1) ** 2).sum(axis=1)
            assert (np.diff(energy) <= 1e-12).all()
            assert (U[np.abs(U).argmax(axis=0), np.arange(U.shape[1])] > 0).all()


def test_ranks_by_energy(rng) -> None:
    X = planted((8, 9, 10), (2, 3, 4), rng)
    assert T.tucker(X, energy=1 - 1e-12).core.shape == (2, 3, 4)
    X = noisy(X, 10.0, rng)
    model = T.tucker(X, energy=0.8)
    for n, U in enumerate(model.factors):
        s = np.linalg.svd(np.moveaxis(X, n, 0).reshape(X.shape[n], -1))[1] ** 2
        share = np.cumsum(s) / s.sum()
        r = U.shape[1]
        assert share[r - 1] >= 0.8 and (r == 1 or share[r - 2] < 0.8)


@pytest.mark.parametrize("snr", [60.0, 20.0])
def test_ranks_by_energy_with_cells_missing(snr, rng) -> None:
    X = noisy(planted((20, 30, 25), (3, 4, 2), rng), snr, rng)
    mask = rng.random(X.shape) >= 0.6
    for energy in (0.9, 0.99):
        whole = T.tucker(X, energy=energy).core.shape
        found = T.tucker(np.where(mask, X, 1e9), energy=energy, mask=mask)
        assert found.core.shape == whole
        one = T.tucker(np.where(mask, X, np.nan), (None, 4, 2), energy=energy)
        assert one.core.shape == (20, *whole[1:]) and one.factors[0] is None
    # The same as if the ranks had been given.
    again = T.tucker(X, found.core.shape, mask=mask)
    np.testing.assert_array_equal(again.core, found.core)


def test_ranks_by_energy_of_a_few_cells(rng) -> None:
    X = np.full((4, 5, 3), np.nan)
    X[1, 2, 1] = 3.0
    assert T.tucker(X, energy=0.9).core.shape == (1, 1, 1)
    X[0, 0] = rng.standard_normal(3)
    assert np.isfinite(T.tucker(X, energy=0.9).reconstruct()).all()


def test_a_mode_left_as_it_is(rng) -> None:
    X = noisy(planted((6, 7, 8), (6, 3, 2), rng), 10.0, rng)
    model = T.tucker(X, (None, 3, 2), tol=1e-12)
    assert model.factors[0] is None and model.core.shape == (6, 3, 2)
    # The same as a mode whose factor may have any number of columns.
    whole = T.tucker(X, (6, 3, 2), tol=1e-12)
    assert model.fit == pytest.approx(whole.fit, abs=1e-8)
    np.testing.assert_allclose(model.reconstruct(), whole.reconstruct(), atol=1e-6)
    scores = np.einsum("abc,bx,cy->axy", X, model.factors[1], model.factors[2])
    np.testing.assert_allclose(model.core, scores, atol=1e-10)
    by_energy = T.tucker(X, (None, 1, 1), energy=0.9)
    assert by_energy.factors[0] is None and by_energy.core.shape[1] > 1


def test_units_order_of_axes_and_dtype(rng) -> None:
    X = noisy(planted((6, 7, 8), (2, 3, 2), rng), 5.0, rng)
    model = T.tucker(X, (2, 3, 2))
    small = T.tucker(1e-6 * X, (2, 3, 2))
    np.testing.assert_allclose(small.core, 1e-6 * model.core, rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(small.factors[1], model.factors[1], atol=1e-8)
    turned = T.tucker(X.transpose(2, 0, 1), (2, 2, 3), tol=1e-12)
    assert turned.fit == pytest.approx(T.tucker(X, (2, 3, 2), tol=1e-12).fit, abs=1e-8)
    single = T.tucker(X.astype(np.float32), (2, 3, 2))
    assert single.core.dtype == np.float32
    assert single.fit == pytest.approx(model.fit, abs=1e-5)
    tensor = T.tucker(torch.from_numpy(X), (2, 3, 2))
    assert isinstance(tensor.core, torch.Tensor)
    assert isinstance(tensor.reconstruct(), torch.Tensor)


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_missing_cells(share: float, rng) -> None:
    X = planted((12, 13, 14), (2, 2, 2), rng)
    mask = rng.random(X.shape) >= share
    hidden = np.where(mask, X, np.nan)
    model = T.tucker(hidden, 2, tol=1e-9)
    assert relative(model.reconstruct()[~mask], X[~mask]) < 1e-4
    # What stands in a hidden cell means nothing.
    other = T.tucker(np.where(mask, X, 1e9), 2, mask=mask, tol=1e-9)
    np.testing.assert_array_equal(other.core, model.core)
    error = relative(model.reconstruct()[mask], X[mask])
    assert model.fit == pytest.approx(1 - error, abs=1e-9)


def test_the_cheapest_order() -> None:
    # A short mode that shrinks much goes first, a long one late.
    assert cheapest_order((64, 512, 200), (8, 8, 8), range(3)) == (0, 2, 1)
    # One that does not shrink goes last.
    assert cheapest_order((20, 30, 40), (20, 2, 2), range(3))[-1] == 0


def test_what_cannot_be_done_says_so(rng) -> None:
    X = rng.standard_normal((4, 5, 6))
    with pytest.raises(EEGTensorError, match="one rank, or one for each mode"):
        T.tucker(X, (2, 2))
    with pytest.raises(EEGTensorError, match="Neither ranks nor energy"):
        T.tucker(X)
    with pytest.raises(EEGTensorError, match="share above 0"):
        T.tucker(X, energy=1.5)
    with pytest.raises(EEGTensorError, match="whole number"):
        T.tucker(X, 0)
    X[1, 2, 3] = np.inf
    with pytest.raises(EEGTensorError, match=r"infinity, the first at \(1, 2, 3\)"):
        T.tucker(X, 2)
    with pytest.raises(EEGTensorError, match="No cell"):
        T.tucker(np.full((3, 3), np.nan), 2)
    with pytest.raises(EEGTensorError, match="mask has shape"):
        T.tucker(np.ones((3, 3)), 2, mask=np.ones((3, 2), bool))
    with pytest.raises(EEGTensorError, match="axes"):
        T.tucker(np.ones(3), 2)


def test_nothing_but_zeros() -> None:
    model = T.tucker(np.zeros((3, 4, 5)), 2)
    assert model.fit == 1.0 and not model.reconstruct().any()
