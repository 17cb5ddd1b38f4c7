"""Laws that every public estimator keeps, whatever it computes."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import (
    BaseEstimator,
    RegressorMixin,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.exceptions import NotFittedError

import eegtensor.features as features
import eegtensor.transfer as transfer
from eegtensor import geometry
from eegtensor.pipeline import Pipeline

ABSTRACT = {"DomainEstimator", "DomainTransformer", "NetworkClassifier", "PerDomain"}
# It completes each recording from itself: neither labels nor domains.
RESTORES = {"Completer"}
# Heads of vectors, without domains: scikit-learn's own checks hold them, see
# tests/transfer/test_feature_heads.py.
HEADS = {
    "BoostedHead",
    "GaussianDiscriminant",
    "LokiClassifier",
    "ProbeChooser",
    "SharedNaiveBayes",
}
MATRICES = {
    "BalancedRecenter",
    "GOPSARegressor",
    "MDM",
    "Recenter",
    "Rescale",
    "Rotate",
    "TangentSpace",
}
VECTORS = {
    "DomainStandardScaler",
    "TensorMultitaskLSSVC",
    "TensorMultitaskSVC",
    "TensorMultitaskSVR",
}
POWERS = {"NonnegativeCPFeatures"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "CCA": {"frequencies": (8.0, 12.0), "sfreq": 64.0},
    "CCAFeatures": {"frequencies": (8.0, 12.0), "sfreq": 64.0},
    "BalancedRecenter": {"estimator": transfer.MDM()},
    "FilterBankCSP": {"n_bands": 2, "n_components": 2, "n_selected": 2},
    "CSP": {"n_components": 4},
    "PairedDenoiser": {
        "hidden": 4,
        "max_epochs": 6,
        "n_networks": 1,
        "n_rounds": 1,
    },
    "PARAFAC2Features": {"rank": 2, "n_init": 2, "tol": 1e-9},
    "BlockTermFeatures": {"rank": 2, "n_init": 2},
    "TSMNetClassifier": {
        "epochs": 3,
        "temporal_kernel": 9,
        "n_spatial_filters": 8,
        "subspace": 4,
    },
    "XdawnCovariances": {"nfilter": 2},
}


def classes() -> list[type]:
    found = [
        getattr(module, name)
        for module in (features, transfer)
        for name in module.__all__
        if name not in ABSTRACT | RESTORES | HEADS
    ]
    return [c for c in found if inspect.isclass(c) and issubclass(c, BaseEstimator)]


def make(kind: type) -> Any:
    return kind(**ARGUMENTS.get(kind.__name__, {}))


@pytest.fixture(scope="module")
def people() -> dict[str, Any]:
    """Two people, two sessions, two classes, four channels; 8 and 12 Hz waves."""
    rng = np.random.default_rng(3)
    n = 64
    y = np.resize(["8 Hz", "12 Hz"], n)
    subjects = np.repeat(["a", "b"], n // 2)
    sessions = np.tile(np.repeat(["0", "1"], n // 4), 2)
    t = np.arange(96) / 64.0
    wave = np.sin(2 * np.pi * np.where(y == "8 Hz", 8.0, 12.0)[:, None] * t)
    X = rng.standard_normal((n, 4, 96))
    X[:, 0] += np.where(y == "8 Hz", 1.0, 0.4)[:, None] * wave
    X[:, 1] += np.where(y == "8 Hz", 0.4, 1.0)[:, None] * wave
    mix = np.eye(4) + 0.3 * rng.standard_normal((4, 4, 4))
    domain = 2 * (subjects == "b") + (sessions == "1")
    X = 1e-5 * mix[domain] @ X
    C = geometry.covariances(X)
    return {
        "signals": X,
        "matrices": C,
        "vectors": geometry.upper_vector(geometry.logm(C)),
        "powers": np.square(X),
        "y": y,
        "targets": np.where(y == "8 Hz", 8.0, 12.0) + rng.standard_normal(n),
        "domains": {"subjects": subjects, "sessions": sessions},
    }


def input_of(kind: type, people: dict[str, Any]) -> np.ndarray:
    if kind.__name__ in MATRICES:
        return people["matrices"]
    if kind.__name__ in POWERS:
        return people["powers"]
    return people["vectors" if kind.__name__ in VECTORS else "signals"]


def labels_of(kind: type, people: dict[str, Any]) -> np.ndarray:
    return people["targets" if issubclass(kind, RegressorMixin) else "y"]


def predicts(estimator: Any) -> bool:
    return is_classifier(estimator) or is_regressor(estimator)


def output(estimator: Any, X: np.ndarray, domains: dict[str, Any]) -> np.ndarray:
    if predicts(estimator):
        return estimator.predict(X, **domains)
    return estimator.transform(X, **domains)


def close(a: np.ndarray, b: np.ndarray) -> None:
    if a.dtype.kind in "US":
        np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8 * np.abs(b).max())


@pytest.mark.parametrize("kind", classes(), ids=lambda c: c.__name__)
class TestLaws:
    def test_parameters_are_stored_untouched(self, kind: type, people: dict) -> None:
        estimator = make(kind)
        before = {k: v for k, v in estimator.get_params(deep=False).items()}
        for name in inspect.signature(kind).parameters:
            assert name in before
        estimator.fit(
            input_of(kind, people), labels_of(kind, people), **people["domains"]
        )
        for name, value in estimator.get_params(deep=False).items():
            assert value is before[name]
        twin = clone(estimator)
        assert repr(twin) == repr(estimator)
        fitted = [k for k in vars(twin) if k.endswith("_") and not k.startswith("_")]
        assert not fitted

    def test_unfitted_use_says_so(self, kind: type, people: dict) -> None:
        estimator = make(kind)
        X, domains = input_of(kind, people), people["domains"]
        if getattr(estimator, "trialwise", False):
            # It learns nothing, so it needs no fit.
            fitted = make(kind).fit(X, labels_of(kind, people), **domains)
            close(output(estimator, X, domains), output(fitted, X, domains))
            return
        with pytest.raises(NotFittedError):
            output(estimator, X, domains)

    def test_input_is_left_alone(self, kind: type, people: dict) -> None:
        X = input_of(kind, people).copy()
        X.flags.writeable = False
        kept = X.copy()
        estimator = make(kind).fit(X, labels_of(kind, people), **people["domains"])
        output(estimator, X, people["domains"])
        np.testing.assert_array_equal(X, kept)

    def test_fit_again_is_fit_afresh(self, kind: type, people: dict) -> None:
        X, y, domains = (
            input_of(kind, people),
            labels_of(kind, people),
            people["domains"],
        )
        once = make(kind).fit(X, y, **domains)
        half = {k: v[:32] for k, v in domains.items()}
        twice = make(kind).fit(X[:32], y[:32], **half).fit(X, y, **domains)
        close(output(twice, X, domains), output(once, X, domains))

    def test_order_of_trials_does_not_matter(self, kind: type, people: dict) -> None:
        X, y, domains = (
            input_of(kind, people),
            labels_of(kind, people),
            people["domains"],
        )
        order = np.random.default_rng(0).permutation(len(X))
        moved = {k: v[order] for k, v in domains.items()}
        plain = output(make(kind).fit(X, y, **domains), X, domains)
        again = output(make(kind).fit(X[order], y[order], **moved), X[order], moved)
        close(again, plain[order])

    def test_trials_do_not_speak_to_each_other(self, kind: type, people: dict) -> None:
        X, domains = input_of(kind, people), people["domains"]
        estimator = make(kind).fit(X, labels_of(kind, people), **domains)
        few = {k: v[5:7] for k, v in domains.items()}
        close(output(estimator, X[5:7], few), output(estimator, X, domains)[5:7])

    def test_it_travels(self, kind: type, people: dict) -> None:
        X, domains = input_of(kind, people), people["domains"]
        estimator = make(kind).fit(X, labels_of(kind, people), **domains)
        twin = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(
            output(twin, X, domains), output(estimator, X, domains)
        )

    def test_a_pipeline_passes_it_what_it_takes(self, kind: type, people: dict) -> None:
        X, y, domains = (
            input_of(kind, people),
            labels_of(kind, people),
            people["domains"],
        )
        alone = make(kind).fit(X, y, **domains)
        inside = Pipeline([("step", make(kind))]).fit(X, y, **domains)
        method = inside.predict if predicts(alone) else inside.transform
        np.testing.assert_array_equal(method(X, **domains), output(alone, X, domains))
