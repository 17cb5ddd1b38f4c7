"""Folds are kept on disk, resumed, and never returned stale."""

from __future__ import annotations

import importlib
import logging
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from eegtensor import EEGTensorError, Trials
from eegtensor.benchmark import benchmark, record
from eegtensor.benchmark import fingerprint as fingerprints
from eegtensor.benchmark.fingerprint import fingerprint

TIMES = ["seconds_fit", "seconds_predict", "seconds_adapt"]


class Counting(ClassifierMixin, BaseEstimator):
    """Class means of log variances; counts its fits, and can be interrupted."""

    fits = 0
    interrupt_at = 0

    def __init__(self, weight=1.0, inner=None, random_state=None):
        self.weight = weight
        self.inner = inner
        self.random_state = random_state

    def fit(self, X, y):
        Counting.fits += 1
        if Counting.fits == Counting.interrupt_at:
            raise KeyboardInterrupt
        F = np.log(X.var(axis=2))
        self.classes_ = np.unique(y)
        self.means_ = np.stack([F[y == c].mean(axis=0) for c in self.classes_])
        return self

    def predict_proba(self, X):
        F = np.log(X.var(axis=2))
        d = ((F[:, None] - self.means_) ** 2).sum(axis=2)
        p = np.exp(-np.asarray(self.weight).mean() * d)
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.fixture(autouse=True)
def _reset():
    Counting.fits = Counting.interrupt_at = 0


@pytest.fixture
def fits(tmp_path):
    """Run a benchmark with one cache and return how many fits it took."""

    def run(trials, estimator, **options):
        Counting.fits = 0
        benchmark(trials, {"c": estimator}, cache=tmp_path / "cache", **options)
        return Counting.fits

    return run


def test_second_run_fits_nothing_and_says_the_same(make_trials, tmp_path):
    trials = make_trials(3, (8, 7), separation=0.3)
    options = {"adapt": ["none", "full", "labelled-2"], "cache": tmp_path}
    first = benchmark(trials, {"c": Counting()}, **options)
    assert Counting.fits == 6
    second = benchmark(trials, {"c": Counting()}, **options)
    assert Counting.fits == 6
    pd.testing.assert_frame_equal(first.scores, second.scores, check_exact=True)
    pd.testing.assert_frame_equal(first.predictions, second.predictions)
    plain = benchmark(trials, {"c": Counting()}, adapt=options["adapt"])
    pd.testing.assert_frame_equal(plain.predictions, first.predictions)


def test_names_of_pipelines_are_no_cause(make_trials, tmp_path):
    trials = make_trials()
    benchmark(trials, {"a": Counting()}, cache=tmp_path)
    again = benchmark(trials, {"b": Counting()}, cache=tmp_path)
    assert Counting.fits == 3 and set(again.scores["pipeline"]) == {"b"}


def test_every_cause_is_in_the_key(make_trials, fits, monkeypatch):
    trials = make_trials(3, (8, 8))
    base = Counting(inner=LogisticRegression(C=0.1))
    assert fits(trials, base) == 3
    assert fits(trials, base) == 0

    X = trials.X.copy()
    X[5, 1, 3] += 1e-9
    assert fits(replace(trials, X=X), base) == 3, "a sample"
    trials.X[5, 1, 3] += 2e-9
    assert fits(trials, base) == 3, "a sample, changed in place"
    y = trials.y.copy()
    y[[3, 4]] = y[[4, 3]]
    assert fits(replace(trials, y=y), base) == 3, "labels"
    metadata = trials.metadata.copy()
    metadata["session"] = metadata["session"].replace({"1": "evening"})
    assert fits(replace(trials, metadata=metadata), base) == 3, "a domain"
    assert fits(trials, Counting(weight=2.0)) == 3, "a parameter"
    assert fits(trials, Counting(weight=2)) == 3, "a parameter's type"
    assert fits(trials, Counting(inner=LogisticRegression(C=0.2))) == 3, "nested"
    assert fits(trials, Counting(weight=np.array([1.0, 2.0]))) == 3, "an array"
    assert fits(trials, Counting(weight=np.array([1.0, 3.0]))) == 3, "its content"
    assert fits(trials, base, random_state=1) == 3, "the seed"
    assert fits(trials, base, protocol="1-subjects-out") == 3, "the protocol"
    assert fits(trials, base, protocol="2-subjects-out") == 2, "the folds"
    assert fits(trials, base, adapt=["none", "labelled-2"]) == 3, "the mode"
    with monkeypatch.context() as patch:
        patch.setattr(record, "versions", lambda: {"numpy": "99"})
        assert fits(trials, base) == 3, "a version"
    with monkeypatch.context() as patch:
        patch.setattr(record, "package_source", lambda: "edited")
        assert fits(trials, base) == 3, "eegtensor's source"
    assert fits(trials, base) == 0


def test_a_store_keeps_its_digest_and_its_labels_count(make_trials, fits, tmp_path):
    make_trials().save(tmp_path / "store")
    stored = Trials.load(tmp_path / "store")
    assert fits(stored, Counting()) == 3
    assert fits(Trials.load(tmp_path / "store"), Counting()) == 0
    assert fits(make_trials(), Counting()) == 0, "the same content in memory"
    y = np.roll(stored.y, 1)
    assert fits(replace(stored, y=y), Counting()) == 3


def test_an_edited_class_or_helper_is_another_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    helper = "def scale():\n    return {value}\n"
    model = textwrap.dedent("""
        import numpy as np
        from sklearn.base import BaseEstimator, ClassifierMixin
        from users_helper import scale

        class Model(ClassifierMixin, BaseEstimator):
            def fit(self, X, y):
                self.classes_ = np.unique(y)
                return self

            def predict(self, X):
                which = (scale() * X.var(axis=(1, 2)) > {threshold}).astype(int)
                return self.classes_[which]
    """)

    def key(value, threshold):
        (tmp_path / "users_helper.py").write_text(helper.format(value=value))
        (tmp_path / "users_model.py").write_text(model.format(threshold=threshold))
        for name in ("users_helper", "users_model"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        module = importlib.import_module("users_model")
        return fingerprint(module.Model()), module

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    one, _ = key(1.0, 0.5)
    assert one.key is not None
    assert key(1.0, 0.5)[0] == one
    assert key(1.0, 0.6)[0] != one, "the class was edited"
    assert key(2.0, 0.5)[0] != one, "a function that it calls was edited"
    module = key(1.0, 0.5)[1]
    (tmp_path / "users_model.py").write_text(model.format(threshold=0.6))
    stale = fingerprint(module.Model())
    assert stale not in (one, key(1.0, 0.6)[0]), "loaded code differs from the file"
    for name in ("users_helper", "users_model"):
        sys.modules.pop(name, None)


def test_what_cannot_be_hashed_is_not_cached(make_trials, tmp_path, caplog):
    trials = make_trials()
    model = make_pipeline(FunctionTransformer(lambda X: X), Counting())
    with caplog.at_level(logging.INFO, "eegtensor"):
        for _ in range(2):
            benchmark(trials, {"anonymous": model}, cache=tmp_path)
    assert Counting.fits == 6
    assert not list(tmp_path.rglob("*.npz"))
    said = [m for m in caplog.messages if "'anonymous' is not cached" in m]
    assert len(said) == 2 and "func is a function" in said[0]


def test_an_interrupted_run_resumes(make_trials, tmp_path, caplog):
    trials = make_trials(5, (8,))
    Counting.interrupt_at = 3
    with caplog.at_level(logging.INFO, "eegtensor"), pytest.raises(KeyboardInterrupt):
        benchmark(trials, {"c": Counting()}, cache=tmp_path)
    assert any("the same call resumes" in message for message in caplog.messages)
    Counting.fits = Counting.interrupt_at = 0
    resumed = benchmark(trials, {"c": Counting()}, cache=tmp_path)
    assert Counting.fits == 3
    whole = benchmark(trials, {"c": Counting()})
    pd.testing.assert_frame_equal(resumed.predictions, whole.predictions)


def test_a_failure_loses_no_finished_fold(make_trials, tmp_path, monkeypatch):
    trials = make_trials(4, (8,))
    fit = Counting.fit

    def failing(self, X, y):
        if Counting.fits == 2:
            raise RuntimeError("out of memory")
        return fit(self, X, y)

    broken = {"c": Counting()}
    with monkeypatch.context() as patch:
        patch.setattr("eegtensor.benchmark.fold.call", _interposed(failing))
        with pytest.raises(EEGTensorError, match="out of memory"):
            benchmark(trials, broken, cache=tmp_path)
    Counting.fits = 0
    benchmark(trials, broken, cache=tmp_path)
    assert Counting.fits == 2


def _interposed(failing):
    from eegtensor.benchmark.estimators import call

    def other(estimator, method, X, y=None, **domains):
        if method == "fit":
            return failing(estimator, X, y)
        return call(estimator, method, X, y, **domains)

    return other


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_entry_is_made_again(make_trials, tmp_path, damage):
    trials = make_trials()
    before = benchmark(trials, {"c": Counting()}, cache=tmp_path)
    entries = sorted(tmp_path.rglob("*.npz"))
    assert len(entries) == 3
    if damage is None:
        # An entry under another's name must not be taken for it.
        entries[0].write_bytes(entries[1].read_bytes())
    else:
        entries[0].write_bytes(damage)
    after = benchmark(trials, {"c": Counting()}, cache=tmp_path)
    assert Counting.fits == 4
    pd.testing.assert_frame_equal(before.predictions, after.predictions)
    pd.testing.assert_frame_equal(
        before.scores.drop(columns=TIMES), after.scores.drop(columns=TIMES)
    )


def test_a_cache_that_cannot_be_is_explained(make_trials, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EEGTensorError, match="cannot be made"):
        benchmark(make_trials(), {"c": Counting()}, cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2], (1, 2)),
        ([[1], 2], [1, [2]]),
        ("1", 1),
        (1, True),
        (0.0, -0.0),
        (None, "None"),
        ({"a": 1}, {"a": 2}),
        (np.float32(1), np.float64(1)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.random.RandomState(0), np.random.RandomState(1)),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (LogisticRegression, Counting),
        (slice(1, 2), slice(1, 3)),
        (["ab", "c"], ["a", "bc"]),
    ],
)
def test_fingerprints_tell_values_apart(a, b):
    keys = [fingerprint(Counting(weight=value)).key for value in (a, b, a)]
    assert None not in keys
    assert keys[0] == keys[2] != keys[1]


class Routed(Counting):
    def fit(self, X, y, subjects=None):
        super().fit(X, y)
        self.classes_ = self.classes_ if subjects is None else self.classes_[::-1]
        return self


def test_metadata_requests_are_a_cause(make_trials, tmp_path):
    trials = make_trials()

    def predictions(asks, routing):
        with sklearn.config_context(enable_metadata_routing=True):
            model = make_pipeline(Routed().set_fit_request(subjects=asks))
        with sklearn.config_context(enable_metadata_routing=routing):
            return benchmark(trials, {"r": model}, cache=tmp_path).predictions["y_pred"]

    asked = predictions(True, True)
    assert (asked != predictions(False, True)).all()
    assert (asked != predictions(True, False)).all()
    assert asked.equals(predictions(True, True)) and Counting.fits == 9


def test_a_full_disk_costs_the_copy_alone(make_trials, tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("eegtensor.benchmark.cache.np.savez", full)
    with caplog.at_level(logging.WARNING, "eegtensor"):
        result = benchmark(make_trials(), {"c": Counting()}, cache=tmp_path)
    assert len(result.scores) == 6
    assert sum("No space left" in message for message in caplog.messages) == 3
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_versions_of_what_a_users_module_names_are_causes(monkeypatch):
    before = fingerprint(Counting()).key
    assert fingerprint(Counting()).key == before
    known = fingerprints._version
    monkeypatch.setattr(
        fingerprints, "_version", lambda m: "99" if m == "pandas" else known(m)
    )
    assert fingerprint(Counting()).key != before
