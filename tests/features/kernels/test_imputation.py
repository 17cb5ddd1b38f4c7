"""Missing features: nothing missing changes nothing; with classes better than means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize
from sklearn.impute import SimpleImputer
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

from eegtensor import EEGTensorError
from eegtensor.features.kernels import SupervisedKernelImputer
from eegtensor.features.kernels._kernellearning import (
    nearest_kernel,
    observed_kernel,
    onto_dual,
)


def gaussians(n, seed, d=6, k=2, apart=0.8):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    means = apart * np.random.default_rng(99).standard_normal((k, d))
    mix = np.random.default_rng(98).standard_normal((d, d)) / np.sqrt(d) + np.eye(d)
    return (means[y] + rng.standard_normal((n, d))) @ mix, y


def holes(X, share, seed):
    rng = np.random.default_rng(seed)
    gaps = rng.random(X.shape) < share
    # Every feature and trial keeps something.
    gaps[np.arange(len(X)), np.arange(len(X)) % X.shape[1]] = False
    return np.where(gaps, np.nan, X)


@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks():
    results = check_estimator(SupervisedKernelImputer(max_iter=5), on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert not failed and len(results) > 30, failed


def test_without_gaps_the_kernel_is_gaussian_and_the_machine_the_plain_one():
    X, y = gaussians(80, 0)
    imputer = SupervisedKernelImputer()
    np.testing.assert_array_equal(imputer.fit_transform(X, y), X)
    np.testing.assert_array_equal(imputer.transform(X), X)
    Z, gamma = imputer.filled_, 0.5 / imputer.width_**2
    K = np.exp(-gamma * ((Z[:, None] - Z) ** 2).sum(axis=2))
    np.testing.assert_allclose(imputer.kernel_, K, atol=1e-12)
    own = SVC(kernel="precomputed").fit(imputer.kernel_, y)
    plain = SVC(gamma=gamma).fit(Z, y)
    np.testing.assert_allclose(
        own.decision_function(K), plain.decision_function(Z), atol=1e-6
    )


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_two_gaussians_with_gaps_beat_mean_imputation(share):
    ours, means = [], []
    for seed in range(6):
        X, y = gaussians(80, seed)
        new, truth = gaussians(300, 50 + seed)
        gappy, new = holes(X, share, seed), holes(new, share, 7 + seed)
        imputer = SupervisedKernelImputer()
        filled = imputer.fit_transform(gappy, y)
        ours.append(SVC().fit(filled, y).score(imputer.transform(new), truth))
        plain = SimpleImputer().fit(gappy)
        model = SVC().fit(plain.transform(gappy), y)
        means.append(model.score(plain.transform(new), truth))
    assert np.mean(ours) >= np.mean(means), (np.mean(ours), np.mean(means))


def test_bounds_hold_whatever_the_missing_values_are():
    X = np.random.default_rng(0).random((12, 5))
    gappy = holes(X, 0.5, 1)
    K, low = observed_kernel(gappy, 0.7)
    true = np.exp(-((X[:, None] - X) ** 2).sum(axis=2) / (2 * 0.7**2))
    assert (true <= K + 1e-12).all() and (true >= K * low - 1e-12).all()
    full = ~np.isnan(gappy).any(axis=1)
    assert (low[np.ix_(full, full)] == 1.0).all() or not full.any()
    # The bound is reached: one trial's only missing feature at its far end.
    A = np.array([[0.2, np.nan], [0.2, 0.3]])
    assert observed_kernel(A, 1.0)[1][0, 1] == pytest.approx(np.exp(-0.5 * 0.49))


def test_the_kernel_stays_within_bounds_and_positive():
    X, y = gaussians(60, 0)
    gappy = holes(X, 0.4, 0)
    imputer = SupervisedKernelImputer(max_iter=30).fit(gappy, y)
    K = imputer.kernel_
    assert np.linalg.eigvalsh(K).min() > -1e-8
    np.testing.assert_allclose(np.diag(K), 1.0)
    same = np.isfinite(imputer.fit_transform(gappy, y)).all()
    kept = ~np.isnan(gappy)
    np.testing.assert_array_equal(imputer.fit_transform(gappy, y)[kept], gappy[kept])
    assert same


def test_classes_move_the_kernel_the_right_way():
    X, y = gaussians(60, 1)
    scaled = holes(X, 0.5, 0)
    imputer = SupervisedKernelImputer(max_iter=40, eta=0.01).fit(scaled, y)
    Z = (scaled - imputer.low_) / imputer.range_
    K = observed_kernel(Z, imputer.width_)[0]
    ratio = imputer.kernel_ / K
    same = y[:, None] == y
    np.fill_diagonal(same, False)
    away = y[:, None] != y
    assert ratio[same].mean() > ratio[away].mean() + 0.3


def test_pieces():
    rng = np.random.default_rng(0)
    a, t = rng.standard_normal((2, 9)), rng.choice([-1.0, 1.0], (2, 9))
    t[:, :2] = 1, -1
    found = onto_dual(a, t, 0.7)
    np.testing.assert_allclose((found * t).sum(axis=1), 0, atol=1e-12)
    for k in range(2):
        best = minimize(
            lambda v, k=k: ((v - a[k]) ** 2).sum(),
            np.full(9, 0.1),
            bounds=[(0, 0.7)] * 9,
            constraints={"type": "eq", "fun": lambda v, k=k: v @ t[k]},
        )
        np.testing.assert_allclose(found[k], best.x, atol=1e-4)
    K = nearest_kernel(np.array([[1.0, 0.9, 0.1], [0.9, 1, 0.9], [0.1, 0.9, 1]]))
    assert np.linalg.eigvalsh(K).min() > -1e-9


def test_values_descend_their_own_gradient(monkeypatch):
    import eegtensor.features.kernels.imputation as module

    seen = {}

    def spy(loss, start, **options):
        seen["error"] = check_grad(
            lambda v: loss(v)[0], lambda v: loss(v)[1], start
        ) / np.linalg.norm(loss(start)[1])
        return minimize(loss, start, **options)

    monkeypatch.setattr(module, "minimize", spy)
    X, _ = gaussians(40, 2)
    Z = (X - X.min(axis=0)) / np.ptp(X, axis=0)
    K = np.exp(-((Z[:, None] - Z) ** 2).sum(axis=2) / 2)
    filled = module.values_from_kernel(holes(Z, 0.2, 0), K, 1.0)
    assert seen["error"] < 1e-4
    # From the true kernel come the true values.
    np.testing.assert_allclose(filled, Z, atol=2e-3)


def test_unit_and_refusals():
    X, y = gaussians(40, 0)
    gappy = holes(X, 0.3, 0)
    imputer = SupervisedKernelImputer(max_iter=10)
    one = imputer.fit_transform(gappy, y)
    np.testing.assert_allclose(
        1e6 * imputer.fit_transform(1e-6 * gappy, y), one, rtol=1e-5, atol=1e-5
    )
    gappy[:, 0] = np.nan
    with pytest.raises(EEGTensorError, match="no value"):
        imputer.fit(gappy, y)
    with pytest.raises(EEGTensorError, match="trials"):
        SupervisedKernelImputer(max_trials=10).fit(X, y)
