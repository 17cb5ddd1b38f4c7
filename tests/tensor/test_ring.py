"""Tensor rings: planted cores, least squares written out, cyclic shifts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _planted import noisy

import eegtensor.tensor as T
from eegtensor import EEGTensorError
from eegtensor.tensor import ring


def planted_cores(rng) -> list[np.ndarray]:
    shapes = [(2, 6, 3), (3, 7, 2), (2, 8, 3), (3, 5, 2)]
    return [rng.standard_normal(s) for s in shapes]


def ring_tensor(cores: list[np.ndarray]) -> np.ndarray:
    return np.einsum("aib,bjc,ckd,dla->ijkl", *cores)


def relative(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.linalg.norm(A - B) / np.linalg.norm(B))


def test_the_reconstruction_is_the_trace(rng) -> None:
    cores = planted_cores(rng)
    model = T.TensorRing(tuple(cores), 1.0, 0)
    np.testing.assert_allclose(model.reconstruct(), ring_tensor(cores))
    assert model.ranks == (2, 3, 2, 3)


def test_planted_ranks(rng) -> None:
    X = ring_tensor(planted_cores(rng))
    model = T.tensor_ring(X, (2, 3, 2, 3), max_iter=500, tol=1e-10)
    assert relative(model.reconstruct(), X) < 1e-3
    error = relative(model.reconstruct(), X)
    assert model.fit == pytest.approx(1 - error, abs=1e-9)


def test_each_update_is_the_least_squares_solution(rng) -> None:
    # Against a design matrix written out, cell by cell of the other modes.
    cores = planted_cores(rng)
    X = noisy(ring_tensor(cores), 0.0, rng)
    for n in range(4):
        mine = [torch.from_numpy(G.copy()) for G in planted_cores(rng)]
        others = [G.numpy() for G in mine]
        eye = np.eye(others[n].shape[0] * others[n].shape[2])
        design = []
        for unit in eye:
            one = unit.reshape(others[n].shape[0], 1, others[n].shape[2])
            parts = [one if m == n else others[m] for m in range(4)]
            design.append(ring_tensor(parts).reshape(-1))
        target = np.moveaxis(X, n, 0).reshape(X.shape[n], -1)
        wanted = np.linalg.lstsq(np.stack(design, 1), target.T, rcond=None)[0].T
        k = 2
        half = range(k) if n < k else range(k, 4)
        rest = [m for m in range(4) if m not in half]
        chain = ring.chain([mine[m] for m in rest])
        flat = torch.from_numpy(X).reshape(42, 40)
        flat = flat if n < k else flat.mT
        # b opens the chain of the rest, a closes it.
        part = torch.einsum("xt,btc->bcx", flat, chain)
        fixed = [G.clone() for G in mine]
        before = fixed[half.start : n]
        assert len(before) == n - half.start
        modes = range(n, n + 1)
        A = ring._chain_or_eye(fixed, range(half.start, n), fixed[n].shape[0], part)
        B = ring._chain_or_eye(fixed, range(n + 1, half.stop), fixed[n].shape[2], part)
        Z = part.reshape(*part.shape[:2], A.shape[1], X.shape[n], -1)
        M = torch.einsum("espiq,spa,bqe->iab", Z, A, B).reshape(X.shape[n], -1)
        V = ring._subchain_gram(fixed, n)
        design_gram = np.stack(design, 1).T @ np.stack(design, 1)
        np.testing.assert_allclose(V, design_gram, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(
            M, target @ np.stack(design, 1), rtol=1e-8, atol=1e-8
        )
        assert modes.start == n
        np.testing.assert_allclose(
            np.linalg.solve(V.numpy(), M.numpy().T).T, wanted, rtol=1e-6, atol=1e-8
        )


def test_sweeps_lower_the_error_of_the_start(rng) -> None:
    X = noisy(ring_tensor(planted_cores(rng)), 0.0, rng)
    fits = [T.tensor_ring(X, 2, max_iter=k, tol=0.0).fit for k in (0, 1, 3, 10)]
    assert (np.diff(fits) >= -1e-10).all() and fits[-1] > fits[0] + 0.01


def test_a_rank_of_one_that_closes_it_is_a_train(rng) -> None:
    X = rng.standard_normal((6, 7, 8))
    found = T.tensor_ring(X, (1, 3, 4), max_iter=0)
    np.testing.assert_allclose(
        found.reconstruct(), T.tensor_train(X, (3, 4)).reconstruct(), atol=1e-10
    )


def test_singular_vectors_of_enough_ranks_are_exact(rng) -> None:
    X = rng.standard_normal((6, 7, 8, 5))
    cores = T.tensor_ring(X, (2, 3, 21, 10), max_iter=0).cores
    np.testing.assert_allclose(ring_tensor(list(cores)), X, atol=1e-10)


def test_turned_cores_are_the_turned_tensor(rng) -> None:
    cores = planted_cores(rng)
    X = ring_tensor(cores)
    turned = T.TensorRing((*cores[1:], cores[0]), 1.0, 0).reconstruct()
    np.testing.assert_allclose(turned, np.moveaxis(X, 0, -1))


def test_start_missing_units_kind(rng) -> None:
    cores = planted_cores(rng)
    X = ring_tensor(cores)
    given = T.tensor_ring(X, (2, 3, 2, 3), start=cores, max_iter=3)
    assert given.fit > 1 - 1e-6
    mask = rng.random(X.shape) >= 0.2
    hidden = np.where(mask, X, np.nan)
    model = T.tensor_ring(hidden, (2, 3, 2, 3), start=cores, tol=1e-8)
    assert relative(model.reconstruct()[~mask], X[~mask]) < 1e-3
    small = T.tensor_ring(1e-6 * X, 2).reconstruct()
    np.testing.assert_allclose(
        1e6 * small, T.tensor_ring(X, 2).reconstruct(), rtol=1e-6, atol=1e-6
    )
    assert isinstance(T.tensor_ring(torch.from_numpy(X), 2).cores[0], torch.Tensor)


def test_what_cannot_be_done_says_so(rng) -> None:
    X = rng.standard_normal((4, 5, 6))
    with pytest.raises(EEGTensorError, match="3 links"):
        T.tensor_ring(X, (2, 2))
    with pytest.raises(EEGTensorError, match="give cores of shapes"):
        T.tensor_ring(X, 2, start=[np.ones((2, 4, 2))])


def test_nothing_but_zeros() -> None:
    assert not T.tensor_ring(np.zeros((3, 4, 5)), 2).reconstruct().any()
