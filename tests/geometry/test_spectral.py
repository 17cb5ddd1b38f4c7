"""Functions of symmetric matrices: laws, and scipy as referee."""

from __future__ import annotations

import numpy as np
import pytest
from _spd import spd
from scipy import linalg

from eegtensor import EEGTensorError, geometry


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
        with pytest.raises(EEGTensorError, match="no positive trace"):
            geometry.frechet_mean(bad)
        with pytest.raises(EEGTensorError, match="no positive eigenvalue"):
            geometry.logm(bad)
    with pytest.raises(EEGTensorError, match="weights of matrices 2"):
        geometry.frechet_mean(X, weights=[1, 1, np.inf])
    with pytest.raises(EEGTensorError, match="segments has dtype float"):
        geometry.frechet_mean(X, segments=[0.0, 0.0, 1.0])
