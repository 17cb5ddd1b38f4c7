"""Covariance estimators, with scikit-learn as referee."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.covariance

from eegtensor import geometry


@pytest.mark.parametrize(
    ("name", "peer"),
    [("oas", sklearn.covariance.oas), ("lwf", sklearn.covariance.ledoit_wolf)],
)
@pytest.mark.parametrize("n_times", [10, 300])
def test_shrinkage_equals_scikit_learn(
    rng: np.random.Generator, name: str, peer: object, n_times: int
) -> None:
    X = 1e-5 * rng.standard_normal((4, 12, n_times)) + 1e-4
    C = geometry.covariances(X, estimator=name)
    for trial, ours in zip(X, C, strict=True):
        np.testing.assert_allclose(ours, peer(trial.T)[0], rtol=1e-9, atol=1e-22)


def test_scm_and_constant_trials(rng: np.random.Generator) -> None:
    X = rng.standard_normal((2, 3, 50))
    C = geometry.covariances(X, estimator="scm")
    np.testing.assert_allclose(C[1], np.cov(X[1], bias=True))
    for name in ("oas", "lwf", "scm"):
        zero = geometry.covariances(np.ones((1, 3, 50)), estimator=name)
        np.testing.assert_array_equal(zero, 0)


def test_rank(rng: np.random.Generator) -> None:
    X = rng.standard_normal((1, 8, 200)) * 1e-6
    referenced = X - X.mean(axis=1, keepdims=True)
    C = np.concatenate(
        [geometry.covariances(x, estimator="scm") for x in (X, referenced, X[..., :5])]
    )
    assert geometry.rank(C).tolist() == [8, 7, 4]
