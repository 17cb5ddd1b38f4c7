"""Counts, entropies and what a coder pays, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor._check import EEGTensorError
from eegtensor.codebook import code_counts, code_usage, cross_entropy, stability


def test_counts_by_level_without_what_is_not_coded() -> None:
    ids = np.array([[[0, 2], [1, -1]], [[1, 2], [1, 0]]])
    np.testing.assert_array_equal(code_counts(ids, 3), [[1, 3, 0], [1, 0, 2]])
    with pytest.raises(EEGTensorError, match="between -1 and 2, codes between 0 and 1"):
        code_counts(ids, 2)


def test_entropy_of_even_single_and_missing_codes() -> None:
    found = code_usage(np.array([[5, 5, 5, 5], [7, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_allclose(found.entropy, [2.0, 0.0, 0.0])
    np.testing.assert_allclose(found.perplexity, [4.0, 1.0, 1.0])
    np.testing.assert_allclose(found.share, [1.0, 0.25, 0.0])
    np.testing.assert_array_equal(found.dead, [0, 3, 4])


def test_cross_entropy_is_the_entropy_where_the_coder_knows_and_more_elsewhere() -> (
    None
):
    counts = np.array([[4000, 2000, 1000, 1000]])
    known = cross_entropy(counts, 1000 * counts)
    np.testing.assert_allclose(known, 1.75, atol=1e-4)
    assert cross_entropy(counts, counts[:, ::-1].copy())[0] > 2.2
    # Never seen, never impossible: log2 of (4 + prior) / prior.
    rare = cross_entropy(np.array([[0, 1]]), np.array([[2, 0]]))
    np.testing.assert_allclose(rare, 2.0)


def test_stability() -> None:
    ids = np.array([[1, 2], [3, 4]])
    np.testing.assert_array_equal(stability(ids, np.array([[1, 0], [3, 4]])), [1, 0.5])


def test_one_code_alone_and_the_prior() -> None:
    found = code_usage(np.array([[1, 0]]))
    np.testing.assert_allclose((found.entropy, found.perplexity), [[0.0], [1.0]])
    # (2 + 3) / (2 + 6) of the probability, for one code.
    bits = cross_entropy(np.array([[1, 0]]), np.array([[2, 0]]), prior=3.0)
    np.testing.assert_allclose(bits, np.log2(8 / 5))
