"""Membership inference on scores whose separation is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from eegtensor import EEGTensorError
from eegtensor.lifelong import confidences, membership_inference


def test_confidence_is_the_log_odds_with_all_digits() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [1.0, 1e-30, 1e-31]])
    found = confidences(p, [0, 1, 0])
    wanted = [np.log(9.0), np.log(0.3 / 0.7), -np.log(1.1e-30)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_auc_is_that_of_two_gaussians(rng, calibrated) -> None:
    a, b = rng.standard_normal(4000) + 0.5, rng.standard_normal(4000)
    classes = {}
    if calibrated:
        classes = {"member_classes": np.arange(4000) % 2}
        classes["other_classes"] = classes["member_classes"]
        # An easy class says nothing of membership.
        a, b = (v + 50.0 * (np.arange(4000) % 2) for v in (a, b))
    found = membership_inference(a, b, **classes)
    exact = norm.cdf(0.5 / np.sqrt(2.0))
    assert found.auc == pytest.approx(exact, abs=0.015)
    assert found.low < exact < found.high
    assert (found.n_members, found.n_others) == (4000, 4000)


def test_a_threshold_without_classes_is_blind_where_classes_differ(rng) -> None:
    y = np.arange(4000) % 2
    a, b = (rng.standard_normal(4000) + 50.0 * y + m for m in (0.5, 0.0))
    assert abs(membership_inference(a, b).auc - 0.5) < 0.1
    both = membership_inference(a, b, member_classes=y, other_classes=y)
    assert both.auc > 0.6


def test_nothing_is_learned_where_there_is_nothing(rng) -> None:
    found = [
        membership_inference(
            rng.standard_normal(30),
            rng.standard_normal(20),
            member_classes=rng.integers(2, size=30),
            other_classes=rng.integers(2, size=20),
        )
        for _ in range(200)
    ]
    assert np.mean([m.auc for m in found]) == pytest.approx(0.5, abs=0.02)
    # The intervals hold what they say.
    assert np.mean([m.low < 0.5 < m.high for m in found]) > 0.9


def test_too_few_trials_are_refused() -> None:
    with pytest.raises(EEGTensorError, match="1 members and 3 others"):
        membership_inference([1.0], [1.0, 2.0, 3.0])
