"""Experts of one person: ridge regressions that never learn a trial from itself."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor.auto.experts import learn, new_trials, own_trials, remember


@pytest.fixture
def person():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 12)) + 3.0
    features[:20, 0] += 2.0
    return features, rng.dirichlet([1.0, 1.0, 1.0], 40)


def ridge(features, told, penalty):
    """By hand: weights of centred features, and the intercept."""
    center, mean = features.mean(axis=0), told.mean(axis=0)
    X = features - center
    gram = X.T @ X + penalty * np.eye(X.shape[1])
    weights = np.linalg.solve(gram, X.T @ (told - mean))
    return lambda x: (x - center) @ weights + mean


def test_trials_are_left_out_as_by_fitting_without_each(person) -> None:
    features, p = person
    memory = remember(features)
    lesson = learn(memory, p)
    X = memory.features
    penalty = (X**2).sum() / len(X)
    told = p - p.mean(axis=0)
    wanted = np.stack(
        [
            ridge(np.delete(X, i, 0), np.delete(told, i, 0), penalty)(X[i])
            for i in range(len(X))
        ]
    )
    size = np.abs(wanted - wanted.mean(axis=1, keepdims=True)).mean()
    np.testing.assert_allclose(own_trials(memory, lesson), wanted / size, atol=1e-12)
    # A trial that comes again is known again.
    np.testing.assert_allclose(
        new_trials(memory, lesson, features[5:9]), wanted[5:9] / size, atol=1e-12
    )


def test_new_trials_are_decoded_by_all_that_is_remembered(person) -> None:
    features, p = person
    memory = remember(features)
    lesson = learn(memory, p)
    new = np.random.default_rng(1).standard_normal((5, 12))
    X = memory.features
    by_hand = ridge(X, p - p.mean(axis=0), (X**2).sum() / len(X))
    wanted = by_hand((new - memory.center) / memory.scale) / lesson.size
    np.testing.assert_allclose(new_trials(memory, lesson, new), wanted, atol=1e-12)


def test_a_person_learns_nothing_from_what_is_told_of_one_trial(person) -> None:
    """What is said of a trial does not move with what was told of it."""
    features, p = person
    memory = remember(features)
    other = p.copy()
    other[3] = [1.0, 0.0, 0.0]
    said = own_trials(memory, learn(memory, p)) * learn(memory, p).size
    again = own_trials(memory, learn(memory, other)) * learn(memory, other).size
    # Up to the mean of all that is told, which both are measured from.
    moved = (said + p.mean(axis=0)) - (again + other.mean(axis=0))
    assert np.abs(moved[3]).max() < 1e-12 < np.abs(moved[4]).max()


def test_scale_and_shift_do_not_matter_and_many_trials_are_thinned(person) -> None:
    features, p = person
    one = remember(features)
    two = remember(1e6 * features - 40.0)
    np.testing.assert_allclose(
        own_trials(one, learn(one, p)), own_trials(two, learn(two, p)), atol=1e-9
    )
    rng = np.random.default_rng(2)
    many = remember(rng.standard_normal((2500, 3)))
    assert len(many.rows) == 2000 and many.rows[[0, -1]].tolist() == [0, 2499]
    assert many.hat.shape == (2000, 2000)


def test_a_person_whose_trials_are_all_alike_gives_numbers(person) -> None:
    _, p = person
    memory = remember(np.ones((40, 12)))
    assert np.isfinite(own_trials(memory, learn(memory, p))).all()
