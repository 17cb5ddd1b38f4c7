"""Tensor trains against chains of SVDs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _planted import noisy

import eegtensor.tensor as T
from eegtensor import EEGTensorError


def planted(rng) -> np.ndarray:
    shapes = [(1, 6, 3), (3, 7, 4), (4, 8, 2), (2, 5, 1)]
    cores = [rng.standard_normal(s) for s in shapes]
    return np.einsum("aib,bjc,ckd,dle->ijkl", *cores)


def relative(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.linalg.norm(A - B) / np.linalg.norm(B))


def svd_train(X: np.ndarray, ranks: list[int]) -> np.ndarray:
    """Return the reconstruction of a train cut by full SVDs."""
    cores, left, rest = [], 1, X
    for size, rank in zip(X.shape[:-1], ranks, strict=True):
        U, s, Vt = np.linalg.svd(rest.reshape(left * size, -1), full_matrices=False)
        cores.append(U[:, :rank].reshape(left, size, rank))
        rest, left = s[:rank, None] * Vt[:rank], rank
    cores.append(rest.reshape(left, X.shape[-1], 1))
    return np.einsum("aib,bjc,ckd,dle->ijkl", *cores)


def test_planted_ranks(rng) -> None:
    X = planted(rng)
    model = T.tensor_train(X, error=1e-6)
    assert model.ranks == (3, 4, 2)
    assert relative(model.reconstruct(), X) < 1e-12


def test_equals_a_chain_of_svds(rng) -> None:
    X = noisy(planted(rng), 5.0, rng)
    model = T.tensor_train(X, (2, 3, 2))
    np.testing.assert_allclose(
        model.reconstruct(), svd_train(X, [2, 3, 2]), atol=1e-9 * np.abs(X).max()
    )
    error = relative(model.reconstruct(), X)
    assert model.fit == pytest.approx(1 - error, abs=1e-10)


def test_the_error_asked_for_is_kept(rng) -> None:
    X = rng.standard_normal((6, 7, 8, 5))
    sizes = []
    for error in (0.5, 0.2, 0.05, 0.0):
        model = T.tensor_train(X, error=error)
        assert relative(model.reconstruct(), X) <= error + 1e-7
        sizes.append(sum(core.size for core in model.cores))
    assert sizes == sorted(sizes)


def test_cores_are_left_orthogonal(rng) -> None:
    model = T.tensor_train(rng.standard_normal((6, 7, 8)), 4)
    for core in model.cores[:-1]:
        M = core.reshape(-1, core.shape[-1])
        np.testing.assert_allclose(M.T @ M, np.eye(M.shape[1]), atol=1e-12)
        assert (M[np.abs(M).argmax(axis=0), np.arange(M.shape[1])] > 0).all()


def test_missing_units_dtype_kind(rng) -> None:
    X = planted(rng)
    mask = rng.random(X.shape) >= 0.3
    model = T.tensor_train(np.where(mask, X, np.nan), (3, 4, 2), tol=1e-8)
    assert relative(model.reconstruct()[~mask], X[~mask]) < 1e-3
    plain, small = T.tensor_train(X, 2), T.tensor_train(1e-6 * X, 2)
    np.testing.assert_allclose(small.cores[0], plain.cores[0], atol=1e-7)
    np.testing.assert_allclose(small.cores[-1], 1e-6 * plain.cores[-1], atol=1e-13)
    assert T.tensor_train(X.astype(np.float32), 2).cores[0].dtype == np.float32
    assert isinstance(T.tensor_train(torch.from_numpy(X), 2).cores[0], torch.Tensor)


def test_what_cannot_be_done_says_so(rng) -> None:
    X = rng.standard_normal((4, 5, 6))
    with pytest.raises(EEGTensorError, match="give one of them"):
        T.tensor_train(X)
    with pytest.raises(EEGTensorError, match="2 links"):
        T.tensor_train(X, (2, 2, 2))
    with pytest.raises(EEGTensorError, match="relative error"):
        T.tensor_train(X, error=1.0)


def test_nothing_but_zeros() -> None:
    assert not T.tensor_train(np.zeros((3, 4, 5)), error=0.1).reconstruct().any()
