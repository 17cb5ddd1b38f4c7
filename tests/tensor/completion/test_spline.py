"""The spherical spline equals MNE's, one pattern or many at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mne.channels.interpolation import _make_interpolation_matrix

from eegtensor import EEGTensorError
from eegtensor.tensor.completion import spline_weights
from eegtensor.tensor.completion.spline import (
    spline_error,
    spline_operators,
    unit_positions,
)


def sphere(rng: np.random.Generator, n: int) -> np.ndarray:
    places = rng.standard_normal((n, 3))
    return 0.09 * places / np.linalg.norm(places, axis=1, keepdims=True)


def test_weights_are_those_of_mne(rng: np.random.Generator) -> None:
    seen, lost = sphere(rng, 24), sphere(rng, 5)
    weights = spline_weights(seen, lost)
    referee = _make_interpolation_matrix(seen, lost)
    np.testing.assert_allclose(weights, referee, atol=1e-10)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-8)


def test_unit_of_positions_does_not_matter(rng: np.random.Generator) -> None:
    seen, lost = sphere(rng, 12), sphere(rng, 3)
    np.testing.assert_allclose(
        spline_weights(seen, lost), spline_weights(1e3 * seen, 7.0 * lost), atol=1e-10
    )


def test_operators_of_many_patterns(rng: np.random.Generator) -> None:
    places = sphere(rng, 14)
    seen = rng.random((20, 14)) > 0.4
    seen[0] = False
    seen[1, 2:] = False
    seen[1, :2] = True
    operators = spline_operators(torch.from_numpy(seen), unit_positions(places)).numpy()
    for operator, have in zip(operators, seen, strict=True):
        np.testing.assert_array_equal(operator[have], np.eye(14)[have])
        assert (operator[:, ~have] == 0).all()
        if have.sum() >= 3:
            referee = _make_interpolation_matrix(places[have], places[~have])
            np.testing.assert_allclose(operator[~have][:, have], referee, atol=1e-8)
    assert (operators[0] == 0).all()
    np.testing.assert_allclose(operators[1, 2:, :2], 0.5)


def test_error_grows_with_distance(rng: np.random.Generator) -> None:
    seen = sphere(rng, 20)
    seen[:, 2] = np.abs(seen[:, 2])
    near, far = seen[0] + 1e-3, np.array([0.0, 0.0, -0.09])
    error = spline_error(
        torch.from_numpy(seen), torch.from_numpy(np.stack([near, far]))
    )
    assert 0 < error[0] < 0.2 * error[1]


def test_channel_without_position() -> None:
    with pytest.raises(EEGTensorError, match=r"channels 1 have no position"):
        spline_weights(np.array([[0.0, 0, 1], [0, 0, 0]]), np.array([[1.0, 0, 0]]))
    with pytest.raises(EEGTensorError, match="shape"):
        unit_positions(np.zeros(3))
