"""Local bandwidths: limits, interpolation, and a curve of changing frequency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.utils.estimator_checks import check_estimator

from eegtensor import EEGTensorError
from eegtensor.features.kernels import (
    LocalBandwidthClassifier,
    LocalBandwidthRegressor,
)
from eegtensor.features.kernels._bandwidths import local_kernel, support_weights


def drawn(n=60, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, d))
    X[:2] = [[-1], [1]]
    return X, np.sin(2 * X).sum(axis=1) + 0.1 * rng.standard_normal(n)


@pytest.mark.parametrize(
    "estimator",
    [
        LocalBandwidthRegressor(20, steps=2, last_steps=5),
        LocalBandwidthClassifier(100, steps=0, last_steps=5),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(estimator):
    results = check_estimator(estimator, on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert not failed and len(results) > 30, failed


def test_constant_bandwidths_are_kernel_ridge_regression():
    X, y = drawn()
    model = LocalBandwidthRegressor(60, ridge=0.3, steps=0, last_steps=0).fit(X, y)
    assert sorted(model.support_) == list(range(60))
    # Scaled to [-1, 1] the bandwidth is theta^2 = 30 / 3.
    plain = KernelRidge(alpha=0.3, kernel="rbf", gamma=10.0)
    plain.fit((X - model.middle_) / model.half_range_, y - y.mean())
    new, _ = drawn(40, seed=1)
    want = plain.predict((new - model.middle_) / model.half_range_) + y.mean()
    np.testing.assert_allclose(model.predict(new), want, atol=1e-6)


@pytest.mark.parametrize("form", ["gaussian", "laplacian"])
def test_supports_are_interpolated_without_ridge(form):
    X, y = drawn(30)
    errors = []
    for ridge in (1e-1, 1e-3, 1e-6, 0.0):
        model = LocalBandwidthRegressor(
            10, ridge=ridge, form=form, start=90.0, steps=10, last_steps=10
        ).fit(X, y)
        s = model.support_
        errors.append(np.abs(model.predict(X[s]) - y[s]).max())
    assert errors[0] > errors[1] > errors[2] and errors[3] < 1e-8, errors


def test_the_kernel_is_its_formula_and_not_symmetric():
    g = torch.Generator().manual_seed(0)
    A, theta = (torch.randn(6, 3, generator=g, dtype=torch.float64) for _ in range(2))
    for form, p in (("gaussian", 2), ("laplacian", 1)):
        K = local_kernel(A, A, theta, form=form)
        d = (theta * (A[:, None] - A)).norm(dim=2)
        torch.testing.assert_close(K, torch.exp(-(d**p)), rtol=1e-9, atol=1e-7)
        assert (K - K.mT).abs().max() > 0.05


@pytest.mark.parametrize("form", ["gaussian", "laplacian"])
def test_gradients_through_the_solution(form):
    g = torch.Generator().manual_seed(0)
    S, A = (torch.randn(4, 2, generator=g, dtype=torch.float64) for _ in range(2))
    T = torch.randn(4, 1, generator=g, dtype=torch.float64)
    theta = torch.rand(4, 2, generator=g, dtype=torch.float64) + 0.5

    def f(theta):
        alpha = support_weights(S, T, theta, ridge=0.1, form=form)
        return local_kernel(A, S, theta, form=form) @ alpha

    assert torch.autograd.gradcheck(f, (theta.requires_grad_(True),))


def test_a_curve_that_speeds_up_asks_for_local_bandwidths():
    """sin(2 x^3), the paper's: slow at 0, fast at the ends."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (300, 1))
    y = np.sin(2 * x[:, 0] ** 3)
    new = np.linspace(-2, 2, 400)[:, None]
    truth = np.sin(2 * new[:, 0] ** 3)
    model = LocalBandwidthRegressor(
        30, ridge=1e-3, steps=150, last_steps=800, random_state=0
    ).fit(x, y)
    error = np.sqrt(np.mean((model.predict(new) - truth) ** 2))
    s = model.support_
    plain = [
        np.sqrt(
            np.mean(
                (
                    KernelRidge(alpha=1e-3, kernel="rbf", gamma=gamma)
                    .fit(x[s], y[s])
                    .predict(new)
                    - truth
                )
                ** 2
            )
        )
        for gamma in np.logspace(-1, 3, 25)
    ]
    # The best bandwidth of all, chosen on the truth.
    assert error < 0.7 * min(plain), (error, min(plain))


@pytest.mark.parametrize("k", [2, 3])
def test_classes_and_units(k):
    rng = np.random.default_rng(0)
    y = np.arange(90) % k
    X = 2.0 * rng.standard_normal((k, 4))[y] + rng.standard_normal((90, 4))
    names = np.array(["left", "right", "rest"])[y]
    model = LocalBandwidthClassifier(20, steps=20, last_steps=50).fit(X, names)
    assert model.score(X, names) > 0.85
    tiny = LocalBandwidthClassifier(20, steps=20, last_steps=50).fit(1e-6 * X, names)
    np.testing.assert_allclose(
        tiny.decision_function(1e-6 * X), model.decision_function(X), rtol=1e-5
    )
    big = LocalBandwidthRegressor(20, steps=20, last_steps=20)
    one = big.fit(X, X[:, 0]).predict(X)
    thousand = big.fit(X, 1e3 * X[:, 0]).predict(X)
    np.testing.assert_allclose(thousand, 1e3 * one, rtol=1e-5, atol=1e-5)


def test_same_seed_same_result_and_refusals():
    X, y = drawn()
    model = LocalBandwidthRegressor(20, steps=10, last_steps=10)
    once = model.fit(X, y).predict(X)
    np.testing.assert_array_equal(model.fit(X, y).predict(X), once)
    other = model.set_params(random_state=1).fit(X, y).predict(X)
    assert np.abs(other - once).max() > 1e-6
    with pytest.raises(EEGTensorError, match="ridge"):
        LocalBandwidthRegressor(ridge=-1.0).fit(X, y)
    with pytest.raises(EEGTensorError, match="form"):
        LocalBandwidthRegressor(form="tl1").fit(X, y)
