"""Asymmetric least squares: the symmetric limit, the published system, directions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from eegtensor import EEGTensorError
from eegtensor.features.kernels import (
    AsymmetricKernelClassifier,
    divergence,
    neighbour_kernel,
)
from eegtensor.features.kernels._asymmetric import solve_asymmetric
from eegtensor.geometry import random_spd


def drawn(n=60, d=6, k=2, seed=0, apart=1.2):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return apart * rng.standard_normal((k, d))[y] + rng.standard_normal((n, d)), y


@pytest.mark.parametrize("combine", ["sum", "stack"])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(combine):
    estimator = AsymmetricKernelClassifier(combine=combine)
    if combine == "stack":
        # scikit-learn draws a class of one trial; stacking says what it lacks.
        expected = {
            "check_classifiers_regression_target": "needs two trials a class",
        }
    else:
        expected = {}
    results = check_estimator(estimator, on_fail=None, expected_failed_checks=expected)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert not failed and len(results) > 30, failed


def test_a_symmetric_kernel_gives_the_least_squares_machine():
    X, y = drawn()
    model = AsymmetricKernelClassifier("rbf", C=3.0).fit(X, y)
    s = model.solution_
    np.testing.assert_allclose(s.source, s.target, atol=1e-10)
    np.testing.assert_allclose(s.source_bias, s.target_bias, atol=1e-10)
    # Suykens' system with labels inside, as in the books.
    t = np.where(y == 1, 1.0, -1.0)
    K = np.exp(-model.gamma_ * ((X[:, None] - X) ** 2).sum(axis=2))
    n = len(y)
    system = np.zeros((n + 1, n + 1))
    system[0, 1:] = system[1:, 0] = t
    system[1:, 1:] = t[:, None] * t * K + np.eye(n) / 3.0
    found = np.linalg.solve(system, np.r_[0.0, np.ones(n)])
    np.testing.assert_allclose(s.source[:, 0], found[1:] * t, atol=6e-12)
    np.testing.assert_allclose(s.source_bias[0], found[0], atol=6e-12)
    decision = K @ (found[1:] * t) + found[0]
    np.testing.assert_allclose(model.decision_function(X), decision, atol=1e-10)


def test_an_asymmetric_kernel_solves_the_published_system():
    rng = np.random.default_rng(1)
    n, gamma = 20, 2.0
    K, y = rng.random((n, n)) + np.eye(n), np.where(np.arange(n) % 2, 1.0, -1.0)
    H, zero, eye = y[:, None] * y * K, np.zeros(n), np.eye(n) / gamma
    M = np.vstack(
        [
            np.r_[0, 0, y, zero],
            np.r_[0, 0, zero, y],
            np.c_[y, zero, eye, H],
            np.c_[zero, y, H.T, eye],
        ]
    )
    found = np.linalg.solve(M, np.r_[0, 0, np.ones(2 * n)])
    s = solve_asymmetric(K, y[:, None], gamma=gamma)
    np.testing.assert_allclose(s.source_bias, found[:1], atol=1e-10)
    np.testing.assert_allclose(s.target_bias, found[1:2], atol=1e-10)
    np.testing.assert_allclose(s.target[:, 0], found[2 : 2 + n] * y, atol=1e-10)
    np.testing.assert_allclose(s.source[:, 0], found[2 + n :] * y, atol=1e-10)
    assert np.abs(s.source - s.target).max() > 1e-2


def test_a_singular_system_is_solved_by_its_normal_equations():
    # K = -1 with gamma 1 and two trials: a + K b has no inverse.
    K = np.array([[0.0, 1.0], [1.0, 0.0]]) - 2.0
    s = solve_asymmetric(K, np.array([[1.0], [-1.0]]), gamma=1.0)
    assert np.isfinite(s.source).all() and np.isfinite(s.target).all()


def scores_of_directions(drawn_kernel, C):
    """Accuracy by the source function, by both, and with directions exchanged."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        n, m = 60, 200
        y = np.arange(n + m) % 2
        K = drawn_kernel(rng, y)
        train, test = np.arange(n), np.arange(n, n + m)
        model = AsymmetricKernelClassifier("precomputed", C=C)
        model.fit(K[np.ix_(train, train)], y[train])
        to, back = K[np.ix_(test, train)], K[np.ix_(train, test)].T
        given = (to, np.hstack([to, back]), np.hstack([back, to]))
        found.append([(model.predict(g) == y[test]).mean() for g in given])
    return np.mean(found, axis=0)


def test_both_directions_tell_more_than_one():
    """What a trial sends and what it gets are two noisy views of its class."""

    def views(rng, y):
        return rng.standard_normal((len(y), len(y))) + 0.25 * (y[:, None] == y)

    source, both, _ = scores_of_directions(views, 0.01)
    assert both > source + 0.05, (source, both)

    def sends(rng, y):
        way = rng.choice([-1, 1], len(y))
        noise = rng.standard_normal((len(y), len(y)))
        return 0.5 * noise + 0.3 * np.outer(2 * y - 1, way)

    source, both, exchanged = scores_of_directions(sends, 0.1)
    assert source > 0.95 and both > 0.85 and exchanged < 0.6


@pytest.mark.parametrize("kernel", ["sne", "t-sne", "rbf"])
@pytest.mark.parametrize("combine", ["sum", "stack"])
@pytest.mark.parametrize("k", [2, 3])
def test_units_and_classes(kernel, combine, k):
    X, y = drawn(90, k=k)
    names = np.array(["left", "right", "rest"])[y]
    model = AsymmetricKernelClassifier(kernel, combine=combine).fit(X, names)
    assert model.score(X, names) > 0.85
    tiny = clone(model).fit(1e-6 * X, names)
    f = model.decision_function(X)
    assert f.shape == ((90,) if k == 2 else (90, 3))
    np.testing.assert_allclose(tiny.decision_function(1e-6 * X), f, rtol=1e-6)


def test_divergence_and_its_kernel():
    A = random_spd(4, 12, random_state=0)
    D = divergence(A, A)
    inverse = np.linalg.inv(A[3])
    by_hand = 0.5 * (
        np.trace(inverse @ A[2]) - np.linalg.slogdet(inverse @ A[2])[1] - 4
    )
    np.testing.assert_allclose(D[2, 3], by_hand, rtol=1e-10)
    np.testing.assert_allclose(np.diag(D), 0, atol=1e-9)
    assert np.abs(D - D.T).max() > 0.1
    A = random_spd(4, 40, condition=3.0, random_state=0)
    y = np.arange(40) % 2
    A[y == 1] *= 4.0
    model = AsymmetricKernelClassifier("kl").fit(A, y)
    assert model.score(A, y) == 1.0
    micro = AsymmetricKernelClassifier("kl").fit(1e12 * A, y)
    np.testing.assert_allclose(
        micro.decision_function(1e12 * A), model.decision_function(A), rtol=1e-6
    )


def test_rows_of_the_neighbour_kernel_average_one():
    X, _ = drawn(30)
    K = neighbour_kernel(X, X, X, gamma=0.2)
    np.testing.assert_allclose(K.mean(axis=1), 1.0)
    far = neighbour_kernel(X[:1] + 1e3, X, X, gamma=1.0)
    np.testing.assert_allclose(far.mean(), 1.0)


def test_what_does_not_fit_is_refused():
    X, y = drawn()
    with pytest.raises(EEGTensorError, match="kernel"):
        AsymmetricKernelClassifier("tl1").fit(X, y)
    with pytest.raises(EEGTensorError, match="one class"):
        AsymmetricKernelClassifier().fit(X, np.zeros(len(X)))
    model = AsymmetricKernelClassifier("precomputed").fit(X @ X.T, y)
    with pytest.raises(EEGTensorError, match="side by side"):
        model.predict(X)
