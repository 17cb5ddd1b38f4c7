"""Random matrices are what they say, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError, geometry


def test_condition_scale_and_shape() -> None:
    X = geometry.random_spd(6, (2, 3), condition=1e4, scale=1e-12, random_state=0)
    assert X.shape == (2, 3, 6, 6) and X.dtype == np.float64
    values = np.linalg.eigvalsh(X)
    np.testing.assert_allclose(values[..., -1] / values[..., 0], 1e4, rtol=1e-8)
    np.testing.assert_allclose(values[..., -1] * values[..., 0], 1e-24, rtol=1e-8)
    np.testing.assert_array_equal(X, np.swapaxes(X, -1, -2))
    np.testing.assert_allclose(geometry.random_spd(1, 3, scale=2.0), 2.0)
    np.testing.assert_allclose(
        geometry.random_spd(3, condition=1.0), np.eye(3), atol=1e-14
    )


def test_seeds() -> None:
    for make in (lambda: 3, lambda: torch.Generator().manual_seed(3)):
        one, two = (geometry.random_spd(4, 2, random_state=make()) for _ in range(2))
        assert type(one) is type(two)
        assert (one == two).all()
        V, W = (geometry.random_tangent(one, random_state=make()) for _ in range(2))
        assert type(V) is type(one)
        assert (V == W).all()
    generator = np.random.default_rng(0)
    first = geometry.random_spd(4, random_state=generator)
    assert (first != geometry.random_spd(4, random_state=generator)).all()


def test_directions_are_uniform() -> None:
    """The first eigenvector's coordinates have mean 0 and variance 1 / n."""
    X = geometry.random_spd(4, 4000, random_state=0)
    first = np.linalg.eigh(X)[1][..., -1]
    second = np.einsum("ij,ik->jk", first, first) / 4000
    np.testing.assert_allclose(second, np.eye(4) / 4, atol=0.02)


def test_what_is_out_of_range() -> None:
    for wrong in ({"condition": 0.5}, {"scale": 0.0}, {"scale": np.inf}):
        with pytest.raises(EEGTensorError, match="make no SPD matrix"):
            geometry.random_spd(3, **wrong)
    with pytest.raises(EEGTensorError, match="n=0"):
        geometry.random_spd(0)
