"""Lag covariances, spectra and the conditional mean of a stationary process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _peak import Peak

from eegtensor import EEGTensorError
from eegtensor.tensor.completion import lag_covariances
from eegtensor.tensor.completion._conditional import Conditioner, Stretch, process
from eegtensor.tensor.completion.delay import Conditional, gaps
from eegtensor.tensor.completion.spectrum import (
    average,
    convolve,
    from_lags,
    impulse_response,
    smooth_coherence,
    welch,
)


def test_lag_covariances_are_the_sums_over_pairs(rng: np.random.Generator) -> None:
    X = rng.standard_normal((2, 3, 30))
    seen = rng.random(X.shape) > 0.4
    found = lag_covariances(X, seen, 4)
    for lag in range(4):
        for i in range(3):
            for j in range(3):
                both = seen[:, i, lag:] & seen[:, j, : 30 - lag]
                products = X[:, i, lag:] * X[:, j, : 30 - lag]
                expected = products[both].sum() / max(both.sum(), 1)
                np.testing.assert_allclose(found[lag, i, j], expected, atol=1e-12)
    with pytest.raises(EEGTensorError, match="n_lags=31"):
        lag_covariances(X, seen, 31)


def moving_average(rng: np.random.Generator, n: int, order: int) -> np.ndarray:
    return rng.standard_normal((order, n, n)) / np.arange(1, order + 1)[:, None, None]


def exact_lags(B: np.ndarray, n_lags: int) -> np.ndarray:
    """R(l) = sum_k B_(k + l) B_k' of x(t) = sum_k B_k e(t - k)."""
    out = np.zeros((n_lags, *B.shape[1:]))
    for lag in range(min(n_lags, len(B))):
        out[lag] = sum(B[k + lag] @ B[k].T for k in range(len(B) - lag))
    return out


def simulate(rng: np.random.Generator, B: np.ndarray, n_times: int) -> np.ndarray:
    e = rng.standard_normal((B.shape[1], n_times + len(B)))
    return sum(b @ e[:, len(B) - k : len(B) - k + n_times] for k, b in enumerate(B))  # type: ignore[return-value]


def test_welch_and_smoothing_find_the_spectrum(rng: np.random.Generator) -> None:
    B = moving_average(rng, 3, 4)
    x = torch.from_numpy(simulate(rng, B, 100_000))
    f = np.arange(17) / 32
    transfer = sum(
        b * np.exp(-2j * np.pi * f * k)[:, None, None] for k, b in enumerate(B)
    )
    truth = transfer @ transfer.conj().transpose(0, 2, 1)
    found = welch(x[:, None], 32)
    assert np.abs(found.numpy() - truth).max() < 0.1 * np.abs(truth).max()
    smooth = smooth_coherence(found, 12)
    assert np.abs(smooth.numpy() - truth).max() < 0.25 * np.abs(truth).max()
    assert float(torch.linalg.eigvalsh(smooth).min()) > 0
    diagonals = [s.diagonal(dim1=1, dim2=2).real for s in (smooth, found)]
    torch.testing.assert_close(*diagonals)
    torch.testing.assert_close(
        average(found), x @ x.T / x.shape[1], rtol=0.05, atol=0.05
    )


def test_filter_is_its_impulse_response(rng: np.random.Generator) -> None:
    lags = torch.from_numpy(exact_lags(moving_average(rng, 3, 3), 8))
    spectrum = from_lags(lags, 16)
    z = torch.from_numpy(rng.standard_normal((3, 2, 50)))
    response = impulse_response(spectrum, 50, 50)
    out = torch.zeros_like(z)
    for lag in range(50):
        out += torch.einsum("ij,jrt->irt", response[lag], z.roll(lag, -1))
    torch.testing.assert_close(convolve(spectrum, z), out)


@pytest.mark.parametrize("kind", ["scattered", "gaps", "both", "wide"])
def test_conditional_mean_is_the_dense_solution(
    rng: np.random.Generator, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "wide":
        monkeypatch.setattr("eegtensor.tensor.completion._conditional.BLOCK", 1)
    n, n_times = 3, 60
    spectrum = from_lags(torch.from_numpy(exact_lags(moving_average(rng, n, 4), 8)), 16)
    model = process(spectrum, 1e-2)
    lost = torch.from_numpy(rng.random((n, 1, n_times)) < 0.3)
    if kind in ("gaps", "wide"):
        lost[:] = False
    if kind != "scattered":
        lost[..., 10:15] = lost[..., 40:45] = True
    solver = Conditioner(lost.double(), gaps(lost), 0.01)
    solver.set_process(model)
    x = torch.from_numpy(rng.standard_normal((n, 1, n_times)))
    seen_values = torch.where(lost, 0.0, x)
    right = solver.right_side(seen_values)
    found = solver.solve(right, torch.zeros_like(x), 150)
    # The whole covariance, circulant, and the textbook's formula.
    response = impulse_response(model.spectrum, n_times, n_times)
    at = torch.arange(n_times)
    dense = response[(at[:, None] - at) % n_times].permute(2, 0, 3, 1)
    dense = dense.reshape(n * n_times, n * n_times)
    m = lost[:, 0].reshape(-1)
    gain = dense[m][:, ~m] @ torch.linalg.inv(dense[~m][:, ~m])
    expected = gain @ x.reshape(-1)[~m]
    torch.testing.assert_close(found.reshape(-1)[m], expected, rtol=1e-6, atol=1e-8)


def test_draws_have_the_conditional_covariance(rng: np.random.Generator) -> None:
    n, n_times, copies = 2, 24, 4000
    spectrum = from_lags(torch.from_numpy(exact_lags(moving_average(rng, n, 3), 8)), 16)
    model = process(spectrum, 1e-2)
    lost = torch.from_numpy(rng.random((n, 1, n_times)) < 0.3)
    lost[..., 8:12] = True
    solver = Conditioner(lost.double(), gaps(lost), 0.01)
    solver.set_process(model)
    white = torch.from_numpy(rng.standard_normal((n, copies, n_times)))
    right = solver.noise_side(white)
    draws = solver.solve(right, torch.zeros_like(right), 60)
    response = impulse_response(model.spectrum, n_times, n_times)
    at = torch.arange(n_times)
    dense = response[(at[:, None] - at) % n_times].permute(2, 0, 3, 1)
    dense = dense.reshape(n * n_times, n * n_times)
    m = lost[:, 0].reshape(-1)
    gain = dense[m][:, ~m] @ torch.linalg.inv(dense[~m][:, ~m])
    expected = (dense[m][:, m] - gain @ dense[~m][:, m]).diagonal()
    variance = (draws**2).mean(dim=1).reshape(-1)[m]
    torch.testing.assert_close(variance, expected, rtol=0.15, atol=0.02)


def test_conditioning_begins_where_it_is_told(rng: np.random.Generator) -> None:
    x, start = torch.from_numpy(rng.standard_normal((2, 3, 4, 50)))
    seen = torch.from_numpy(rng.random(x.shape) > 0.3)
    generator = torch.Generator().manual_seed(0)
    trials = Conditional(torch.where(seen, x, 0.0), seen, 1, generator)
    trials.start(start)
    found = trials.state[:, : len(x), :50].permute(1, 0, 2)
    assert torch.equal(found, torch.where(seen, 0.0, start))


def test_gaps_are_found_by_length() -> None:
    lost = torch.zeros(2, 2, 20, dtype=torch.bool)
    lost[:, 0, 3:6] = lost[:, 1, 17:] = lost[:, 1, 0:1] = True
    lost[0, 0, 10:12] = True
    found = {s.length: (s.trials.tolist(), s.starts.tolist()) for s in gaps(lost)}
    assert found == {1: ([1], [0]), 3: ([0, 1], [3, 17])}
    assert isinstance(gaps(lost)[0], Stretch)


def test_spectrum_holds_the_lags_it_was_given(rng: np.random.Generator) -> None:
    lags = torch.from_numpy(exact_lags(moving_average(rng, 3, 2), 8))
    response = impulse_response(from_lags(lags, 16, floor=0.0), 16, 8)
    u = torch.arange(8) / 8
    taper = torch.where(u <= 0.5, 1 - 6 * u**2 + 6 * u**3, 2 * (1 - u) ** 3)
    torch.testing.assert_close(
        response, lags * taper[:, None, None].double(), atol=0.05, rtol=0.05
    )


def test_variances_inside_a_gap_are_the_dense_ones(rng: np.random.Generator) -> None:
    n, n_times = 3, 40
    spectrum = from_lags(torch.from_numpy(exact_lags(moving_average(rng, n, 4), 8)), 16)
    model = process(spectrum, 1e-2)
    lost = torch.zeros(n, 1, n_times, dtype=torch.bool)
    lost[..., 12:18] = True
    solver = Conditioner(lost.double(), gaps(lost), 0.01)
    solver.set_process(model)
    response = impulse_response(model.precision, n_times, n_times)
    at = torch.arange(n_times)
    dense = response[(at[:, None] - at) % n_times].permute(2, 0, 3, 1)
    dense = dense.reshape(n * n_times, n * n_times)
    m = lost[:, 0].reshape(-1)
    expected = torch.linalg.inv(dense[m][:, m]).diagonal().view(n, 6).T
    torch.testing.assert_close(solver.variances[0], expected)


def test_the_solver_holds_few_arrays(rng: np.random.Generator) -> None:
    n, n_times = 3, 4000
    spectrum = from_lags(torch.from_numpy(exact_lags(moving_average(rng, n, 4), 8)), 16)
    lost = torch.from_numpy(rng.random((n, 1, n_times)) < 0.3)
    solver = Conditioner(lost.double(), [], 0.01)
    solver.set_process(process(spectrum, 1e-2))
    right, start = torch.from_numpy(rng.standard_normal((2, n, 2, n_times)))
    with Peak(right) as peak:
        solver.solve(right, start, 3)
    # Direction, image or what is preconditioned, and its transform, beside the two.
    assert peak.bytes < 4.5 * start.nbytes
