"""Symmetric matrices as vectors."""

from __future__ import annotations

import numpy as np
import pytest
from _spd import spd

from eegtensor import EEGTensorError, geometry


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
