"""Non-negative CP: planted factors, conditions of the optimum, tensorly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _planted import cp_tensor, match, noisy
from scipy.optimize import nnls

import eegtensor.tensor as T
from eegtensor import EEGTensorError
from eegtensor.tensor import nonnegative
from eegtensor.tensor.nonnegative import hals


def planted(shape, rank, rng) -> list[np.ndarray]:
    return [rng.random((size, rank)) ** 3 for size in shape]


def test_planted_factors(rng) -> None:
    factors = planted((12, 13, 14), 4, rng)
    X = np.maximum(noisy(cp_tensor(factors), 20.0, rng), 0.0)
    model = T.nonnegative_cp(X, 4)
    assert match(model.factors, factors) > 0.99
    assert all((U >= 0).all() for U in model.factors)
    assert (model.weights > 0).all()


def test_some_modes_may_be_negative(rng) -> None:
    factors = planted((10, 11, 12), 3, rng)
    factors[0] = rng.standard_normal((10, 3))
    X = cp_tensor(factors)
    model = T.nonnegative_cp(X, 3, modes=(1, -1), n_init=3, max_iter=500)
    assert model.fit > 0.99
    assert all((model.factors[n] >= 0).all() for n in (1, 2))
    assert (model.factors[0] < 0).any()


@pytest.mark.parametrize("modes", [[0], np.array([0]), (0, -1), np.array([2, 0])])
def test_the_sign_stays_out_of_non_negative_modes(modes, rng) -> None:
    factors = planted((10, 11, 12), 3, rng)
    factors[1] = rng.standard_normal((11, 3)) - 0.5
    X = cp_tensor(factors)
    X[1, 2, 3] = np.nan
    model = T.nonnegative_cp(X, 3, modes=modes, n_init=3, max_iter=500)
    assert model.fit > 0.99
    assert all((model.factors[n] >= 0).all() for n in np.asarray(modes) % 3)
    assert (model.factors[1] < 0).any()


def test_hals_reaches_the_non_negative_least_squares(rng) -> None:
    H = rng.random((30, 4))
    y = rng.standard_normal((6, 30))
    exact = np.stack([nnls(H, row)[0] for row in y])
    M, V = torch.from_numpy(y @ H), torch.from_numpy(H.T @ H)
    found = hals(torch.ones(6, 4).double(), M, V, sweeps=500)
    np.testing.assert_allclose(found, exact, atol=1e-8)


def test_the_fit_is_that_of_the_reconstruction_and_never_falls(rng) -> None:
    X = rng.random((7, 8, 9))
    fits = [T.nonnegative_cp(X, 3, max_iter=k, tol=0.0).fit for k in (1, 2, 5, 20, 80)]
    assert (np.diff(fits) >= -1e-12).all()
    model = T.nonnegative_cp(X, 3)
    error = np.linalg.norm(model.reconstruct() - X) / np.linalg.norm(X)
    assert model.fit == pytest.approx(1 - error, abs=1e-9)


def test_a_dead_column_lifts_no_other() -> None:
    M = torch.tensor([[1.0, 1e-9], [2.0, -1e-9]], dtype=torch.float64)
    V = torch.diag(torch.tensor([1.0, 1e-16], dtype=torch.float64))
    found = hals(torch.ones(2, 2).double(), M, V)
    np.testing.assert_allclose(found[:, 0], [1.0, 2.0])
    # Far above zero only by the column's own measure, of ten to the seventh.
    assert 0 < float(found[1, 1]) < 1e-4


def test_more_components_than_there_are_do_no_harm() -> None:
    # Sparse factors: columns in excess die within a few sweeps.
    rng = np.random.default_rng(2)
    sparse = [rng.random((n, 2)) * (rng.random((n, 2)) > 0.6) for n in (10, 11, 12)]
    X = cp_tensor(sparse)
    fits = [T.nonnegative_cp(X, 10, max_iter=k, tol=0.0).fit for k in (1, 3, 10)]
    assert fits[0] > 0 and (np.diff(fits) >= -1e-6).all()


def test_as_good_as_tensorly(rng) -> None:
    pytest.importorskip("tensorly")
    from tensorly.decomposition import non_negative_parafac_hals

    X = np.maximum(noisy(cp_tensor(planted((12, 15, 20), 4, rng)), 5.0, rng), 0)
    theirs = non_negative_parafac_hals(X, 4, n_iter_max=300, tol=1e-10)
    estimate = cp_tensor([theirs[1][0] * theirs[0], *theirs[1][1:]])
    error = np.linalg.norm(estimate - X) / np.linalg.norm(X)
    assert 1 - T.nonnegative_cp(X, 4).fit <= error + 1e-4


def test_missing_cells(rng) -> None:
    X = cp_tensor(planted((9, 10, 11), 2, rng))
    mask = rng.random(X.shape) >= 0.4
    model = T.nonnegative_cp(np.where(mask, X, np.nan), 2, tol=1e-8)
    lost = model.reconstruct()[~mask] - X[~mask]
    assert np.linalg.norm(lost) < 0.01 * np.linalg.norm(X[~mask])


def test_starts_do_not_take_missing_cells_for_zeros(rng, monkeypatch) -> None:
    factors = [U + 0.3 for U in planted((16, 12, 14), 3, rng)]
    X = cp_tensor(factors)
    mask = rng.random(X.shape) >= 0.5
    mask[:8, :, :7] = False
    starts = []

    def kept(*given):
        starts.append(scaled(*given))
        return starts[-1]

    scaled = nonnegative._scaled
    monkeypatch.setattr(nonnegative, "_scaled", kept)
    T.nonnegative_cp(np.where(mask, X, np.nan), 3, max_iter=1)
    for start in starts:
        size = np.linalg.norm(cp_tensor([U.numpy() for U in start]))
        assert 0.9 < size / np.linalg.norm(X) < 1.1


def test_what_cannot_be_done_says_so(rng) -> None:
    with pytest.raises(EEGTensorError, match="use power"):
        T.nonnegative_cp(rng.standard_normal((4, 5, 6)), 2)
    with pytest.raises(EEGTensorError, match=r"modes=\(0, 3\)"):
        T.nonnegative_cp(rng.random((4, 5, 6)), 2, modes=(0, 3))
    # Rounding below zero is none.
    X = rng.random((4, 5, 6))
    X[0, 0, 0] = -1e-12
    assert T.nonnegative_cp(X, 2).fit > 0
