"""CMTF: planted models, tensorly's results, limits of the balance, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor.cmtf import cmtf
from eegtensor.tensor.cp import cp
from eegtensor.tensor.match import factor_match_score


def planted(
    seed: int, rank: int, snr: float = 20.0
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """A tensor, a matrix, and the factors A, B, C, V."""
    rng = np.random.default_rng(seed)
    A, B, C, V = (rng.standard_normal((n, rank)) for n in (30, 14, 16, 9))
    X, Y = np.einsum("ir,jr,kr->ijk", A, B, C), A @ V.T
    for Z in (X, Y):
        Z += 10 ** (-snr / 20) * Z.std() * rng.standard_normal(Z.shape)
    return X, Y, [A, B, C, V]


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_planted_components_are_found_at_20_db(rank: int) -> None:
    X, Y, (*factors, V) = planted(rank, rank)
    model = cmtf(X, 1e3 * Y, rank)
    match = factor_match_score(model.factors, factors)
    assert match.score > 0.99
    assert factor_match_score([model.loadings], [V]).score > 0.99
    assert factor_match_score([model.loadings], [V]).partner == match.partner
    tensor, matrix = model.reconstruct()
    error = np.linalg.norm(X - tensor) / np.linalg.norm(X)
    assert model.fit == pytest.approx(1 - error)
    error = np.linalg.norm(1e3 * Y - matrix) / np.linalg.norm(1e3 * Y)
    assert model.fit_matrix == pytest.approx(1 - error)


def test_fit_is_that_of_tensorly() -> None:
    tl = pytest.importorskip("tensorly.decomposition._cmtf_als")
    X, Y, _ = planted(0, 3, snr=5.0)
    X, Y = X / np.linalg.norm(X), Y / np.linalg.norm(Y)
    tensor, matrix, _ = tl.coupled_matrix_tensor_3d_factorization(
        X.copy(), Y.copy(), 3, init="svd", n_iter_max=300
    )
    theirs = np.sum((X - tensor.to_tensor()) ** 2) + np.sum(
        (Y - matrix.to_tensor()) ** 2
    )
    ours = cmtf(X, Y, 3, tol=1e-10)
    assert (1 - ours.fit) ** 2 + (1 - ours.fit_matrix) ** 2 < theirs * (1 + 1e-6)


def test_a_light_matrix_leaves_cp() -> None:
    X, Y, _ = planted(1, 3, snr=3.0)
    Y = np.random.default_rng(0).standard_normal(Y.shape)
    model = cmtf(X, Y, 2, balance=1e-9, tol=1e-11, max_iter=2000)
    peer = cp(X, 2, tol=1e-11, max_iter=2000, n_init=4)
    assert model.fit == pytest.approx(peer.fit, abs=1e-6)
    assert factor_match_score(model.factors, peer).score > 0.999
    # A heavy one gets the best matrix of that rank.
    model = cmtf(X, Y, 2, balance=1e9, tol=1e-13, max_iter=2000)
    s = np.linalg.svd(Y, compute_uv=False)
    best = np.sqrt(np.sum(s[2:] ** 2) / np.sum(s**2))
    assert model.fit_matrix == pytest.approx(1 - best, abs=1e-5)


def test_the_matrix_helps_where_the_tensor_does_not_suffice() -> None:
    X, _, (A, *_) = planted(2, 3, snr=-8.0)
    clean = A @ np.random.default_rng(0).standard_normal((3, 40))
    joint = cmtf(X, clean, 3, n_init=8)
    alone = cp(X, 3, n_init=4)
    assert (
        factor_match_score(joint.factors[:1], [A]).score
        > factor_match_score(alone.factors[:1], [A]).score + 0.01
    )


def test_the_form_does_not_depend_on_chance(device: str) -> None:
    X, Y, _ = planted(3, 3)
    model = cmtf(X, Y, 3, tol=1e-10)
    np.testing.assert_array_equal(cmtf(X, Y, 3, tol=1e-10).loadings, model.loadings)
    for U in model.factors:
        np.testing.assert_allclose(np.linalg.norm(U, axis=0), 1.0)
    assert all((U.max(axis=0) > -U.min(axis=0)).all() for U in model.factors[1:])
    assert (np.diff(model.weights) <= 0).all()
    other = cmtf(-1e-6 * X, 1e3 * Y, 3, tol=1e-10, random_state=2)
    np.testing.assert_allclose(other.weights, 1e-6 * model.weights, rtol=1e-4)
    np.testing.assert_allclose(other.factors[0], -model.factors[0], atol=1e-4)
    np.testing.assert_allclose(
        other.loadings, -1e3 * model.loadings, atol=0.1 * np.abs(model.loadings).max()
    )
    tensors = [torch.tensor(Z, dtype=torch.float32, device=device) for Z in (X, Y)]
    single = cmtf(*tensors, 3)
    assert single.loadings.dtype == torch.float32
    assert single.loadings.device.type == device
    np.testing.assert_allclose(single.factors[1].cpu(), model.factors[1], atol=1e-2)
    zero = cmtf(np.zeros((3, 4, 5)), np.zeros((3, 2)), 2)
    assert zero.fit == zero.fit_matrix == 1.0


def test_missing_cells_are_found() -> None:
    X, Y, (*factors, _) = planted(4, 3, snr=25.0)
    rng = np.random.default_rng(0)
    masks = [rng.random(Z.shape) > 0.2 for Z in (X, Y)]
    lost = [np.where(M, Z, np.nan) for M, Z in zip(masks, (X, Y), strict=True)]
    model = cmtf(*lost, 3)
    assert factor_match_score(model.factors, factors).score > 0.99
    _, matrix = model.reconstruct()
    assert np.linalg.norm((Y - matrix)[~masks[1]]) < 0.2 * np.linalg.norm(Y[~masks[1]])
    poisoned = np.where(masks[0], X, 1e3)
    same = cmtf(poisoned, lost[1], 3, mask=masks[0])
    np.testing.assert_array_equal(same.loadings, model.loadings)


def test_mistakes_are_named() -> None:
    X, Y, _ = planted(0, 2)
    with pytest.raises(EEGTensorError, match="equal first size"):
        cmtf(X, Y[1:], 2)
    with pytest.raises(EEGTensorError, match="X is list"):
        cmtf(X.tolist(), Y, 2)
    mixed = cmtf(X.astype(np.float32), Y, 2, n_init=1)
    assert mixed.loadings.dtype == np.float64
    with pytest.raises(EEGTensorError, match="balance"):
        cmtf(X, Y, 2, balance=0.0)
    with pytest.raises(EEGTensorError, match="n_init"):
        cmtf(X, Y, 2, n_init=0)
