"""Slow drift beside the process: the smoother's closed form, and what it is for."""

from __future__ import annotations

import numpy as np
import torch

from eegtensor.tensor.completion import complete
from eegtensor.tensor.completion._prepare import prepare
from eegtensor.tensor.completion.drift import bridge_variance, fit_drift, slow_part


def test_slow_part_is_the_smoother_solved_densely() -> None:
    rng = np.random.default_rng(0)
    x, seen = rng.standard_normal((2, 3, 40)), rng.random((2, 3, 40)) > 0.4
    steps = np.diff(np.eye(40), axis=0)
    penalty = (16 / (2 * np.pi)) ** 2 * steps.T @ steps
    found = slow_part(torch.from_numpy(x), torch.from_numpy(seen), 16.0).numpy()
    for trial, channel in np.ndindex(2, 3):
        mask = seen[trial, channel].astype(float)
        dense = np.linalg.solve(np.diag(mask) + penalty, mask * x[trial, channel])
        np.testing.assert_allclose(found[trial, channel], dense, rtol=1e-9, atol=1e-12)


def test_slow_part_goes_straight_across_a_run_and_is_zero_without_cells() -> None:
    x = torch.randn(1, 2, 60, generator=torch.Generator().manual_seed(0)).double()
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[0, 0, 20:40] = False
    seen[0, 1] = False
    course = slow_part(x, seen, 10.0)
    bend = course[0, 0].diff().diff()
    assert bend[19:38].abs().max() < 1e-12 < bend[:10].abs().max()
    assert not course[0, 1].any()


def test_bridge_variance_is_that_of_a_random_walk_tied_at_both_ends() -> None:
    rng = np.random.default_rng(1)
    seen = torch.ones(1, 1, 30_000, dtype=torch.bool)
    seen[..., 100:110], seen[..., -5:] = False, False
    walk = torch.from_numpy(np.cumsum(rng.standard_normal((1, 1, 30_000)), axis=-1))
    found = bridge_variance(2 * walk, seen, 4)[0, 0]
    t = np.arange(1, 11)
    np.testing.assert_allclose(found[100:110], 4 * t * (11 - t) / 11, rtol=0.1)
    np.testing.assert_allclose(found[-5:], 4 * np.arange(1, 6), rtol=0.1)
    assert not found[seen[0, 0]].any()


def test_walking_electrodes_are_restored_better_than_by_a_straight_line() -> None:
    rng = np.random.default_rng(2)
    sources = np.cumsum(rng.standard_normal((4, 8000)), axis=1)
    eeg = rng.standard_normal((8, 4)) @ (sources[:, 8:] - sources[:, :-8])
    walks = 2 * np.cumsum(rng.standard_normal(eeg.shape), axis=1)
    x = 1e-6 * (eeg / eeg.std() * 15 + walks)
    seen = np.ones(x.shape, dtype=bool)
    for start in range(0, 7900, 300):
        seen[rng.choice(8, 2, replace=False), start : start + 250] = False
    done = complete(x, seen)
    lost = ~seen
    line = x.copy()
    for c in range(8):
        at = np.flatnonzero(lost[c])
        line[c, at] = np.interp(at, np.flatnonzero(seen[c]), x[c, seen[c]])

    def error(y: np.ndarray) -> float:
        return float(np.linalg.norm((y - x)[lost]))

    assert done.table[0].method.startswith("drift")
    assert error(done.X) < 0.85 * error(line)
    assert error(done.X) < 0.7 * error(complete(x, seen, method="delay").X)
    inside = np.abs(done.X - x)[lost] <= 1.645 * done.std[lost]
    assert 0.8 < inside.mean() < 0.97


def test_variance_beside_drift_is_in_the_unit_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    t = np.arange(4000)
    slow = 10 * np.sin(2 * np.pi * t / 4000)
    x = torch.from_numpy(slow + rng.standard_normal((4, 4000)))
    seen = torch.from_numpy(rng.random(x.shape) > 0.2)
    problem = prepare(x, seen, None).problem
    found = fit_drift(problem, 0)(problem)
    assert found.variance is not None
    lost = ~seen[None]
    truth = (x - x[seen].mean()) / problem.scale[:, None]
    told = found.variance[lost].mean().sqrt()
    missed = (found.values - truth)[lost].square().mean().sqrt()
    assert 0.7 < told / missed < 1.5
