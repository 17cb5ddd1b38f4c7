"""Geometric medians: optimality, robustness and pyriemann as referee."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _spd import KINDS, matrices, spd
from pyriemann.geometry.median import median_euclid, median_riemann

from eegtensor import geometry
from eegtensor.geometry.metrics import METRICS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_unit_velocities_cancel_at_the_median(
    metric: str, kind: str, device: str
) -> None:
    X = matrices(kind, 5, (15,), 1).to(device)
    w = torch.linspace(0.5, 2.0, 15, dtype=X.dtype, device=device)
    M = geometry.geometric_median(X, weights=w, metric=metric)
    V = geometry.log_map(M, X, metric=metric)
    unit = V / geometry.norm(M, V, metric=metric)[:, None, None]
    mean = (w[:, None, None] * unit).sum(0) / w.sum()
    assert float(geometry.norm(M, mean, metric=metric)) < 1e-5


def test_pyriemann_agrees(rng: np.random.Generator) -> None:
    X, w = spd(rng, 30, 5), rng.uniform(0.2, 1, 30)
    given = {"weights": w / w.sum(), "tol": 1e-11, "maxiter": 1000}
    for metric, peer in (
        ("affine-invariant", median_riemann),
        ("euclidean", median_euclid),
    ):
        M = geometry.geometric_median(X, weights=w, metric=metric)
        np.testing.assert_allclose(M, peer(X, **given), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("metric", METRICS)
def test_a_heavy_matrix_is_the_median(rng: np.random.Generator, metric: str) -> None:
    """More than half of the weight on one matrix: the median is there exactly."""
    X, w = spd(rng, 7, 4), np.ones(7)
    w[3] = 6.5
    for start in (None, X[3], X[5]):
        M = geometry.geometric_median(X, weights=w, metric=metric, init=start)
        np.testing.assert_allclose(M, X[3], rtol=1e-6, atol=1e-7)
    # Started there it stays: the others pull with less than its weight.
    M = geometry.geometric_median(X, weights=w, metric=metric, init=X[3], max_iter=1)
    np.testing.assert_allclose(M, X[3], rtol=1e-10, atol=1e-12)
    # Started at a light one the search leaves it.
    M = geometry.geometric_median(X, metric=metric, init=X[5])
    away = geometry.geometric_median(X, metric=metric)
    np.testing.assert_allclose(M, away, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", ["affine-invariant", "log-euclidean"])
def test_a_third_of_bad_trials_does_not_carry_it_away(
    rng: np.random.Generator, metric: str
) -> None:
    X = spd(rng, 60, 5)
    clean = geometry.geometric_median(X, metric=metric)
    X[:20] *= 1e6
    M = geometry.geometric_median(X, metric=metric)
    spread = np.sqrt(geometry.dispersion(X[20:], clean, metric=metric))
    assert geometry.distance(clean, M, metric=metric) < spread
    mean = geometry.frechet_mean(X, metric=metric)
    assert geometry.distance(clean, mean, metric=metric) > 5 * spread


@pytest.mark.parametrize("metric", METRICS)
def test_segments_equal_separate_medians(rng: np.random.Generator, metric: str) -> None:
    X, w = spd(rng, 40, 4), rng.uniform(0.5, 1.5, 40)
    codes = rng.permutation(np.repeat([0, 1, 2], [1, 15, 24]))
    together = geometry.geometric_median(X, segments=codes, weights=w, metric=metric)
    for k in range(3):
        part = codes == k
        alone = geometry.geometric_median(X[part], weights=w[part], metric=metric)
        np.testing.assert_allclose(together[k], alone, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(together[0], X[codes == 0][0], atol=1e-9)
