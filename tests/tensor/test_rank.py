"""Rank choice: planted ranks by every criterion, cores by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor.consistency import (
    core_consistency,
    crossed_consistency,
    first_factor,
)
from eegtensor.tensor.cp import cp
from eegtensor.tensor.rank import METHODS, _choices, choose_rank, mdl_ranks


def planted(
    seed: int, shape: tuple[int, int, int], rank: int, snr: float = 20.0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((size, rank)) for size in shape]
    X = np.einsum("ir,jr,kr->ijk", *factors)
    sigma = 10 ** (-snr / 20) * np.sqrt(np.mean(X**2))
    return X + sigma * rng.standard_normal(shape)


def by_brute_force(X: np.ndarray, model: object) -> float:
    """Core consistency with the Kronecker product, on the cells that are finite."""
    A, B, C = model.factors  # type: ignore[attr-defined]
    A = A * model.weights  # type: ignore[attr-defined]
    R = A.shape[1]
    design = np.kron(np.kron(A, B), C)
    seen = np.isfinite(X).ravel()
    G = np.linalg.lstsq(design[seen], X.ravel()[seen], rcond=None)[0].reshape(R, R, R)
    ideal = np.zeros((R, R, R))
    ideal[(np.arange(R),) * 3] = 1.0
    return float(100 * (1 - np.sum((G - ideal) ** 2) / R))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_core_consistency_is_that_of_the_whole_design(missing: float) -> None:
    X = planted(0, (7, 6, 8), 2, snr=5.0)
    X[np.random.default_rng(1).random(X.shape) < missing] = np.nan
    for rank in (2, 3):
        model = cp(X, rank)
        expected = by_brute_force(X, model)
        assert core_consistency(X, model) == pytest.approx(expected, rel=1e-6)
        scaled = model._replace(weights=model.weights * 1e-6)
        assert core_consistency(X * 1e-6, scaled) == pytest.approx(expected, rel=1e-6)


def test_large_cores_are_filled_by_the_model() -> None:
    X = planted(0, (20, 21, 22), 2)
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    model = cp(X, 15)
    assert np.isfinite(core_consistency(X, model))
    good = cp(X, 2)
    tensor = torch.tensor(X)
    assert core_consistency(tensor, good) == pytest.approx(core_consistency(X, good))
    assert core_consistency(X, good) > 99


def test_a_tucker_core_is_not_consistent() -> None:
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((s, 3)) for s in (10, 11, 12)]
    core = rng.standard_normal((3, 3, 3))
    X = np.einsum("abc,ia,jb,kc->ijk", core, *factors)
    assert core_consistency(X, cp(X, 3)) < 50


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_first_factor_is_least_squares(missing: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5, 6, 7))
    seen = rng.random(X.shape) >= missing
    B, C = rng.standard_normal((6, 3)), rng.standard_normal((7, 3))
    design = np.einsum("jr,kr->jkr", B, C).reshape(42, 3)
    found = first_factor(
        torch.tensor(np.where(seen, X, 0.0)),
        torch.tensor(seen) if missing else None,
        [torch.zeros(5, 3), torch.tensor(B), torch.tensor(C)],
    )
    for x, ok, row in zip(X.reshape(5, 42), seen.reshape(5, 42), found, strict=True):
        expected = np.linalg.lstsq(design[ok], x[ok], rcond=None)[0]
        np.testing.assert_allclose(row, expected, rtol=1e-8)


def test_crossed_consistency_is_that_of_the_other_half() -> None:
    X = np.concatenate([planted(seed, (6, 7, 8), 2, np.inf) for seed in (0, 1)])
    halves = [torch.arange(6), torch.arange(6, 12)]
    models = [cp(X[half.numpy()], 2) for half in halves]
    assert min(model.fit for model in models) > 0.99
    assert crossed_consistency(torch.tensor(X), None, models, halves) < 50
    same = np.concatenate([X[:6], X[:6]])
    twice = [models[0], models[0]]
    assert crossed_consistency(torch.tensor(same), None, twice, halves) > 99


def test_one_standard_error_of_the_least_is_enough() -> None:
    columns = {
        "held_out": [0.50, 0.31, 0.30, 0.33],
        "held_out_error": [0.05, 0.001, 0.02, 0.001],
        "split_half": [np.nan] * 4,
    }
    assert _choices((1, 2, 3, 4), columns) == {"cross-validation": 2}
    columns["held_out_error"][2] = 0.001
    assert _choices((1, 2, 3, 4), columns) == {"cross-validation": 3}


def test_core_consistency_finds_the_planted_rank() -> None:
    chosen = [
        choose_rank(
            planted(seed, (50, 50, 50), 5),
            range(4, 8),
            method="core-consistency",
            n_folds=0,
            n_splits=1,
            ard=False,
        ).choice
        for seed in range(10)
    ]
    assert chosen.count(5) >= 8


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_method_finds_the_planted_rank(missing: float) -> None:
    X = planted(3, (24, 20, 22), 3)
    X[np.random.default_rng(1).random(X.shape) < missing] = np.nan
    table = choose_rank(X, range(1, 6), n_splits=2, n_folds=3)
    assert table.choices == dict.fromkeys(METHODS, 3)
    assert table.choice == 3 and table.ranks == (1, 2, 3, 4, 5)
    assert table.crossed_consistency[2] > 99 and table.crossed_consistency[3] < 80
    assert table.held_out[2] == pytest.approx(0.1, abs=0.01)
    assert table.fit[2] == pytest.approx(0.9, abs=0.01)
    rows = table.rows()
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[2]["fit"] == table.fit[2] and len(rows[0]) == 8


def test_tables_repeat_and_columns_can_be_left_out() -> None:
    X = planted(3, (12, 10, 11), 2)
    options = {"n_splits": 1, "n_folds": 2, "max_iter": 20}
    first = choose_rank(X, (1, 2, 3), **options)  # type: ignore[arg-type]
    assert first == choose_rank(X, (3, 2, 2, 1), **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    tensor = torch.tensor(X)
    assert choose_rank(tensor, (1, 2, 3), random_state=generator).choice == 2
    short = choose_rank(X, 2, n_splits=0, n_folds=1, ard=False)
    assert short.choices == {"cross-validation": 2}
    assert np.isnan(short.split_half).all() and np.isnan(short.held_out_error).all()


def test_mistakes_are_named() -> None:
    X = planted(3, (12, 10, 11), 2)
    with pytest.raises(EEGTensorError, match="split-half"):
        choose_rank(X, (1, 2), method="split-half", n_splits=0)
    with pytest.raises(EEGTensorError, match="n_folds=0"):
        choose_rank(X, (1, 2), n_folds=0)
    with pytest.raises(EEGTensorError, match="empty"):
        choose_rank(X, ())
    with pytest.raises(EEGTensorError, match="held_out"):
        choose_rank(X, (1, 2), held_out=1.5)
    with pytest.raises(EEGTensorError, match="none on one side"):
        choose_rank(X[:4, :1, :1], (1,), held_out=1e-9)
    with pytest.raises(EEGTensorError, match="shape"):
        core_consistency(X[1:], cp(X, 1))


def test_mdl_finds_the_ranks_of_a_tucker_tensor(rng: np.random.Generator) -> None:
    factors = [rng.standard_normal((s, r)) for s, r in ((20, 2), (25, 3), (30, 4))]
    X = np.einsum("abc,ia,jb,kc->ijk", rng.standard_normal((2, 3, 4)), *factors)
    X += 0.1 * np.sqrt(np.mean(X**2)) * rng.standard_normal(X.shape)
    assert mdl_ranks(X) == (2, 3, 4)
    assert mdl_ranks(1e-6 * X) == mdl_ranks(torch.tensor(X)) == (2, 3, 4)
    assert mdl_ranks(rng.standard_normal((20, 25, 30))) == (0, 0, 0)
    assert mdl_ranks(np.zeros((3, 4, 5))) == (0, 0, 0)


def test_mdl_is_the_formula(rng: np.random.Generator) -> None:
    X = rng.standard_normal((6, 40)) * np.array([5, 3, 1, 1, 1, 1])[:, None] ** 0.2
    values = np.linalg.eigvalsh(X @ X.T)[::-1]
    costs = []
    for k in range(6):
        rest = values[k:]
        ratio = np.exp(np.mean(np.log(rest))) / np.mean(rest)
        price = 0.5 * k * (12 - k) * np.log(40)
        costs.append(-40 * (6 - k) * np.log(ratio) + price)
    assert mdl_ranks(X, effective=False)[0] == int(np.argmin(costs))


def test_alike_neighbours_are_fewer_samples(rng: np.random.Generator) -> None:
    # Smooth noise alone: its eigenvalues look like directions if samples count fully.
    noise = rng.standard_normal((8, 4000))
    smooth = np.apply_along_axis(np.convolve, 1, noise, np.ones(60), "valid")
    assert mdl_ranks(smooth, effective=False)[0] > mdl_ranks(smooth)[0]
    # Rows that are alike are variables here, and no reason to count fewer samples.
    wave = np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    rows = np.eye(8) + 30 / 8 + np.outer(wave, wave) / 2
    alike = np.linalg.cholesky(rows) @ np.random.default_rng(0).standard_normal((8, 60))
    assert mdl_ranks(alike)[0] == mdl_ranks(alike, effective=False)[0] == 2
    with pytest.raises(EEGTensorError, match="missing"):
        mdl_ranks(np.where(smooth > 0, smooth, np.nan))


def test_the_error_bar_is_of_the_folds(rng: np.random.Generator) -> None:
    X = rng.standard_normal((6, 7, 8))
    lost = []

    def fit(Z, rank, *, mask, random_state):
        model = cp(Z, rank, mask=mask, random_state=random_state, max_iter=5)
        if mask is not None:
            held = ~mask.numpy()
            rest = (X - model.reconstruct().numpy())[held]
            lost.append(np.linalg.norm(rest) / np.linalg.norm(X[held]))
        return model

    table = choose_rank(X, [2], fit=fit, n_folds=4, n_splits=0, ard=False)
    assert len(lost) == 4
    assert table.held_out[0] == pytest.approx(np.mean(lost))
    assert table.held_out_error[0] == pytest.approx(np.std(lost, ddof=1) / 2.0)


def test_one_strange_split_does_not_decide(rng, monkeypatch) -> None:
    found = iter([-500.0, 90.0, 95.0])
    monkeypatch.setattr(
        "eegtensor.tensor.rank.crossed_consistency", lambda *_: next(found)
    )
    table = choose_rank(
        rng.standard_normal((8, 5, 4)),
        [1],
        n_folds=0,
        ard=False,
        max_iter=3,
        method="core-consistency",
    )
    assert table.crossed_consistency == (90.0,)
