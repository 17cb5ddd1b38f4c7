"""PARAFAC2: planted models, tensorly's results, closed forms and laws."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from _peak import Peak

from eegtensor._check import EEGTensorError
from eegtensor.tensor import _slices
from eegtensor.tensor._slices import Group, errors, project
from eegtensor.tensor.match import factor_match_score
from eegtensor.tensor.parafac2 import PARAFAC2, parafac2, parafac2_project


def planted(
    rng: np.random.Generator,
    rank: int,
    n: int = 12,
    channels: int = 14,
    snr: float = np.inf,
) -> tuple[list[np.ndarray], tuple[np.ndarray, ...]]:
    """Slices of 20 to 40 rows, and the factors A, stacked P_k B, and C."""
    A = rng.uniform(0.3, 2.0, (n, rank))
    B = np.linalg.cholesky(0.7 * np.eye(rank) + 0.3).T
    C = rng.standard_normal((channels, rank))
    slices, courses = [], []
    for a in A:
        P = np.linalg.qr(rng.standard_normal((rng.integers(20, 40), rank)))[0]
        courses.append(P @ B)
        slices.append((P @ B * a) @ C.T)
    power = np.mean(np.concatenate(slices) ** 2)
    sigma = np.sqrt(power) * 10 ** (-snr / 20)
    noisy = [X + sigma * rng.standard_normal(X.shape) for X in slices]
    return noisy, (A, np.concatenate(courses), C)


def relative(X: list, Y: list) -> float:
    left, right = np.concatenate(list(X)), np.concatenate(list(Y))
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))


@pytest.mark.parametrize("rank", [1, 3, 5, 8])
def test_planted_components_are_found_at_20_db(rank: int) -> None:
    rng = np.random.default_rng(rank)
    slices, truth = planted(rng, rank, n=20, channels=20, snr=20.0)
    model = parafac2(slices, rank)
    assert factor_match_score(model, truth).score > 0.99
    assert relative(model.reconstruct(), slices) == pytest.approx(1 - model.fit)


def test_without_noise_it_is_exact(rng: np.random.Generator) -> None:
    slices, truth = planted(rng, 3)
    model = parafac2(slices, 3, tol=1e-9)
    assert model.fit > 1 - 1e-6
    assert factor_match_score(model, truth).score > 1 - 1e-6
    assert not model.degenerate
    assert len(parafac2(slices, 3, n_init=5).start_fits) == 5


def test_the_form_does_not_depend_on_chance(rng: np.random.Generator) -> None:
    slices, _ = planted(rng, 3, snr=20.0)
    model = parafac2(slices, 3, n_init=2)
    eye = np.eye(3)
    for P, F in zip(model.projections, model.courses, strict=True):
        np.testing.assert_allclose(P.T @ P, eye, atol=1e-12)
        np.testing.assert_allclose(F.T @ F, model.B.T @ model.B, atol=1e-12)
    np.testing.assert_allclose(model.B, model.B.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(model.B.T @ model.B), 1.0)
    np.testing.assert_allclose(np.linalg.norm(model.C, axis=0), 1.0)
    assert (model.C.max(axis=0) > -model.C.min(axis=0)).all()
    assert (model.A.sum(axis=0) >= 0).all() and (model.A.sum(axis=1) >= 0).all()
    assert (np.diff(np.linalg.norm(model.A, axis=0)) <= 0).all()
    again = parafac2(slices, 3, n_init=2)
    np.testing.assert_array_equal(model.A, again.A)
    other = parafac2(
        [-1e-6 * X for X in slices[::-1]], 3, random_state=5, tol=1e-10, n_init=2
    )
    model = parafac2(slices, 3, tol=1e-10, n_init=2)
    np.testing.assert_allclose(other.A[::-1] * 1e6, model.A, rtol=1e-3)
    np.testing.assert_allclose(np.abs(other.C), np.abs(model.C), atol=1e-3)


def test_fit_is_that_of_tensorly(rng: np.random.Generator) -> None:
    tl = pytest.importorskip("tensorly.decomposition")
    from tensorly.parafac2_tensor import parafac2_to_slices

    slices, _ = planted(rng, 3, snr=10.0)
    peer = tl.parafac2(slices, 3, init="svd", tol=1e-9, random_state=0)
    theirs = 1 - relative(parafac2_to_slices(peer), slices)
    assert parafac2(slices, 3, tol=1e-9).fit > theirs - 1e-6


def test_rank_one_is_a_singular_vector_problem(rng: np.random.Generator) -> None:
    # With R = 1, the best C is the first eigenvector of the sum of X' X.
    slices = [rng.standard_normal((n, 5)) for n in (9, 7, 12)]
    values = np.linalg.eigvalsh(sum(X.T @ X for X in slices))
    model = parafac2(slices, 1, tol=1e-10)
    assert (1 - model.fit) ** 2 == pytest.approx(1 - values[-1] / values.sum())


def test_an_array_is_a_list_of_slices(rng: np.random.Generator, device: str) -> None:
    X = rng.standard_normal((6, 9, 5))
    model = parafac2(X, 2, n_init=1)
    assert isinstance(model.A, np.ndarray) and isinstance(model, PARAFAC2)
    listed = parafac2(list(X), 2, n_init=1)
    np.testing.assert_array_equal(model.C, listed.C)
    tensors = parafac2(torch.tensor(X, device=device), 2, n_init=1)
    assert tensors.A.device.type == device
    np.testing.assert_allclose(tensors.A.cpu(), model.A, rtol=1e-4)
    single = parafac2(X.astype(np.float32), 2, n_init=1)
    assert single.A.dtype == single.projections[0].dtype == np.float32
    assert single.fit == pytest.approx(model.fit, abs=1e-5)


def test_short_and_zero_slices(rng: np.random.Generator) -> None:
    # Fewer rows than channels, more components than channels, nothing at all.
    slices, _ = planted(rng, 3)
    slices = [X[:, :2] for X in slices] + [np.zeros((4, 2))]
    model = parafac2(slices, 3)
    assert model.fit > 0.99
    for P in model.projections:
        np.testing.assert_allclose(P.T @ P, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(model.A[-1], 0.0, atol=1e-9)
    short = [rng.standard_normal((2, 8)) for _ in range(5)]
    model = parafac2(short, 2)
    assert relative(model.reconstruct(), short) == pytest.approx(1 - model.fit)
    assert parafac2([np.zeros((4, 3))] * 2, 2).fit == 1.0


def test_a_mask_without_gaps_changes_little(rng: np.random.Generator) -> None:
    slices, _ = planted(rng, 2, snr=20.0)
    whole = parafac2(slices, 2)
    masks = [np.ones(X.shape, bool) for X in slices]
    np.testing.assert_array_equal(parafac2(slices, 2, mask=masks).A, whole.A)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_missing_cells_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean, truth = planted(rng, 2, snr=30.0)
    masks = [rng.random(X.shape) > 0.3 for X in clean]
    lost = [np.where(M, X, np.nan) for X, M in zip(clean, masks, strict=True)]
    model = parafac2(lost, 2, n_init=4)
    assert factor_match_score(model, truth).score > 0.99
    assert model.fit > 0.96
    poisoned = [np.where(M, X, 1e3) for X, M in zip(clean, masks, strict=True)]
    same = parafac2(poisoned, 2, mask=masks, n_init=4)
    np.testing.assert_array_equal(same.A, model.A)
    gone = np.concatenate([~M for M in masks])
    truth_, found = np.concatenate(clean), np.concatenate(model.reconstruct())
    error = np.linalg.norm((found - truth_)[gone]) / np.linalg.norm(truth_[gone])
    assert error < 0.1
    scores = parafac2_project(model, lost)
    np.testing.assert_allclose(scores.A, model.A, rtol=1e-2)


def test_known_slices_keep_their_scores(rng: np.random.Generator) -> None:
    slices, _ = planted(rng, 3, snr=20.0)
    model = parafac2(slices, 3)
    scores = parafac2_project(model, slices)
    scale = np.abs(model.A).max()
    np.testing.assert_allclose(scores.A, model.A, atol=1e-5 * scale)
    for P, Q in zip(scores.projections, model.projections, strict=True):
        np.testing.assert_allclose(P, Q, atol=1e-4)
    lone = parafac2_project(model, slices[4:5])
    np.testing.assert_allclose(lone.A[0], scores.A[4], rtol=1e-6)
    np.testing.assert_allclose(lone.fits[0], scores.fits[4], rtol=1e-8)
    # A slice that settles first does not go on with the others.
    coarse = parafac2_project(model, slices, tol=1e-3)
    for k in range(len(slices)):
        lone = parafac2_project(model, slices[k : k + 1], tol=1e-3)
        np.testing.assert_allclose(lone.A[0], coarse.A[k], rtol=1e-9)
    total = sum(np.sum(X**2) for X in slices)
    lost = sum(
        np.sum(X**2) * (1 - f) ** 2 for X, f in zip(slices, scores.fits, strict=True)
    )
    assert 1 - np.sqrt(lost / total) == pytest.approx(model.fit, abs=1e-7)


def test_new_slices_are_scored_exactly(rng: np.random.Generator) -> None:
    slices, (A, _, _) = planted(rng, 3, n=20)
    model = parafac2(slices[:15], 3, tol=1e-10)
    scores = parafac2_project(model, slices[15:])
    assert scores.fits.min() > 1 - 1e-4
    stacked = np.vstack([model.A, scores.A])
    match = factor_match_score([stacked], [A])
    assert match.score > 1 - 1e-5


def test_returned_projections_are_those_of_the_fit(rng: np.random.Generator) -> None:
    slices, _ = planted(rng, 3)
    model = parafac2(slices, 3, tol=1e-9)
    error = relative(model.reconstruct(), slices)
    assert error < 1e-6 and error == pytest.approx(1 - model.fit, abs=1e-9)


def test_some_slices_miss_cells(rng: np.random.Generator) -> None:
    # Whole slices and the others are handled apart, and come back in their order.
    slices, truth = planted(rng, 3, snr=30.0)
    lost = [X.copy() for X in slices]
    for k in (1, 2, 7):
        lost[k][rng.random(lost[k].shape) < 0.2] = np.nan
    model = parafac2(lost, 3)
    assert factor_match_score(model, truth).score > 0.99
    assert [len(P) for P in model.projections] == [len(X) for X in slices]
    for X, Y in zip(slices, model.reconstruct(), strict=True):
        assert np.linalg.norm(X - Y) < 0.15 * np.linalg.norm(X)
    whole, found = parafac2_project(model, slices), parafac2_project(model, lost)
    clean = [k for k in range(len(slices)) if k not in (1, 2, 7)]
    np.testing.assert_allclose(found.A[clean], whole.A[clean], rtol=1e-6)
    np.testing.assert_allclose(found.fits[clean], whole.fits[clean], rtol=1e-8)


def test_projection_without_the_slices_is_the_polar_one(
    rng: np.random.Generator,
) -> None:
    X = torch.tensor(rng.standard_normal((4, 9, 5)))
    N = torch.tensor(rng.standard_normal((2, 4, 3, 5)))
    # One model has fewer directions than components: the third has no data.
    N[1, :, 2] = N[1, :, 0] - N[1, :, 1]
    group = Group(X.mT @ X, X.square().sum(dim=(1, 2)))
    Y, _ = project(group, N, N.new_empty(2, 0))
    for s, rank in enumerate((3, 2)):
        for k in range(4):
            U, _, Vh = torch.linalg.svd(X[k] @ N[s, k].mT, full_matrices=False)
            expected = (U[:, :rank] @ Vh[:rank]).mT @ X[k]
            torch.testing.assert_close(Y[s, k], expected, rtol=1e-6, atol=1e-6)
    lost = errors(group, Y, N, Y)[0]
    U, _, Vh = torch.linalg.svd(X @ N[0].mT, full_matrices=False)
    expected = (X - U @ Vh @ N[0]).square().sum(dim=(1, 2))
    torch.testing.assert_close(lost, expected)


def test_starts_that_do_not_fit_into_memory_take_turns(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices, truth = planted(rng, 2, snr=30.0)
    lost = [np.where(rng.random(X.shape) > 0.2, X, np.nan) for X in slices]
    module = importlib.import_module("eegtensor.tensor._slice_fit")
    monkeypatch.setattr(module, "_FEW_CELLS", 0)
    monkeypatch.setattr(
        importlib.import_module("eegtensor.tensor._slices"), "_CELLS", 9
    )
    model = parafac2(lost, 2, n_init=5)
    assert factor_match_score(model, truth).score > 0.99
    assert len(model.start_fits) == 5


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    good = rng.standard_normal((8, 4))
    with pytest.raises(EEGTensorError, match="Slice 1 has shape"):
        parafac2([good, rng.standard_normal((8, 5))], 2)
    with pytest.raises(EEGTensorError, match="Slice 1 has 2 rows"):
        parafac2([good, good[:2]], 3)
    with pytest.raises(EEGTensorError, match="Slice 0: X holds infinity"):
        parafac2([np.where(good > 1, np.inf, good), good], 2)
    with pytest.raises(EEGTensorError, match="2 slices and 1 masks"):
        parafac2([good, good], 2, mask=[good > 0])
    for nothing in ([], None, 3, good.tolist()):
        with pytest.raises(EEGTensorError, match="slices is"):
            parafac2(nothing, 2)
    with pytest.raises(EEGTensorError, match="columns"):
        parafac2_project(parafac2([good, good + 1], 2), [good[:, :3]])


def test_long_slices_with_missing_cells_take_little_memory(rng, monkeypatch) -> None:
    X = torch.from_numpy(rng.random((4, 3000, 24)).astype(np.float32))
    X[torch.from_numpy(rng.random(X.shape) < 0.2)] = torch.nan
    options = {"n_init": 1, "max_iter": 5}
    whole = parafac2(list(X), 2, **options)
    monkeypatch.setattr(_slices, "_CELLS", 5_000)
    with Peak(X) as peak:
        parts = parafac2(list(X), 2, **options)
    assert peak.bytes < 3 * X.nbytes
    assert parts.fit == pytest.approx(whole.fit, abs=1e-9)
    torch.testing.assert_close(parts.A, whole.A, rtol=1e-4, atol=1e-5)
    for P, Q in zip(parts.projections, whole.projections, strict=True):
        torch.testing.assert_close(P, Q, rtol=1e-4, atol=1e-5)
