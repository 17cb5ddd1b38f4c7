"""Shared factors: one person is Tucker, many are Tucker of the concatenation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor._people import read_people
from eegtensor.tensor.shared import (
    _estimate,
    _Found,
    _result,
    shared_tucker,
    shared_tucker_project,
)
from eegtensor.tensor.tucker import tucker


def planted(
    rng: np.random.Generator, snr: float = np.inf, n: int = 4
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """People with 5 to 12 trials in a common subspace, in units that differ."""
    U, V = (np.linalg.qr(rng.standard_normal((s, r)))[0] for s, r in ((10, 3), (12, 2)))
    tensors = []
    for s in range(n):
        core = rng.standard_normal((rng.integers(5, 12), 3, 2))
        X = np.einsum("tab,ia,jb->tij", core, U, V)
        X += 10 ** (-snr / 20) * X.std() * rng.standard_normal(X.shape)
        tensors.append(X * 10.0**s)
    return tensors, [U, V]


def test_planted_subspaces_are_found(rng: np.random.Generator) -> None:
    tensors, truth = planted(rng)
    model = shared_tucker(tensors, (3, 2))
    assert model.fit > 1 - 1e-6 and min(model.fits) > 1 - 1e-6
    for U, found in zip(truth, model.factors, strict=True):
        np.testing.assert_allclose(found @ found.T, U @ U.T, atol=1e-10)
    for X, Y in zip(tensors, model.reconstruct(), strict=True):
        np.testing.assert_allclose(Y, X, atol=1e-9 * np.abs(X).max())
    new = np.einsum("tab,ia,jb->tij", rng.standard_normal((3, 3, 2)), *truth)
    core = shared_tucker_project(model, new)
    np.testing.assert_allclose(np.sum(core**2), np.sum(new**2))
    known = shared_tucker_project(model, tensors[1])
    np.testing.assert_allclose(known, model.cores[1], atol=1e-9 * np.abs(known).max())


def test_one_person_is_tucker(rng: np.random.Generator) -> None:
    X = rng.standard_normal((8, 9, 10))
    model = shared_tucker([X], (3, 4, 5), shared=(0, 1, 2), max_iter=300, tol=1e-12)
    peer = tucker(X, (3, 4, 5), max_iter=300, tol=1e-12)
    assert model.fit == pytest.approx(peer.fit, abs=1e-7)
    for U, V in zip(model.factors, peer.factors, strict=True):
        np.testing.assert_allclose(U @ U.T, V @ V.T, atol=1e-4)


def test_many_are_tucker_of_the_scaled_trials(rng: np.random.Generator) -> None:
    tensors, _ = planted(rng, snr=5.0)
    model = shared_tucker(tensors, (3, 2), max_iter=300, tol=1e-12)
    joint = np.concatenate([X / np.linalg.norm(X) for X in tensors])
    peer = tucker(joint, (None, 3, 2), max_iter=300, tol=1e-12)
    assert model.fit == pytest.approx(peer.fit, abs=1e-8)
    weighted = shared_tucker(
        tensors, (3, 2), weights=(1.0, 4.0, 1.0, 1.0), max_iter=300, tol=1e-12
    )
    counts = (1.0, 2.0, 1.0, 1.0)
    joint = np.concatenate(
        [a * X / np.linalg.norm(X) for a, X in zip(counts, tensors, strict=True)]
    )
    peer = tucker(joint, (None, 3, 2), max_iter=300, tol=1e-12)
    assert weighted.fit == pytest.approx(peer.fit, abs=1e-8)
    assert weighted.fits[1] > model.fits[1]


def test_fits_and_form(rng: np.random.Generator, device: str) -> None:
    tensors, _ = planted(rng, snr=5.0)
    model = shared_tucker(tensors, 2)
    for X, Y, fit in zip(tensors, model.reconstruct(), model.fits, strict=True):
        error = np.linalg.norm(X - Y) / np.linalg.norm(X)
        assert fit == pytest.approx(1 - error)
    rms = np.sqrt(np.mean([(1 - fit) ** 2 for fit in model.fits]))
    assert model.fit == pytest.approx(1 - rms)
    for U in model.factors:
        np.testing.assert_allclose(U.T @ U, np.eye(2), atol=1e-12)
        assert (U.max(axis=0) > -U.min(axis=0)).all()
    start = shared_tucker(tensors, 2, max_iter=0)
    assert start.n_iter == 0 and start.fit <= model.fit
    singles = [torch.tensor(X, dtype=torch.float32, device=device) for X in tensors]
    other = shared_tucker(singles, 2)
    assert other.cores[0].dtype == torch.float32
    assert other.factors[0].device.type == device
    np.testing.assert_allclose(other.factors[0].cpu(), model.factors[0], atol=1e-3)
    zero = shared_tucker([np.zeros((2, 3, 4)), np.zeros((1, 3, 4))], 2)
    assert zero.fit == 1.0


def test_missing_cells_are_found(rng: np.random.Generator) -> None:
    tensors, _ = planted(rng, n=6)
    masks = [rng.random(X.shape) > 0.2 for X in tensors]
    lost = [np.where(M, X, np.nan) for M, X in zip(masks, tensors, strict=True)]
    model = shared_tucker(lost, (3, 2), tol=1e-9)
    assert model.fit > 0.999
    for X, Y, M in zip(tensors, model.reconstruct(), masks, strict=True):
        assert np.linalg.norm((X - Y)[~M]) < 0.02 * np.linalg.norm(X[~M])
    poisoned = [np.where(M, X, 1.0) for M, X in zip(masks, tensors, strict=True)]
    same = shared_tucker(poisoned, (3, 2), mask=masks, tol=1e-9)
    np.testing.assert_array_equal(same.factors[0], model.factors[0])


def test_there_are_no_more_columns_than_cells(rng: np.random.Generator) -> None:
    # One trial of 9 channels and 2 times: two directions of channels.
    model = shared_tucker([rng.standard_normal((1, 9, 2))], 5)
    assert [U.shape for U in model.factors] == [(9, 2), (2, 2)]
    assert model.fit == pytest.approx(1.0)


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    X = rng.standard_normal((4, 5, 6))
    with pytest.raises(EEGTensorError, match="Mode 2 is shared"):
        shared_tucker([X, X[..., :3]], 2)
    with pytest.raises(EEGTensorError, match="ranks=1, 2, 3"):
        shared_tucker([X, X], (1, 2, 3))
    with pytest.raises(EEGTensorError, match="weights"):
        shared_tucker([X, X], 2, weights=(1.0, -1.0))
    with pytest.raises(EEGTensorError, match="axes"):
        shared_tucker([X, X[0]], 2)
    with pytest.raises(EEGTensorError, match="tensors is list of nothing"):
        shared_tucker([], 2)
    assert shared_tucker([X, X.astype(np.float32)], 2).cores[1].dtype == np.float64
    with pytest.raises(EEGTensorError, match="empty"):
        shared_tucker([X, X], 2, shared=())
    with pytest.raises(EEGTensorError, match="Tensor 1"):
        shared_tucker([X, np.where(X > 1, np.inf, X)], 2)
    model = shared_tucker([X, X], 2)
    with pytest.raises(EEGTensorError, match="along mode 1"):
        shared_tucker_project(model, X[:, :3])
    with pytest.raises(EEGTensorError, match="missing"):
        shared_tucker_project(model, np.where(X > 1, np.nan, X))


def test_columns_are_put_in_order_with_their_cores(rng: np.random.Generator) -> None:
    X = torch.from_numpy(rng.standard_normal((4, 5, 6)))
    model = shared_tucker([X], (3, 2))
    people = read_people([X], 1, None)
    core = model.cores[0] * people.scale[0]
    turned = [U.flip(1) * -1.0 for U in model.factors]
    found = _result(people, _Found(turned, [core.flip(1, 2)], 0.0, 1), (1, 2))
    for U, V in zip(found.factors, model.factors, strict=True):
        torch.testing.assert_close(U, V)
    torch.testing.assert_close(found.cores[0], model.cores[0])
    assert found.fit == pytest.approx(model.fit)


@pytest.mark.parametrize("shared", [(0, 1), (1, 2)])
def test_a_part_of_the_estimate_is_that_part(shared, rng: np.random.Generator) -> None:
    X = torch.from_numpy(rng.standard_normal((4, 5, 6)))
    model = shared_tucker([X], 2, shared=shared)
    whole = model.reconstruct()[0]
    part_of = _estimate(model.cores, model.factors, shared)
    torch.testing.assert_close(part_of(0, slice(1, 3)), whole[1:3])
