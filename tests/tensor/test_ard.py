"""Bayesian CP: planted ranks, the equations row by row, and the evidence's law."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor._relevance import State, update
from eegtensor.tensor.ard import ard_cp
from eegtensor.tensor.match import factor_match_score


def planted(
    seed: int, shape: tuple[int, ...], rank: int, snr: float = 20.0, missing: float = 0
) -> tuple[np.ndarray, list[np.ndarray], float]:
    """A tensor, its factors, and the noise's standard deviation."""
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((size, rank)) for size in shape]
    letters = "ijkl"[: len(shape)]
    X = np.einsum(",".join(f"{c}r" for c in letters) + "->" + letters, *factors)
    sigma = 10 ** (-snr / 20) * float(np.sqrt(np.mean(X**2)))
    X = X + sigma * rng.standard_normal(X.shape)
    if missing:
        X[rng.random(X.shape) < missing] = np.nan
    return X, factors, sigma


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_the_planted_rank_is_found_in_nine_of_ten(missing: float) -> None:
    found = [
        ard_cp(planted(s, (50,) * 3, 5, missing=missing)[0], 10) for s in range(10)
    ]
    assert sum(model.rank == 5 for model in found) >= 9


def test_factors_and_noise_are_found() -> None:
    X, factors, sigma = planted(0, (30, 25, 20), 4)
    model = ard_cp(X)
    assert model.rank == 4 == len(model.weights)
    assert factor_match_score(model, factors).score > 0.99
    assert model.noise == pytest.approx(sigma, rel=0.02)
    error = np.linalg.norm(X - model.reconstruct()) / np.linalg.norm(X)
    assert model.fit == pytest.approx(1 - error)


def test_four_axes_weak_signals_and_more_components_than_rows() -> None:
    assert ard_cp(planted(1, (12, 10, 11, 9), 3, snr=5.0)[0]).rank == 3
    assert ard_cp(planted(1, (40, 40, 40), 3, snr=-5.0)[0]).rank == 3
    assert ard_cp(planted(1, (30, 4, 5), 6)[0]).rank == 6


def test_noise_has_no_components() -> None:
    assert ard_cp(np.random.default_rng(0).standard_normal((30, 30, 30))).rank == 0
    X = np.random.default_rng(0).standard_normal((20, 20, 20))
    model = ard_cp(X)
    assert model.rank == 0 and model.fit == pytest.approx(0.0, abs=1e-6)
    assert model.noise == pytest.approx(np.sqrt(np.mean(X**2)))
    assert model.reconstruct().shape == X.shape and not model.reconstruct().any()
    zero = ard_cp(np.zeros((3, 4, 5)))
    assert zero.rank == 0 and zero.noise == 0.0


def test_units_seed_and_dtype_do_not_matter(device: str) -> None:
    X, _, _ = planted(2, (20, 15, 18), 3, missing=0.2)
    model = ard_cp(X)
    scaled = ard_cp(1e-6 * X)
    assert scaled.rank == model.rank == 3
    np.testing.assert_allclose(scaled.weights, 1e-6 * model.weights, rtol=1e-6)
    assert scaled.noise == pytest.approx(1e-6 * model.noise)
    np.testing.assert_array_equal(ard_cp(X).factors[0], model.factors[0])
    single = ard_cp(torch.tensor(X, dtype=torch.float32, device=device))
    assert single.weights.dtype == torch.float32 and single.rank == 3
    assert single.weights.device.type == device
    np.testing.assert_allclose(single.weights.cpu(), model.weights, rtol=1e-3)
    mask = np.isfinite(X)
    same = ard_cp(np.where(mask, X, 1e3), mask=mask)
    np.testing.assert_array_equal(same.weights, model.weights)


def start(X: np.ndarray, R: int, missing: bool) -> tuple[torch.Tensor, ...]:
    Y = torch.tensor(X)
    observed = ~Y.isnan()
    Y = torch.where(observed, Y, 0.0)
    count = int(observed.sum())
    Y = Y / (Y.square().sum() / count).sqrt()
    seen = observed if missing else None
    return Y, seen, State.begin(Y, seen, R, np.random.default_rng(0)), count


def test_updates_are_the_equations_row_by_row() -> None:
    X = planted(3, (5, 6, 4), 2, missing=0.3)[0]
    Y, observed, state, count = start(X, 3, missing=True)
    means = [U.numpy().copy() for U in state.means]
    spreads = [V.numpy().copy() for V in state.spreads]
    tau, prior = state.precision, np.diag(state.relevance.numpy())
    update(Y, observed, state, count)

    def second(n: int, i: int) -> np.ndarray:
        return np.outer(means[n][i], means[n][i]) + spreads[n][i]

    seen = np.argwhere(observed.numpy())
    for n in range(3):
        a, b = (m for m in range(3) if m != n)
        for row in range(Y.shape[n]):
            cells = seen[seen[:, n] == row]
            S = sum(second(a, c[a]) * second(b, c[b]) for c in cells)
            x = sum(Y[tuple(c)].item() * means[a][c[a]] * means[b][c[b]] for c in cells)
            spreads[n][row] = np.linalg.inv(tau * S + prior)
            means[n][row] = tau * spreads[n][row] @ x
        np.testing.assert_allclose(state.means[n].numpy(), means[n], rtol=1e-8)
        np.testing.assert_allclose(state.spreads[n].numpy(), spreads[n], rtol=1e-8)
    expected = 0.0
    for i, j, k in seen:
        y = Y[i, j, k].item()
        value = np.sum(means[0][i] * means[1][j] * means[2][k])
        square = np.sum(second(0, i) * second(1, j) * second(2, k))
        expected += y**2 - 2 * y * value + square
    assert state.noise == pytest.approx(expected / count)
    assert state.precision == pytest.approx(count / expected, rel=1e-5)
    energy = sum(
        (U**2).sum(axis=0) + np.einsum("irr->r", V)
        for U, V in zip(means, spreads, strict=True)
    )
    np.testing.assert_allclose(state.relevance, 15 / energy, rtol=1e-5)


@pytest.mark.parametrize("missing", [False, True])
def test_the_evidence_never_falls(missing: bool) -> None:
    X = planted(4, (8, 9, 7), 2, snr=5.0, missing=0.3 if missing else 0.0)[0]
    Y, observed, state, count = start(X, 5, missing)
    bounds = []
    for _ in range(60):
        update(Y, observed, state, count)
        bounds.append(state.bound(count))
    assert np.diff(bounds).min() > -1e-8 * abs(bounds[-1])
    assert bounds[-1] > bounds[0] + 10


def test_a_full_mask_is_no_mask() -> None:
    X = planted(5, (6, 7, 8), 2)[0]
    Y, _, whole, count = start(X, 4, missing=False)
    _, observed, rows, _ = start(X, 4, missing=True)
    for _ in range(5):
        update(Y, None, whole, count)
        update(Y, observed, rows, count)
    for U, V in zip(whole.means, rows.means, strict=True):
        np.testing.assert_allclose(U, V, rtol=1e-8)
    assert whole.bound(count) == pytest.approx(rows.bound(count), rel=1e-10)


def test_mistakes_are_named() -> None:
    with pytest.raises(EEGTensorError, match="max_rank"):
        ard_cp(np.ones((3, 3, 3)), 0)
    with pytest.raises(EEGTensorError, match="max_iter"):
        ard_cp(np.ones((3, 3, 3)), max_iter=0)
