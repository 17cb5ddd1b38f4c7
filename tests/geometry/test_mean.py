"""Frechet means: optimality, closed forms and pyriemann as referee."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _spd import KINDS, matrices, spd
from pyriemann.geometry.mean import gmean, mean_riemann

from eegtensor import EEGTensorError, geometry
from eegtensor.geometry.metrics import METRICS


@pytest.mark.parametrize("unit", [1.0, 1e-12])
def test_mean_equals_pyriemann(rng: np.random.Generator, unit: float) -> None:
    X = spd(rng, 60, 9)
    np.testing.assert_allclose(
        geometry.frechet_mean(unit * X), unit * mean_riemann(X, tol=1e-10), rtol=1e-6
    )


def test_mean_is_where_the_tangents_cancel(rng: np.random.Generator) -> None:
    X, w = spd(rng, 40, 6), rng.uniform(0.1, 2, 40)
    M = geometry.frechet_mean(X, weights=w)
    tangents = geometry.logm(geometry.congruence(geometry.inv_sqrtm(M), X))
    gradient = np.average(tangents, axis=0, weights=w)
    assert np.linalg.norm(gradient) < 1e-8
    W = rng.standard_normal((6, 6))
    np.testing.assert_allclose(
        geometry.frechet_mean(geometry.congruence(W, X), weights=w),
        geometry.congruence(W, M),
        rtol=1e-5,
        atol=1e-8,
    )


def test_a_warm_start_changes_nothing(rng: np.random.Generator) -> None:
    X = spd(rng, 40, 6)
    cold = geometry.frechet_mean(X)
    for start in (cold, np.eye(6), X[0]):
        np.testing.assert_allclose(
            geometry.frechet_mean(X, init=start), cold, rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("metric", METRICS)
def test_segments_equal_separate_means(rng: np.random.Generator, metric: str) -> None:
    X, w = spd(rng, 50, 5), rng.uniform(0.5, 1.5, 50)
    codes = rng.permutation(np.repeat([0, 1, 2, 3], [1, 9, 15, 25]))
    together = geometry.frechet_mean(X, segments=codes, weights=w, metric=metric)
    for k in range(4):
        alone = geometry.frechet_mean(
            X[codes == k], weights=w[codes == k], metric=metric
        )
        np.testing.assert_allclose(together[k], alone, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(together[0], X[codes == 0][0], atol=1e-9)


def test_mean_refuses_what_it_cannot_use(rng: np.random.Generator) -> None:
    X = spd(rng, 3, 4)
    with pytest.raises(EEGTensorError, match="Segments 1 are empty"):
        geometry.frechet_mean(X, segments=[0, 2, 2])
    with pytest.raises(EEGTensorError, match="negative"):
        geometry.frechet_mean(X, weights=[1, -1, 1])
    with pytest.raises(EEGTensorError, match="shape"):
        geometry.frechet_mean(X[:0])
    with pytest.raises(EEGTensorError, match="metric='riemann'"):
        geometry.frechet_mean(X, metric="riemann")
    X[1, 0, 0] = np.nan
    with pytest.raises(EEGTensorError, match="NaN"):
        geometry.logm(X)


@pytest.mark.parametrize("gap", [1e6, 1e20])
def test_mean_of_two_far_clusters(
    rng: np.random.Generator, gap: float, caplog: pytest.LogCaptureFixture
) -> None:
    X = spd(rng, 20, 6)
    M = geometry.frechet_mean(np.concatenate([X, gap * X]))
    np.testing.assert_allclose(
        M, np.sqrt(gap) * geometry.frechet_mean(X), rtol=1e-6, atol=1e-9 * gap**0.5
    )
    assert not caplog.records


def test_mean_of_ill_conditioned_and_of_few(rng: np.random.Generator) -> None:
    """Closed forms: commuting matrices, one matrix, the same matrix, scalars."""
    Q = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    logs = rng.uniform(-11.5, 11.5, (30, 16))  # condition up to 1e10
    X = (Q * np.exp(logs)[:, np.newaxis]) @ Q.T
    expected = (Q * np.exp(logs.mean(axis=0))) @ Q.T
    assert geometry.distance(expected, geometry.frechet_mean(X)) < 1e-4
    np.testing.assert_allclose(geometry.frechet_mean(X[:1]), X[0], rtol=1e-7, atol=1e-6)
    same = np.repeat(spd(rng, 1, 5), 7, axis=0)
    np.testing.assert_allclose(geometry.frechet_mean(same), same[0], rtol=1e-10)
    scalars = np.exp(rng.normal(0, 5, (20, 1, 1)))
    np.testing.assert_allclose(
        geometry.frechet_mean(scalars), np.exp(np.log(scalars).mean(axis=0))
    )


@pytest.mark.parametrize("metric", ["affine-invariant", "log-euclidean"])
def test_float32_means_are_found_in_float64(
    rng: np.random.Generator, metric: str
) -> None:
    X = spd(rng, 20, 6, unit=1e-12).astype(np.float32)
    M = geometry.frechet_mean(X, metric=metric)
    assert M.dtype == np.float64
    np.testing.assert_array_equal(
        M, geometry.frechet_mean(X.astype(np.float64), metric=metric)
    )


@pytest.mark.parametrize(
    ("metric", "peer"),
    [
        ("log-euclidean", "logeuclid"),
        ("log-cholesky", "logchol"),
        ("bures-wasserstein", "wasserstein"),
    ],
)
def test_other_means_equal_pyriemann(
    rng: np.random.Generator, metric: str, peer: str
) -> None:
    X, w = spd(rng, 30, 6), rng.uniform(0.2, 1, 30)
    given = {"tol": 1e-12} if peer == "wasserstein" else {}
    np.testing.assert_allclose(
        geometry.frechet_mean(X, weights=w, metric=metric),
        gmean(X, metric=peer, sample_weight=w / w.sum(), **given),
        rtol=1e-6,
        atol=1e-8,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_velocities_to_the_matrices_cancel_at_the_mean(
    metric: str, kind: str, device: str
) -> None:
    X = matrices(kind, 5, (12,), 1).to(device)
    w = torch.linspace(0.5, 2.0, 12, dtype=X.dtype, device=device)
    M = geometry.frechet_mean(X, weights=w, metric=metric)
    V = geometry.log_map(M, X, metric=metric)
    mean = (w[:, None, None] * V).sum(0) / w.sum()
    size = (w * geometry.norm(M, V, metric=metric)).sum() / w.sum()
    assert float(geometry.norm(M, mean, metric=metric) / size) < 1e-6


@pytest.mark.parametrize(
    "metric", ["affine-invariant", "log-euclidean", "bures-wasserstein", "euclidean"]
)
def test_mean_of_matrices_that_lack_a_direction(
    metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With an average reference the mean is that of the other directions."""
    X = matrices("singular", 5, (12,), 1)
    basis = torch.linalg.qr(torch.eye(5, dtype=X.dtype) - 0.2)[0][:, :4]
    inside = geometry.congruence(basis.T, X)
    M = geometry.congruence(basis.T, geometry.frechet_mean(X, metric=metric))
    expected = geometry.frechet_mean(inside, metric=metric)
    torch.testing.assert_close(M, expected, rtol=0, atol=1e-8)
    geometry.geometric_median(X, metric=metric)
    assert not caplog.records


@pytest.mark.parametrize("metric", METRICS)
def test_dispersion_is_least_at_the_mean(rng: np.random.Generator, metric: str) -> None:
    X, w = spd(rng, 30, 5), rng.uniform(0.2, 1, 30)
    codes = np.repeat([0, 1], 15)
    given = {"weights": w, "segments": codes, "metric": metric}
    M = geometry.frechet_mean(X, **given)
    least = geometry.dispersion(X, M, **given)
    for k in range(2):
        part = codes == k
        squared = geometry.distance(M[k], X[part], metric=metric) ** 2
        np.testing.assert_allclose(
            least[k], np.average(squared, weights=w[part]), rtol=1e-10
        )
    for step in (0.05, -0.05):
        other = geometry.geodesic(M, X[:2], step, metric=metric)
        assert (geometry.dispersion(X, other, **given) > least).all()


@pytest.mark.parametrize("metric", METRICS)
def test_axes_in_the_middle_are_separate_sets(
    rng: np.random.Generator, metric: str
) -> None:
    X, w = spd(rng, 24, 4).reshape(8, 3, 4, 4), rng.uniform(0.2, 1, 8)
    codes = [0, 1, 0, 1, 1, 0, 1, 0]
    given = {"weights": w, "metric": metric}
    together = geometry.frechet_mean(X, segments=codes, **given)
    spread = geometry.dispersion(X, together, segments=codes, **given)
    assert together.shape == (2, 3, 4, 4) and spread.shape == (2, 3)
    for band in range(3):
        alone = geometry.frechet_mean(X[:, band], segments=codes, **given)
        np.testing.assert_allclose(together[:, band], alone, rtol=1e-6, atol=1e-9)
    pooled = geometry.frechet_mean(X, **given)
    again = geometry.frechet_mean(X, init=pooled, **given)
    np.testing.assert_allclose(pooled, again, rtol=1e-6, atol=1e-9)
    with pytest.raises(EEGTensorError, match="Centers have shape"):
        geometry.dispersion(X, together, **given)


def test_tensors_weights_and_segments_of_any_kind(device: str) -> None:
    X = matrices("easy", 4, (6,), 1).to(device)
    codes, w = [0, 1, 1, 0, 0, 1], [1.0, 2.0, 1.0, 0.5, 1.0, 3.0]
    expected = geometry.frechet_mean(X, segments=codes, weights=w)
    assert expected.device.type == device
    for make in (np.array, torch.tensor, tuple):
        M = geometry.frechet_mean(X, segments=make(codes), weights=make(w))
        torch.testing.assert_close(M, expected)
    narrow = geometry.frechet_mean(X.float(), segments=codes, weights=w)
    assert narrow.dtype == torch.float64


def test_uneven_sets_leave_when_they_are_done(rng: np.random.Generator) -> None:
    """One segment needs many iterations, the others none."""
    X = np.concatenate(
        [spd(rng, 5, 6), np.repeat(spd(rng, 1, 6), 5, axis=0), spd(rng, 5, 6)]
    )
    X[:3] *= 1e8
    codes = np.repeat([2, 0, 1], 5)
    for metric in ("affine-invariant", "bures-wasserstein"):
        M = geometry.frechet_mean(X, segments=codes, metric=metric)
        for k in range(3):
            alone = geometry.frechet_mean(X[codes == k], metric=metric)
            np.testing.assert_allclose(M[k], alone, rtol=1e-6, atol=1e-9 * M[k].max())
