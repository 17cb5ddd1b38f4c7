"""Features of electrodes: of the place, of the cap, of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor._headmodel import channel_names, directions
from eegtensor.nn.positions import (
    electrode_features,
    laplacian_features,
    montage_laplacian,
    spherical_harmonics,
)


def cap(n: int) -> NDArray:
    return np.asarray(directions(channel_names(n)))


def sphere(n: int) -> NDArray:
    """Return points that cover the sphere evenly (Fibonacci)."""
    k = np.arange(n) + 0.5
    z, phi = 1 - 2 * k / n, np.pi * (1 + np.sqrt(5)) * k
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


def test_harmonics_are_orthonormal_on_the_sphere() -> None:
    Y = spherical_harmonics(sphere(20_000))
    np.testing.assert_allclose(Y.T @ Y / len(Y), np.eye(15), atol=2e-3)


def test_harmonics_are_eigenfunctions_of_the_sphere() -> None:
    # x_d is harmonic off the sphere: its finite-difference Laplacian vanishes.
    point, h = np.array([[0.3, -0.5, 0.7]]), 1e-3
    degrees = [1] * 3 + [2] * 5 + [3] * 7

    def solid(p: NDArray) -> NDArray:
        size = np.linalg.norm(p)
        return spherical_harmonics(p)[0] * size ** np.array(degrees)

    steps = [sign * h * e for e in np.eye(3) for sign in (-1, 1)]
    bent = sum(solid(point + step) for step in steps) - 6 * solid(point)
    np.testing.assert_allclose(bent / h**2, 0, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 8, 19, 64])
def test_the_order_of_electrodes_does_not_matter(
    n: int, rng: np.random.Generator
) -> None:
    places = cap(n)
    order = rng.permutation(n)
    np.testing.assert_allclose(
        electrode_features(places[order]), electrode_features(places)[order], atol=1e-9
    )
    np.testing.assert_allclose(
        electrode_features(1e3 * places), electrode_features(places), atol=1e-9
    )


@pytest.mark.parametrize("n", [8, 19, 32, 64])
def test_far_electrodes_have_unlike_features(n: int) -> None:
    places = cap(n)
    features = electrode_features(places)
    pair = np.triu_indices(n, 1)
    geodesic = np.arccos(np.clip(places @ places.T, -1, 1))[pair]
    distance = np.linalg.norm(features[:, None] - features, axis=-1)[pair]
    assert np.corrcoef(geodesic, distance)[0, 1] > 0.8


def test_laplacian_features_span_the_smoothest_vectors() -> None:
    places = cap(32)
    L = montage_laplacian(places)
    found = laplacian_features(places)
    np.testing.assert_allclose(L.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.T @ found / 32, np.eye(8), atol=1e-9)
    values, vectors = np.linalg.eigh(L)
    smooth = vectors[:, 1:9]
    np.testing.assert_allclose(smooth @ smooth.T @ found, found, atol=1e-9)
    energy = np.trace(found.T @ L @ found) / 32
    assert energy == pytest.approx(values[1:9].sum())


def test_two_caps_agree_on_what_they_share() -> None:
    many, few = channel_names(64), channel_names(32)
    shared = [name for name in many if name in few]
    a = electrode_features(directions(many))[[many.index(n) for n in shared]]
    b = electrode_features(directions(few))[[few.index(n) for n in shared]]
    assert np.corrcoef(a[:, :15].ravel(), b[:, :15].ravel())[0, 1] > 0.999
    assert np.corrcoef(a[:, 15:].ravel(), b[:, 15:].ravel())[0, 1] > 0.8


def test_islands_and_unknown_places() -> None:
    islands = np.concatenate([cap(64)[:4], -cap(64)[:4]])
    found = electrode_features(islands)
    assert np.isfinite(found).all()
    places = cap(8)
    places[2] = np.nan
    found = electrode_features(places)
    assert not found[2].any()
    np.testing.assert_allclose(
        np.delete(found, 2, axis=0), electrode_features(np.delete(places, 2, axis=0))
    )
    assert electrode_features(cap(8)[:1]).shape == (1, 23)


def test_places_that_are_none_are_refused() -> None:
    with pytest.raises(EEGTensorError, match="centre of the head"):
        spherical_harmonics(np.zeros((2, 3)))
    with pytest.raises(EEGTensorError, match="shape"):
        electrode_features(np.zeros(3))
    with pytest.raises(EEGTensorError, match="n_neighbours"):
        montage_laplacian(cap(8), n_neighbours=0)
