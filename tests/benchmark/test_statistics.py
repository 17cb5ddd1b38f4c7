"""Tests and intervals over people against scipy and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from eegtensor.benchmark import bootstrap_interval, sign_flip_test


@pytest.mark.parametrize("n_people", [3, 5, 8])
def test_p_equals_scipys_exact_permutation_test(rng, n_people):
    d = rng.standard_normal(n_people) + 0.7
    theirs = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_test(d).p[0] == pytest.approx(theirs.pvalue)


def test_smallest_p_of_five_people_is_a_sixteenth():
    result = sign_flip_test(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert result.p[0] == result.p_smallest[0] == 0.0625
    assert result.exact


def test_correction_by_the_maximum_statistic_by_hand(rng):
    d = rng.standard_normal((4, 3)) + np.array([0.0, 0.5, 2.0])
    unit = d / np.linalg.norm(d, axis=0)
    highest = [
        np.abs(np.asarray(signs) @ unit).max()
        for signs in itertools.product([1, -1], repeat=4)
    ]
    observed = np.abs(unit.sum(axis=0))
    expected = [np.mean(np.asarray(highest) >= o - 1e-10) for o in observed]
    result = sign_flip_test(d)
    np.testing.assert_allclose(result.p_corrected, expected)
    assert (result.p_corrected >= result.p).all()


def test_missing_people_leave_their_comparison_only(rng):
    d = rng.standard_normal((6, 2)) + 0.5
    d[4:, 1] = np.nan
    result = sign_flip_test(d)
    assert result.n_people.tolist() == [6, 4]
    assert result.p[1] == pytest.approx(sign_flip_test(d[:4, 1]).p[0])
    assert result.p_smallest.tolist() == [2 / 64, 2 / 16]


def test_many_people_are_drawn_and_seeded(rng):
    d = rng.standard_normal(40) + 0.3
    drawn = sign_flip_test(d, seed=1)
    assert not drawn.exact
    assert drawn.p[0] == sign_flip_test(d, seed=1).p[0]
    assert drawn.p_smallest[0] == pytest.approx(1 / 10_001)
    t_test = stats.ttest_1samp(d, 0).pvalue
    assert drawn.p[0] == pytest.approx(t_test, abs=0.02)


def test_no_difference_is_no_evidence():
    result = sign_flip_test(np.zeros((5, 2)))
    assert result.p.tolist() == [1.0, 1.0] and result.p_corrected.tolist() == [1.0, 1.0]


def test_family_wise_error_is_held(rng):
    """Under the null, 5 % of families or fewer hold a corrected p below .05."""
    families = [sign_flip_test(rng.standard_normal((7, 6))) for _ in range(300)]
    corrected = np.mean([f.p_corrected.min() <= 0.05 for f in families])
    plain = np.mean([f.p.min() <= 0.05 for f in families])
    assert corrected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert plain > 0.1


@pytest.mark.parametrize("skewed", [False, True])
def test_interval_agrees_with_scipys_bca(rng, skewed):
    x = rng.exponential(size=20) if skewed else rng.standard_normal(20)
    theirs = stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = bootstrap_interval(x, n_resamples=20_000, seed=0)
    scale = x.std() / np.sqrt(len(x))
    assert low == pytest.approx(theirs.low, abs=0.06 * scale)
    assert high == pytest.approx(theirs.high, abs=0.06 * scale)


def test_interval_of_few_and_of_equal_people():
    assert np.isnan(bootstrap_interval(np.array([0.7]))).all()
    assert np.isnan(bootstrap_interval(np.array([0.7, np.nan]))).all()
    assert bootstrap_interval(np.full(4, 0.7)) == (0.7, 0.7)
