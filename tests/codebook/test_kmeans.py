"""k-means, against scikit-learn and its own laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans

from eegtensor._check import EEGTensorError
from eegtensor.codebook import kmeans, nearest_codes


def clouds(n: int = 1200, k: int = 12, dim: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((k, dim))
    return centres[rng.integers(k, size=n)] + rng.standard_normal((n, dim))


def test_clouds_are_found_as_well_as_by_scikit_learn() -> None:
    X = clouds()
    # One start may end in a minimum of its own, for either.
    starts = [kmeans(X, 12, max_iter=100, tol=0.0, random_state=s) for s in range(5)]
    ours = min(starts, key=lambda found: found.error)
    peer = SklearnKMeans(12, n_init=5, random_state=0).fit(X)
    assert ours.error <= 1.001 * peer.inertia_ / len(X)
    nearest = nearest_codes(X, ours.codes)
    np.testing.assert_array_equal(np.bincount(nearest, minlength=12), ours.counts)
    assert ours.error == pytest.approx(
        ((X - ours.codes[nearest]) ** 2).sum(axis=1).mean()
    )


def test_at_the_end_codes_are_the_means_of_their_vectors() -> None:
    X = clouds(600, 5)
    found = kmeans(X, 8, max_iter=300, tol=0.0)
    nearest = nearest_codes(X, found.codes)
    for code in range(8):
        np.testing.assert_allclose(
            found.codes[code], X[nearest == code].mean(axis=0), atol=1e-9
        )


def test_no_code_is_dead_where_there_are_vectors_enough() -> None:
    rng = np.random.default_rng(1)
    # Nearly all mass at one place: what leaves codes dead.
    X = np.concatenate([1e-3 * rng.standard_normal((2000, 3)), 50 + clouds(200, 3, 3)])
    assert kmeans(X, 128).counts.min() > 0


def test_fewer_vectors_than_codes() -> None:
    X = np.array([[0.0, 1.0], [2.0, 3.0]])
    found = kmeans(np.repeat(X, 3, axis=0), 5)
    assert found.error == 0 and np.isfinite(found.codes).all()


def test_spherical() -> None:
    found = kmeans(clouds() * 1e-6, 12, cosine=True)
    np.testing.assert_allclose(np.linalg.norm(found.codes, axis=1), 1.0)


def test_the_seed_decides_and_the_unit_does_not() -> None:
    X = clouds()
    one, two = (kmeans(X, 20, random_state=3).codes for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, kmeans(X, 20, random_state=4).codes)
    np.testing.assert_allclose(
        kmeans(2**-20 * X, 20, random_state=3).codes, one / 2**20
    )


def test_what_cannot_be_clustered_is_refused() -> None:
    X = torch.randn(10, 2)
    with pytest.raises(EEGTensorError, match="n_codes=0"):
        kmeans(X, 0)
    with pytest.raises(EEGTensorError, match=r"shape \(0, 2\)"):
        kmeans(X[:0], 2)
    X[3] = torch.nan
    with pytest.raises(EEGTensorError, match="1 of 10 vectors"):
        kmeans(X, 2)
