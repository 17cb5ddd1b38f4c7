"""Levels for cells, against all ways to spend a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from eegtensor._check import EEGTensorError
from eegtensor.codebook import allocate_levels


def convex(seed: int, n: int = 4, levels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    gains = np.sort(rng.exponential(size=(n, levels)), axis=1)[:, ::-1]
    return gains.sum(axis=1, keepdims=True) - np.c_[np.zeros(n), np.cumsum(gains, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_no_way_to_spend_as_many_bits_is_better(seed: int) -> None:
    errors = np.maximum(convex(seed), 0.0)
    for budget in range(13):
        found = allocate_levels(errors, np.ones(4), float(budget))
        assert found.sum() == min(budget, 12)
        ours = errors[np.arange(4), found].sum()
        ways = itertools.product(range(4), repeat=4)
        best = min(errors[np.arange(4), w].sum() for w in ways if sum(w) <= budget)
        assert ours == pytest.approx(best)


def test_a_level_that_pays_only_with_the_next_is_taken_with_it() -> None:
    errors = np.array([[10.0, 9.9, 0.0], [4.0, 3.0, 2.0]])
    np.testing.assert_array_equal(allocate_levels(errors, np.ones(2), 2.0), [2, 0])
    np.testing.assert_array_equal(allocate_levels(errors, np.ones(2), 3.0), [2, 1])


def test_costs_count_and_useless_levels_are_not_bought() -> None:
    errors = np.array([[4.0, 1.0, 1.0], [4.0, 1.0, 0.5]])
    found = allocate_levels(errors, np.array([1.0, 10.0]), 5.0)
    np.testing.assert_array_equal(found, [1, 0])
    np.testing.assert_array_equal(allocate_levels(errors, np.ones(2), 99.0), [1, 2])


def test_the_fall_a_bit_decides_and_what_still_fits_is_bought() -> None:
    # A fall of 5 for 8 bits, or of 3 for 4.
    errors = np.array([[9.0, 4.0], [9.0, 6.0]])
    np.testing.assert_array_equal(
        allocate_levels(errors, np.array([8.0, 4.0]), 9.0), [0, 1]
    )
    # The best of all costs too much; the next does not.
    errors = np.array([[99.0, 0.0], [9.0, 6.0]])
    np.testing.assert_array_equal(
        allocate_levels(errors, np.array([8.0, 4.0]), 7.0), [0, 1]
    )


def test_what_cannot_be_allocated_is_refused() -> None:
    with pytest.raises(EEGTensorError, match="errors have shape"):
        allocate_levels(np.ones(3), np.ones(3), 1.0)
    with pytest.raises(EEGTensorError, match="negative or not finite"):
        allocate_levels(np.array([[1.0, np.nan]]), np.ones(1), 1.0)
