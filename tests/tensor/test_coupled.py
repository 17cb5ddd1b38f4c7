"""Group and linked CP: planted people, CP of the concatenation, exact updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor import coupled_cp, coupled_project
from eegtensor.tensor._linked import _joint
from eegtensor.tensor.cp import cp
from eegtensor.tensor.match import factor_match_score


def planted(
    seed: int, people: int, rank: int, common: int, snr: float = 20.0
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """People with 8 to 24 trials, in units that differ, and their factors."""
    rng = np.random.default_rng(seed)
    shared = [rng.standard_normal((size, common)) for size in (15, 12)]
    tensors, truth = [], []
    for s in range(people):
        A = rng.standard_normal((rng.integers(8, 24), rank))
        own = [rng.standard_normal((len(U), rank - common)) for U in shared]
        factors = [A, *(np.hstack(pair) for pair in zip(shared, own, strict=True))]
        X = np.einsum("ir,jr,kr->ijk", *factors)
        X += 10 ** (-snr / 20) * X.std() * rng.standard_normal(X.shape)
        tensors.append(X * 10.0**-s)
        truth.append(factors)
    return tensors, truth


@pytest.mark.parametrize("rank,common", [(1, 1), (4, 4), (8, 8), (4, 2), (5, 1)])
def test_planted_components_are_found_at_20_db(rank: int, common: int) -> None:
    tensors, truth = planted(rank, 4, rank, common)
    model = coupled_cp(tensors, rank, common=common)
    for person, factors in zip(model.people, truth, strict=True):
        assert factor_match_score(person, factors).score > 0.99
    ours = [U[:, :common] for U in truth[0][1:]]
    assert factor_match_score(model.factors, ours).score > 0.99
    for X, Y, person in zip(tensors, model.reconstruct(), model.people, strict=True):
        error = np.linalg.norm(X - Y) / np.linalg.norm(X)
        assert person.fit == pytest.approx(1 - error)
        for U, V in zip(person.factors[1:], model.factors, strict=True):
            np.testing.assert_allclose(U[:, :common], V, atol=1e-12)


def test_all_in_common_is_cp_of_the_scaled_trials() -> None:
    tensors, _ = planted(0, 3, 3, 3, snr=0.0)
    joint = np.concatenate([X / np.linalg.norm(X) for X in tensors])
    model = coupled_cp(tensors, 2, tol=1e-11, max_iter=2000)
    peer = cp(joint, 2, tol=1e-11, max_iter=2000, n_init=4)
    assert model.fit == pytest.approx(peer.fit, abs=1e-6)
    assert factor_match_score(model.factors, peer.factors[1:]).score > 0.999


def test_none_in_common_would_be_cp_of_each() -> None:
    # One component in common, in data of two people that share none: linked CP
    # can be no better than separate models, nor worse than with all in common.
    tensors, _ = planted(1, 2, 3, 1, snr=0.0)
    together = coupled_cp(tensors, 2, common=2)
    linked = coupled_cp(tensors, 2, common=1)
    alone = [cp(X, 2, n_init=4, max_iter=500).fit for X in tensors]
    rms = np.sqrt(np.mean([(1 - fit) ** 2 for fit in alone]))
    assert together.fit - 1e-6 <= linked.fit <= 1 - rms + 1e-5


def test_the_joint_update_is_least_squares(rng: np.random.Generator) -> None:
    people, R, L, size = 3, 4, 2, 6
    designs = [rng.standard_normal((20, R)) for _ in range(people)]
    data = [rng.standard_normal((size, 20)) for _ in range(people)]
    V = [torch.tensor(D.T @ D) for D in designs]
    M = [torch.tensor(Y @ D) for D, Y in zip(designs, data, strict=True)]
    found = _joint(V, M, L, 0.0)
    big = np.zeros((people * 20, L + people * (R - L)))
    for s, D in enumerate(designs):
        rows = slice(20 * s, 20 * s + 20)
        big[rows, :L] = D[:, :L]
        at = L + s * (R - L)
        big[rows, at : at + R - L] = D[:, L:]
    expected = np.linalg.lstsq(big, np.hstack(data).T)[0].T
    for s, U in enumerate(found):
        np.testing.assert_allclose(U[:, :L], expected[:, :L], rtol=1e-8)
        at = L + s * (R - L)
        np.testing.assert_allclose(U[:, L:], expected[:, at : at + R - L], rtol=1e-8)


def test_one_shared_mode_of_three() -> None:
    rng = np.random.default_rng(0)
    C = rng.standard_normal((14, 3))
    tensors = [
        np.einsum(
            "ir,jr,kr->ijk",
            rng.standard_normal((rng.integers(6, 12), 3)),
            rng.standard_normal((rng.integers(6, 12), 3)),
            C,
        )
        for _ in range(3)
    ]
    model = coupled_cp(tensors, 3, shared=(2,), tol=1e-10)
    assert model.fit > 1 - 1e-5 and model.shared == (2,)
    assert factor_match_score(model.factors, [C]).score > 1 - 1e-5
    assert coupled_cp(tensors, 3, shared=(-1,), tol=1e-10).shared == (2,)
    new = np.einsum(
        "ir,jr,kr->ijk", rng.standard_normal((5, 3)), rng.standard_normal((9, 3)), C
    )
    assert coupled_project(model, new).fit > 1 - 1e-3


def test_the_form_does_not_depend_on_chance(device: str) -> None:
    tensors, _ = planted(3, 3, 4, 2)
    options = {"common": 2, "tol": 1e-9, "n_init": 3}
    model = coupled_cp(tensors, 4, **options)  # type: ignore[arg-type]
    again = coupled_cp(tensors, 4, **options)  # type: ignore[arg-type]
    for a, b in zip(model.people, again.people, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)
    other = coupled_cp([-1e3 * X for X in tensors], 4, random_state=3, **options)  # type: ignore[arg-type]
    for a, b in zip(model.people, other.people, strict=True):
        np.testing.assert_allclose(b.weights, 1e3 * a.weights, rtol=1e-4)
        np.testing.assert_allclose(b.factors[0], -a.factors[0], atol=1e-3)
        np.testing.assert_allclose(b.factors[1], a.factors[1], atol=1e-3)
        for U in a.factors:
            np.testing.assert_allclose(np.linalg.norm(U, axis=0), 1.0)
        assert all((U.max(axis=0) > -U.min(axis=0)).all() for U in a.factors[1:])
        assert a.weights[2] >= a.weights[3]
    singles = [torch.tensor(X, dtype=torch.float32, device=device) for X in tensors]
    single = coupled_cp(singles, 4, **options).people[0]  # type: ignore[arg-type]
    assert single.factors[1].dtype == torch.float32
    assert single.factors[1].device.type == device
    np.testing.assert_allclose(
        single.factors[1].cpu(), model.people[0].factors[1], atol=1e-2
    )
    assert coupled_cp([np.zeros((2, 3, 4))] * 2, 2).fit == 1.0


def test_missing_cells_are_found() -> None:
    tensors, truth = planted(4, 3, 3, 2, snr=25.0)
    rng = np.random.default_rng(0)
    masks = [rng.random(X.shape) > 0.2 for X in tensors]
    lost = [np.where(M, X, np.nan) for M, X in zip(masks, tensors, strict=True)]
    model = coupled_cp(lost, 3, common=2)
    for person, factors in zip(model.people, truth, strict=True):
        assert factor_match_score(person, factors).score > 0.99
    for X, Y, M, person in zip(
        tensors, model.reconstruct(), masks, model.people, strict=True
    ):
        error = np.linalg.norm((X - Y)[M]) / np.linalg.norm(X[M])
        assert person.fit == pytest.approx(1 - error)
    poisoned = [np.where(M, X, 1e3) for M, X in zip(masks, tensors, strict=True)]
    same = coupled_cp(poisoned, 3, common=2, mask=masks)
    np.testing.assert_array_equal(same.people[0].weights, model.people[0].weights)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_new_person_is_solved_at_once(missing: float) -> None:
    tensors, _ = planted(5, 4, 3, 3)
    model = coupled_cp(tensors[:3], 3)
    X = tensors[3].copy()
    X[np.random.default_rng(0).random(X.shape) < missing] = np.nan
    person = coupled_project(model, X)
    design = np.einsum("jr,kr->jkr", *model.factors).reshape(-1, 3)
    for x, found in zip(
        X.reshape(len(X), -1), person.factors[0] * person.weights, strict=True
    ):
        seen = np.isfinite(x)
        expected = np.linalg.lstsq(design[seen], x[seen])[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    for U, V in zip(person.factors[1:], model.factors, strict=True):
        np.testing.assert_allclose(U, V, atol=1e-12)
    assert person.fit > 0.85
    known = coupled_project(model, tensors[1])
    np.testing.assert_allclose(known.weights, model.people[1].weights, rtol=1e-3)


def test_mistakes_are_named() -> None:
    X = np.random.default_rng(0).standard_normal((4, 5, 6))
    with pytest.raises(EEGTensorError, match="common=3"):
        coupled_cp([X, X], 2, common=3)
    with pytest.raises(EEGTensorError, match="All modes are shared"):
        coupled_cp([X, X], 2, shared=(0, 1, 2))
    with pytest.raises(EEGTensorError, match="Mode 1 is shared"):
        coupled_cp([X, X[:, :3]], 2)
    with pytest.raises(EEGTensorError, match="2 tensors and 1 masks"):
        coupled_cp([X, X], 2, mask=[X > 0])
    with pytest.raises(EEGTensorError, match="X has shape"):
        coupled_project(coupled_cp([X, X], 1), X[:, :3])
