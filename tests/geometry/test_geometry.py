"""Laws of the SPD functions, and pyriemann and scikit-learn as referees."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.covariance
from pyriemann.geometry.distance import distance_riemann
from pyriemann.geometry.mean import mean_riemann
from scipy import linalg

from eegtensor import EEGTensorError, geometry


def spd(rng: np.random.Generator, n_matrices: int, n: int, *, unit: float = 1.0):
    """Random matrices of condition about 1e3, in a unit squared of `unit`."""
    A = rng.standard_normal((n_matrices, n, 3 * n)) * np.logspace(0, -1, n)[:, None]
    mix = np.eye(n) + 0.3 * rng.standard_normal((n, n))
    return unit * (mix @ A) @ np.swapaxes(mix @ A, 1, 2) / (3 * n)


@pytest.mark.parametrize("unit", [1.0, 1e-12, 1e6])
@pytest.mark.parametrize("n", [2, 8, 19])
def test_inverse_maps(rng: np.random.Generator, n: int, unit: float) -> None:
    X = spd(rng, 5, n, unit=unit)
    np.testing.assert_allclose(geometry.expm(geometry.logm(X)), X, atol=1e-10 * unit)
    root, inverse = geometry.sqrtm_pair(X)
    np.testing.assert_allclose(root @ root, X, atol=1e-12 * unit)
    np.testing.assert_allclose(root @ inverse, np.tile(np.eye(n), (5, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(geometry.sqrtm(X), root)
    np.testing.assert_allclose(geometry.inv_sqrtm(X), inverse)
    np.testing.assert_allclose(geometry.powm(X, 0.5), root, rtol=1e-9, atol=0)
    powers = geometry.powm(X, np.arange(5.0))
    np.testing.assert_allclose(powers[0], np.eye(n), atol=1e-10)
    np.testing.assert_allclose(powers[2], X[2] @ X[2], rtol=1e-7, atol=1e-9 * unit**2)


def test_spectral_functions_equal_scipy(rng: np.random.Generator) -> None:
    X = spd(rng, 3, 6)
    for one, log in zip(X, geometry.logm(X), strict=True):
        np.testing.assert_allclose(log, linalg.logm(one), atol=1e-10)
    np.testing.assert_allclose(
        geometry.expm(X[0] - X[1]), linalg.expm(X[0] - X[1]), atol=1e-10
    )


def test_any_leading_axes(rng: np.random.Generator) -> None:
    X = spd(rng, 6, 4).reshape(2, 3, 4, 4)
    np.testing.assert_allclose(geometry.logm(X)[1, 2], geometry.logm(X[1, 2]))


def test_affine_distance(rng: np.random.Generator) -> None:
    A, B = spd(rng, 4, 7), spd(rng, 4, 7)
    d = geometry.distance(A, B)
    peer = [distance_riemann(a, b) for a, b in zip(A, B, strict=True)]
    np.testing.assert_allclose(d, peer, rtol=1e-10)
    W = rng.standard_normal((7, 7))
    moved = geometry.distance(geometry.congruence(W, A), geometry.congruence(W, B))
    np.testing.assert_allclose(moved, d, rtol=1e-7)
    inverse = geometry.distance(np.linalg.inv(A), np.linalg.inv(B))
    np.testing.assert_allclose(inverse, d, rtol=1e-7)
    np.testing.assert_allclose(geometry.distance(A, A), 0, atol=1e-6)


@pytest.mark.parametrize("metric", ["affine-invariant", "log-euclidean", "euclidean"])
def test_geodesics_have_the_right_ends_and_length(
    rng: np.random.Generator, metric: str
) -> None:
    A, B = spd(rng, 3, 5), spd(rng, 3, 5)
    np.testing.assert_allclose(
        geometry.geodesic(A, B, 0.0, metric=metric), A, atol=1e-9
    )
    np.testing.assert_allclose(
        geometry.geodesic(A, B, 1.0, metric=metric), B, atol=1e-9
    )
    third = geometry.geodesic(A, B, np.array([0.1, 0.3, 0.8]), metric=metric)
    np.testing.assert_allclose(
        geometry.distance(A, third, metric=metric),
        np.array([0.1, 0.3, 0.8]) * geometry.distance(A, B, metric=metric),
        rtol=1e-7,
    )


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


@pytest.mark.parametrize("metric", ["affine-invariant", "log-euclidean", "euclidean"])
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


@pytest.mark.parametrize(
    ("name", "peer"),
    [("oas", sklearn.covariance.oas), ("lwf", sklearn.covariance.ledoit_wolf)],
)
@pytest.mark.parametrize("n_times", [10, 300])
def test_shrinkage_equals_scikit_learn(
    rng: np.random.Generator, name: str, peer: object, n_times: int
) -> None:
    X = 1e-5 * rng.standard_normal((4, 12, n_times)) + 1e-4
    C = geometry.covariances(X, estimator=name)
    for trial, ours in zip(X, C, strict=True):
        np.testing.assert_allclose(ours, peer(trial.T)[0], rtol=1e-9, atol=1e-22)


def test_scm_and_constant_trials(rng: np.random.Generator) -> None:
    X = rng.standard_normal((2, 3, 50))
    C = geometry.covariances(X, estimator="scm")
    np.testing.assert_allclose(C[1], np.cov(X[1], bias=True))
    for name in ("oas", "lwf", "scm"):
        zero = geometry.covariances(np.ones((1, 3, 50)), estimator=name)
        np.testing.assert_array_equal(zero, 0)


def test_rank(rng: np.random.Generator) -> None:
    X = rng.standard_normal((1, 8, 200)) * 1e-6
    referenced = X - X.mean(axis=1, keepdims=True)
    C = np.concatenate(
        [geometry.covariances(x, estimator="scm") for x in (X, referenced, X[..., :5])]
    )
    assert geometry.rank(C).tolist() == [8, 7, 4]


def test_vectors_keep_the_norm(rng: np.random.Generator) -> None:
    X = spd(rng, 3, 6)
    v = geometry.upper_vector(X)
    assert v.shape == (3, 21)
    np.testing.assert_allclose((v**2).sum(1), (X**2).sum((1, 2)))
    np.testing.assert_allclose(geometry.from_upper_vector(v), X)


def test_integers_are_numbers() -> None:
    """sqrt(2) was cast to the matrix's integer dtype: 1."""
    X = np.array([[2, 1], [1, 3]])
    v = geometry.upper_vector(X)
    np.testing.assert_allclose((v**2).sum(), (X**2).sum())
    np.testing.assert_allclose(geometry.from_upper_vector(v), X)
    np.testing.assert_allclose(
        geometry.from_upper_vector(np.array([2, 2, 3]))[0, 1], np.sqrt(2)
    )
    with pytest.raises(EEGTensorError, match="length 4"):
        geometry.from_upper_vector(np.ones(4))
    np.testing.assert_allclose(
        geometry.frechet_mean(np.stack([X, X])), X.astype(float), rtol=1e-12
    )


def test_what_has_no_logarithm_is_refused(rng: np.random.Generator) -> None:
    X = spd(rng, 3, 4)
    for value in (np.nan, np.inf):
        bad = X.copy()
        bad[1, 0, 0] = value
        for call in (
            lambda bad=bad: geometry.logm(bad),
            lambda bad=bad: geometry.distance(X[0], bad),
            lambda bad=bad: geometry.rank(bad),
        ):
            with pytest.raises(EEGTensorError, match="Matrices 1 hold NaN or inf"):
                call()
    for bad in (-X, np.zeros_like(X)):
        with pytest.raises(EEGTensorError, match="no positive eigenvalue"):
            geometry.frechet_mean(bad)
    with pytest.raises(EEGTensorError, match="weights of matrices 2"):
        geometry.frechet_mean(X, weights=[1, 1, np.inf])
    with pytest.raises(EEGTensorError, match="segments has dtype float"):
        geometry.frechet_mean(X, segments=[0.0, 0.0, 1.0])


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
