"""Weights of candidates from people held out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.metrics import balanced_accuracy_score, log_loss

from eegtensor.auto.stacking import HeldOut, folds_of, mixed


@pytest.fixture
def held_out():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 150)
    owner = np.repeat(["a", "b", "c"], [80, 40, 30])
    truth = np.eye(3)[codes]
    noise = rng.standard_normal((4, 150, 3))
    good = log_softmax(2.0 * truth + noise[0], axis=1)
    other = log_softmax(1.5 * truth + noise[1], axis=1)
    chance = log_softmax(noise[2], axis=1)
    return codes, owner, np.stack([good, other, chance])


def test_scores_of_people_are_scikit_learns(held_out) -> None:
    codes, owner, columns = held_out
    held = HeldOut(codes, owner)
    for i, person in enumerate("abc"):
        rows = owner == person
        guess = columns[0, rows].argmax(axis=1)
        assert held.accuracy(columns[0])[i] == pytest.approx(
            balanced_accuracy_score(codes[rows], guess)
        )
        per_class = [
            log_loss(codes[rows & (codes == k)], np.exp(c), labels=[0, 1, 2])
            for k in range(3)
            for c in [columns[0, rows & (codes == k)]]
        ]
        assert held.losses(columns[0])[i] == pytest.approx(np.mean(per_class))
    assert held.weights.sum() == pytest.approx(1.0)


def test_a_person_who_lacks_a_class_counts_as_much(held_out) -> None:
    codes, owner, columns = held_out
    keep = ~((owner == "c") & (codes == 2))
    held = HeldOut(codes[keep], owner[keep])
    rows = owner[keep] == "c"
    assert held.weights[rows].sum() == pytest.approx(1 / 3)
    assert held.accuracy(columns[0, keep])[2] == pytest.approx(
        balanced_accuracy_score(codes[keep][rows], columns[0, keep][rows].argmax(1))
    )


def test_weights_are_the_best_non_negative_ones(held_out) -> None:
    codes, owner, columns = held_out
    held = HeldOut(codes, owner)
    start = np.full(3, 1 / 3)
    weights = held.weigh(columns, start)

    def loss(b):
        penalty = 0.1 / 3 * ((b - start) ** 2).sum()
        return held.losses(mixed(b, columns)).mean() + penalty

    # Another solver, without our gradient.
    free = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-7})
    found = minimize(
        loss, np.abs(free.x), method="SLSQP", bounds=[(0, None)] * 3, tol=1e-12
    )
    np.testing.assert_allclose(weights, found.x, atol=1e-3)
    assert loss(weights) <= found.fun + 1e-9
    assert weights[0] > weights[1] > weights[2] >= 0
    # Rows that do not count do not matter.
    rows = owner != "b"
    spoiled = columns.copy()
    spoiled[:, ~rows] = np.log(1 / 3)
    np.testing.assert_array_equal(
        held.weigh(columns, start, rows), held.weigh(spoiled, start, rows)
    )


def test_what_is_always_wrong_counts_for_nothing(held_out) -> None:
    """And not for its opposite, which few people would be the witnesses of."""
    codes, owner, columns = held_out
    wrong = log_softmax(-columns[1], axis=1)
    weights = HeldOut(codes, owner).weigh(
        np.stack([columns[0], wrong]), np.full(2, 0.5)
    )
    assert weights[1] == 0.0 < weights[0]


def test_temperature_mends_what_is_too_sure_of_itself(held_out) -> None:
    codes, owner, columns = held_out
    held = HeldOut(codes, owner)
    factor = held.temperature(columns[0])
    assert held.temperature(10 * columns[0]) == pytest.approx(factor / 10, rel=1e-3)
    for wrong in (0.8, 1.25):
        worse = held.losses(log_softmax(wrong * factor * columns[0], axis=1)).mean()
        best = held.losses(log_softmax(factor * columns[0], axis=1)).mean()
        assert best < worse


def test_better_means_by_more_than_chance(held_out) -> None:
    codes, owner, _ = held_out
    held = HeldOut(codes, owner)
    old = np.array([1.0, 1.0, 1.0])
    assert held.clearly_better(old - [0.1, 0.2, 0.1], old)
    assert not held.clearly_better(old - [0.5, -0.3, 0.05], old)
    assert not held.clearly_better(old[:1] - 0.5, old[:1])


def test_folds_leave_out_people_then_sessions_then_trials() -> None:
    y = np.tile([0, 1], 12)
    X = np.zeros((24, 1))
    people = np.repeat(["1", "2", "3"], 8)
    sittings = np.tile(np.repeat(["a", "b"], 4), 3)
    for _, test in folds_of(5, X, y, {"subjects": people, "sessions": sittings}):
        assert len(set(people[test])) == 1 and len(test) == 8
    one = np.full(24, "1")
    for _, test in folds_of(5, X, y, {"subjects": one, "sessions": sittings}):
        assert len(set(sittings[test])) == 1 and len(test) == 12
    folds = folds_of(5, X, y, {"subjects": one, "sessions": one})
    assert len(folds) == 5 and sorted(np.concatenate([t for _, t in folds])) == list(
        range(24)
    )
