"""Block terms: planted maps, CP as the special case L = 1, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor import block_term, block_term_project
from eegtensor.tensor.cp import cp
from eegtensor.tensor.match import factor_match_score


def planted(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    rank: int,
    L: int,
    snr: float = np.inf,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A tensor with c along the first mode, and its blocks."""
    c, A, B = (
        rng.standard_normal((size, rank, *more))
        for size, more in zip(shape, ((), (L,), (L,)), strict=True)
    )
    maps = np.einsum("irl,jrl->rij", A, B)
    X = np.einsum("kr,rij->kij", c, maps)
    X += 10 ** (-snr / 20) * np.sqrt(np.mean(X**2)) * rng.standard_normal(X.shape)
    return X, (c, maps.reshape(rank, -1).T)


@pytest.mark.parametrize("rank,L", [(1, 3), (3, 2), (5, 2), (8, 2)])
def test_planted_terms_are_found_at_20_db(rank: int, L: int) -> None:
    X, truth = planted(np.random.default_rng(rank), (40, 20, 30), rank, L, snr=20.0)
    model = block_term(X, rank, L)
    assert factor_match_score(model, truth).score > 0.99
    error = np.linalg.norm(X - model.reconstruct()) / np.linalg.norm(X)
    assert model.fit == pytest.approx(1 - error)
    assert not model.degenerate


def test_without_noise_it_is_exact(rng: np.random.Generator) -> None:
    X, truth = planted(rng, (12, 10, 11), 3, 3)
    model = block_term(X, 3, 3, tol=1e-10)
    assert model.fit > 1 - 1e-6
    assert factor_match_score(model, truth).score > 1 - 1e-6


def test_maps_of_rank_one_are_cp(rng: np.random.Generator) -> None:
    X = rng.standard_normal((8, 9, 10))
    terms = block_term(X, 2, 1, tol=1e-10, n_init=8)
    components = cp(X, 2, tol=1e-10, max_iter=1000, n_init=8)
    assert terms.fit == pytest.approx(components.fit, abs=1e-5)
    blocks = terms.c, terms.A[..., 0], terms.B[..., 0]
    assert factor_match_score(blocks, components).score > 0.999


def test_one_term_of_full_rank_is_a_singular_vector(rng: np.random.Generator) -> None:
    # With L = min(I, J), a term is a vector times any matrix.
    X = rng.standard_normal((8, 4, 5))
    s = np.linalg.svd(X.reshape(8, -1), compute_uv=False)
    model = block_term(X, 1, 4, tol=1e-10)
    assert (1 - model.fit) ** 2 == pytest.approx(1 - s[0] ** 2 / np.sum(s**2))


@pytest.mark.parametrize("mode", [0, 1, 2, -1])
def test_any_mode_can_carry_the_vector(rng: np.random.Generator, mode: int) -> None:
    X, _ = planted(rng, (9, 10, 11), 2, 2, snr=30.0)
    model = block_term(X, 2, 2)
    moved = np.moveaxis(X, 0, mode)
    other = block_term(moved, 2, 2, vector_mode=mode)
    assert other.reconstruct().shape == moved.shape
    np.testing.assert_allclose(other.c, model.c, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        np.moveaxis(other.reconstruct(), mode, 0), model.reconstruct(), atol=1e-9
    )


def test_the_form_does_not_depend_on_chance(rng: np.random.Generator) -> None:
    X, _ = planted(rng, (14, 10, 11), 3, 2, snr=20.0)
    model = block_term(X, 3, 2, tol=1e-11)
    eye = np.eye(2)
    for r in range(3):
        np.testing.assert_allclose(model.A[:, r].T @ model.A[:, r], eye, atol=1e-12)
        gram = model.B[:, r].T @ model.B[:, r]
        assert gram[0, 0] > gram[1, 1] and abs(gram[0, 1]) < 1e-12
        assert np.trace(gram) == pytest.approx(1.0)
        assert (model.A[:, r].max(axis=0) > -model.A[:, r].min(axis=0)).all()
        assert model.B[:, r, 0].max() > -model.B[:, r, 0].min()
    np.testing.assert_allclose(np.linalg.norm(model.c, axis=0), 1.0)
    assert (np.diff(model.weights) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(model.maps, axis=(1, 2)), 1.0)
    np.testing.assert_array_equal(model.A, block_term(X, 3, 2, tol=1e-11).A)
    other = block_term(-1e-6 * X, 3, 2, tol=1e-11, random_state=4)
    np.testing.assert_allclose(other.weights * 1e6, model.weights, rtol=1e-5)
    np.testing.assert_allclose(other.c, -model.c, atol=1e-4)
    np.testing.assert_allclose(other.maps, model.maps, atol=1e-4)


def test_arrays_tensors_and_float32(rng: np.random.Generator, device: str) -> None:
    X, _ = planted(rng, (14, 10, 11), 2, 2, snr=20.0)
    model = block_term(X, 2, 2)
    tensor = block_term(torch.tensor(X, device=device), 2, 2)
    assert tensor.A.device.type == device
    np.testing.assert_allclose(tensor.maps.cpu(), model.maps, atol=1e-5)
    single = block_term(X.astype(np.float32), 2, 2)
    assert single.A.dtype == single.weights.dtype == np.float32
    np.testing.assert_allclose(single.maps, model.maps, atol=1e-3)
    zero = block_term(np.zeros((3, 4, 5)), 2, 2)
    assert zero.fit == 1.0 and not zero.reconstruct().any()


def test_missing_cells_are_found(rng: np.random.Generator) -> None:
    clean, truth = planted(rng, (30, 15, 16), 3, 2, snr=25.0)
    mask = rng.random(clean.shape) > 0.3
    model = block_term(np.where(mask, clean, np.nan), 3, 2)
    assert factor_match_score(model, truth).score > 0.99
    same = block_term(np.where(mask, clean, 1e3), 3, 2, mask=mask)
    np.testing.assert_array_equal(same.c, model.c)
    error = np.linalg.norm((model.reconstruct() - clean)[~mask])
    assert error < 0.1 * np.linalg.norm(clean[~mask])
    whole = block_term(clean, 3, 2)
    full = block_term(clean, 3, 2, mask=np.ones_like(mask))
    np.testing.assert_array_equal(full.c, whole.c)


def test_scores_are_least_squares(rng: np.random.Generator) -> None:
    X, _ = planted(rng, (30, 15, 16), 3, 2, snr=20.0)
    model = block_term(X, 3, 2, tol=1e-11)
    scores = block_term_project(model, X)
    scale = model.weights.max()
    np.testing.assert_allclose(scores, model.c * model.weights, atol=1e-5 * scale)
    new = rng.standard_normal((4, 15, 16))
    E = model.maps.reshape(3, -1).T
    expected = np.linalg.lstsq(E, new.reshape(4, -1).T)[0].T
    np.testing.assert_allclose(block_term_project(model, new), expected, rtol=1e-8)
    lost = np.where(rng.random(new.shape) > 0.4, new, np.nan)
    found = block_term_project(model, lost)
    for x, row in zip(lost.reshape(4, -1), found, strict=True):
        seen = np.isfinite(x)
        expected = np.linalg.lstsq(E[seen], x[seen])[0]
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    moved = block_term(np.moveaxis(X, 0, 2), 3, 2, vector_mode=2)
    np.testing.assert_allclose(
        block_term_project(moved, np.moveaxis(X, 0, 2)), scores, atol=1e-3 * scale
    )


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    X = rng.standard_normal((5, 4, 6))
    with pytest.raises(EEGTensorError, match="L=5"):
        block_term(X, 2, 5)
    with pytest.raises(EEGTensorError, match="vector_mode=3"):
        block_term(X, 2, 2, vector_mode=3)
    with pytest.raises(EEGTensorError, match="three axes"):
        block_term(X[..., None], 2, 2)
    with pytest.raises(EEGTensorError, match="shape"):
        block_term_project(block_term(X, 1, 2), X[:, :3])
