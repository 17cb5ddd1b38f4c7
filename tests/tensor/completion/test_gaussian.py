"""The conditional Gaussian equals the formula, column by column."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.tensor.completion import gaussian_fit, gaussian_mean
from eegtensor.tensor.completion.gaussian import RIDGE


def correlated(rng: np.random.Generator, n: int, n_times: int) -> np.ndarray:
    return rng.standard_normal((n, n)) @ rng.standard_normal((n, n_times))


def test_mean_and_variance_are_the_formula(rng: np.random.Generator) -> None:
    n, n_times = 6, 50
    x = correlated(rng, n, n_times)
    seen = rng.random((n, n_times)) > 0.4
    seen[:, :5] = [[True], [False], [True], [True], [False], [True]]
    seen[:, 7] = False
    S = np.cov(correlated(rng, n, 100))
    found = gaussian_mean(np.where(seen, x, np.nan), seen, S)
    ridge = RIDGE * np.trace(S) / n
    for t in range(n_times):
        o, m = seen[:, t], ~seen[:, t]
        inverse = np.linalg.inv(S[np.ix_(o, o)] + ridge * np.eye(o.sum()))
        gain = S[np.ix_(m, o)] @ inverse
        np.testing.assert_allclose(found.X[m, t], gain @ x[o, t], atol=1e-9)
        spread = S[np.ix_(m, m)] - gain @ S[np.ix_(o, m)]
        np.testing.assert_allclose(found.variance[m, t], np.diag(spread), atol=1e-9)
    assert (found.X[seen] == x[seen]).all()
    assert (found.variance[seen] == 0).all()


def test_covariance_is_a_fixed_point_of_the_likelihood(
    rng: np.random.Generator,
) -> None:
    x = correlated(rng, 5, 4000)
    seen = rng.random(x.shape) > 0.3
    found = gaussian_fit(x, seen, max_iter=60, tol=1e-7).covariance
    truth = x @ x.T / x.shape[1]
    assert np.linalg.norm(found - truth) < 0.05 * np.linalg.norm(truth)
    full = gaussian_fit(x, np.ones_like(seen)).covariance
    np.testing.assert_allclose(full, truth, atol=1e-9 * np.trace(truth))


def test_average_reference(rng: np.random.Generator) -> None:
    x = correlated(rng, 8, 600)
    x -= x.mean(axis=0)
    seen = np.ones(x.shape, bool)
    seen[3, 100:200] = False
    found = gaussian_mean(x, seen, gaussian_fit(x, seen).covariance).X
    assert np.linalg.norm((found - x)[~seen]) < 0.1 * np.linalg.norm(x[~seen])


@pytest.mark.parametrize("unit", [1e-6, 1e3])
def test_units_do_not_matter(rng: np.random.Generator, unit: float) -> None:
    x = correlated(rng, 5, 300)
    seen = rng.random(x.shape) > 0.2
    one = gaussian_mean(x, seen, gaussian_fit(x, seen).covariance)
    two = gaussian_mean(unit * x, seen, gaussian_fit(unit * x, seen).covariance)
    np.testing.assert_allclose(two.X, unit * one.X, rtol=1e-7, atol=1e-9 * unit)


def test_shapes_are_checked() -> None:
    with pytest.raises(EEGTensorError, match="n_channels, n_columns"):
        gaussian_fit(np.zeros((3, 4)), np.ones((4, 3), bool))


def test_operators_are_made_a_few_patterns_at_a_time(rng) -> None:
    import torch

    from eegtensor.tensor.completion._columns import complete_columns, patterns

    n, n_columns = 6, 300
    seen = torch.from_numpy(rng.random((n, n_columns)) < 0.6)
    seen[:, 100:200] = seen[:, :1]
    values = torch.from_numpy(rng.standard_normal((n, n_columns))) * seen
    # Each pattern's own operator: the one of its column, whatever the order.
    weights = torch.from_numpy(rng.standard_normal((n, n, n)))
    asked = []

    def operators(some: torch.Tensor) -> torch.Tensor:
        asked.append(len(some))
        return torch.einsum("kc,cij->kij", some.double(), weights)

    found = complete_columns(operators, values, patterns(seen), cells=4 * n * n)
    expected = torch.einsum("ct,cij,jt->it", seen.double(), weights, values)
    torch.testing.assert_close(found, expected)
    assert max(asked) <= 4 < sum(asked)


def test_covariance_of_more_patterns_than_are_worked_on_at_a_time(
    rng, monkeypatch
) -> None:
    from functools import partial

    from eegtensor.tensor.completion import _columns, gaussian

    X = rng.standard_normal((5, 5)) @ rng.standard_normal((5, 200))
    seen = rng.random(X.shape) < 0.7
    # Patterns that are common count for more than others.
    seen[:, 60:] = seen[:, :1]
    whole = gaussian_fit(X, seen, max_iter=5).covariance
    few = partial(_columns.complete_columns, cells=3 * 25)
    monkeypatch.setattr(gaussian, "complete_columns", few)
    np.testing.assert_allclose(
        gaussian_fit(X, seen, max_iter=5).covariance, whole, rtol=1e-9
    )
