"""ERP and Xdawn covariances: against pyriemann, and where they must refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pyriemann import estimation
from sklearn.base import clone

from eegtensor import EEGTensorError
from eegtensor.features.erp import ERPCovariances, XdawnCovariances
from eegtensor.transfer.mdm import MDM


def simulate(rng, n_trials):
    """A response of 4 microvolts in one trial of four, 6 channels."""
    y = np.where(np.arange(n_trials) % 4 == 0, "Target", "NonTarget")
    X = 5e-6 * rng.standard_normal((n_trials, 6, 100))
    wave = 4e-6 * np.exp(-(((np.arange(100) - 40) / 8) ** 2))
    X[y == "Target"] += np.array([1, 0.8, 0.5, 0.2, 0, -0.3])[:, np.newaxis] * wave
    return X, y


@pytest.fixture
def erps(rng):
    return simulate(rng, 80)


@pytest.mark.parametrize("estimator", ["oas", "lwf", "scm"])
@pytest.mark.parametrize("options", [{}, {"svd": 2}, {"classes": ("Target",)}])
def test_erp_covariances_equal_pyriemann(erps, estimator, options):
    X, y = erps
    ours = ERPCovariances(estimator=estimator, **options).fit_transform(X, y)
    theirs = estimation.ERPCovariances(estimator=estimator, **options)
    assert_allclose(ours, theirs.fit_transform(X, y), rtol=1e-9, atol=1e-22)


@pytest.mark.parametrize("estimator", ["oas", "lwf", "scm"])
@pytest.mark.parametrize(
    "options",
    [{"nfilter": 2}, {"nfilter": 3, "applyfilters": False}, {"xdawn_estimator": "oas"}],
)
def test_xdawn_covariances_equal_pyriemann(erps, estimator, options):
    X, y = erps
    options = {"classes": ("Target",), **options}
    ours = XdawnCovariances(estimator=estimator, **options).fit(X, y)
    theirs = estimation.XdawnCovariances(estimator=estimator, **options).fit(X, y)
    assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-9, atol=1e-16)
    assert ours.filters_.shape == (options.get("nfilter", 4), 6)


def test_float32_and_pieces_change_nothing(erps):
    X, y = erps
    model = ERPCovariances().fit(X, y)
    many = np.tile(X, (60, 1, 1))
    assert_allclose(model.transform(many)[-80:], model.transform(X), rtol=1e-12)
    single = model.transform(X.astype(np.float32))
    assert single.dtype == np.float64
    assert_allclose(single, model.transform(X), rtol=1e-4, atol=1e-16)


def test_weights_are_repetitions(erps, rng):
    X, y = erps
    weights = rng.integers(1, 4, len(X))
    weighted = ERPCovariances().fit(X, y, sample_weight=weights)
    repeated = ERPCovariances().fit(X.repeat(weights, 0), y.repeat(weights))
    assert_allclose(weighted.templates_, repeated.templates_, atol=1e-18)


@pytest.mark.parametrize("model", [ERPCovariances(), XdawnCovariances(2)])
def test_decodes_held_out_trials(rng, model):
    X, y = simulate(rng, 600)
    train = np.arange(600) % 8 < 4
    C = clone(model).fit(X[train], y[train])
    decoder = MDM().fit(C.transform(X[train]), y[train])
    predicted = decoder.predict(C.transform(X[~train]))
    recalls = [np.mean(predicted[y[~train] == k] == k) for k in decoder.classes_]
    assert np.mean(recalls) > 0.8


@pytest.mark.parametrize("model", [ERPCovariances(), XdawnCovariances(2)])
def test_protocol(erps, tmp_path, model):
    X, y = erps
    people = np.repeat("ann", len(X))
    C = clone(model).fit_transform(X, y, subjects=people, sessions=people)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    fitted = clone(model).fit(mapped, list(y))
    assert fitted.get_params() == model.get_params()
    assert_array_equal(fitted.transform(mapped), C)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert_array_equal(other.transform(X), C)


def test_errors_say_what_to_do(erps):
    X, y = erps
    with pytest.raises(EEGTensorError, match="XdawnCovariances needs class labels"):
        XdawnCovariances().fit(X)
    with pytest.raises(EEGTensorError, match="'P300' have no trial; y holds"):
        ERPCovariances(classes=("P300",)).fit(X, y)
    with pytest.raises(EEGTensorError, match="nfilter=4 for 2 classes makes 8 filters"):
        XdawnCovariances(estimator="scm").fit(X, y)
    with pytest.raises(EEGTensorError, match="the same window"):
        ERPCovariances().fit(X, y).transform(X[..., :50])
    with pytest.raises(EEGTensorError, match="estimator='cov'"):
        ERPCovariances(estimator="cov").fit(X, y)
    with pytest.raises(EEGTensorError, match="weigh nothing"):
        ERPCovariances().fit(X, y, sample_weight=y == "Target")


def test_an_average_reference_is_named(erps):
    X, y = erps
    X = X - X.mean(axis=1, keepdims=True)
    with pytest.raises(EEGTensorError, match="rank 5 of 6 channels"):
        XdawnCovariances(2).fit(X, y)
    C = XdawnCovariances(2, xdawn_estimator="oas").fit_transform(X, y)
    assert np.linalg.eigvalsh(C).min() > 0
    with pytest.raises(EEGTensorError, match="rank deficient"):
        ERPCovariances(estimator="scm").fit(X, y).transform(X)
