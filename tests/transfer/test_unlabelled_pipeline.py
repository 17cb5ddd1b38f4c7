"""Unlabelled target trials that a pipeline's network learns from."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from eegtensor import make_pipeline, simulate_trials
from eegtensor.pipeline import Pipeline
from eegtensor.training import METHODS
from eegtensor.training.objectives import VAT, CrossEntropy
from eegtensor.transfer import EuclideanAlignment, TSMNetClassifier
from eegtensor.transfer._unlabelled import learns_unlabelled

VIRTUAL = ("cross-entropy", "0.5 * vat(ramp=0)")


@pytest.fixture(scope="module")
def people():
    trials = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=24, n_channels=6, sfreq=64.0
    )
    who = np.asarray(trials.subjects)
    source = who != np.unique(who)[-1]
    return trials[source], trials[~source]


def network(**options):
    small = {"n_spatial_filters": 6, "subspace": 4, "epochs": 2, "batch_size": 12}
    return TSMNetClassifier(**{**small, "domains_per_batch": 3, **options})


def pipeline(**options):
    return Pipeline([("align", EuclideanAlignment()), ("net", network(**options))])


def joined(source, Z, U, y):
    m = len(U)
    return {
        "X": np.concatenate([Z, U]),
        "y": [*y, *[None] * m],
        "subjects": np.append(source.subjects, ["target"] * m),
        "sessions": np.append(source.sessions, [""] * m),
    }


def test_vat_sees_them_as_in_a_direct_call(people):
    source, target = people
    pipe = pipeline(objective=VIRTUAL).fit(source, X_target_unlabeled=target.X)
    p = pipe.predict_proba(target.X)
    given = {"subjects": source.subjects, "sessions": source.sessions}
    align = EuclideanAlignment()
    Z = align.fit_transform(source.X, source.y, **given)
    U = align.adapt(target.X).transform(target.X)
    direct = network(objective=VIRTUAL).fit(**joined(source, Z, U, source.y))
    np.testing.assert_array_equal(p, direct.adapt(U).predict_proba(U))
    assert (direct.classes_ == pipe.classes_).all()
    # Adapting alone shows the objective nothing of them.
    alone = pipeline(objective=VIRTUAL).fit(source).adapt(target.X)
    assert np.abs(alone.predict_proba(target.X) - p).max() > 1e-6


def test_what_learns_from_labels_alone_is_as_before(people):
    source, target = people
    one = pipeline().fit(source, X_target_unlabeled=target.X)
    two = pipeline().fit(source).adapt(target.X)
    np.testing.assert_array_equal(
        one.predict_proba(target.X), two.predict_proba(target.X)
    )


def test_labelled_and_unlabelled_target_trials_go_together(people):
    source, target = people
    few = {"X_target_labeled": target.X[:6], "y_target_labeled": target.y[:6]}
    pipe = pipeline(objective=VIRTUAL)
    pipe.fit(source, **few, X_target_unlabeled=target.X[6:])
    without = copy.deepcopy(pipe).fit(source, X_target_unlabeled=target.X[6:])
    p, q = (m.predict_proba(target.X[6:]) for m in (pipe, without))
    assert np.abs(p - q).max() > 1e-6


def test_trials_bring_their_own_names(people):
    source, target = people
    pipe = pipeline(objective=VIRTUAL).fit(source, X_target_unlabeled=target)
    (name,) = pipe[-1].adaptation_
    assert name.subject == target.subjects[0]
    assert name in pipe[-1].network_.norm.names


def test_which_methods_learn_from_them():
    learning = {name for name in METHODS if learns_unlabelled(name)}
    assert {"vat", "tnar", "pani", "m3s", "self-similarity"} <= learning
    assert not learning & {"cross-entropy", "anyloss", "sam", "swa", "hypergradients"}
    assert learns_unlabelled("0.3 * vat(eps=1.0)") and learns_unlabelled(VAT())
    assert not learns_unlabelled("no-method") and not learns_unlabelled(CrossEntropy())
    assert network(recipe="m3s").learns_unlabelled
    assert not network().learns_unlabelled
    assert not hasattr(make_pipeline("mdm")[-1], "learns_unlabelled")


def test_steps_before_get_the_names_that_trials_bring(people):
    source, target = people
    half = np.repeat(["0", "1"], len(target) // 2)
    target = replace(target, metadata=target.metadata.assign(session=half))
    # Its sessions differ, so that one whitening for both would show.
    target = replace(
        target, X=target.X * np.where(half == "0", 1.0, 3.0)[:, None, None]
    )
    pipe = pipeline(objective=VIRTUAL).fit(source, X_target_unlabeled=target)
    names = {"subjects": target.subjects, "sessions": target.sessions}
    given = {"subjects": source.subjects, "sessions": source.sessions}
    align = EuclideanAlignment()
    Z = align.fit_transform(source.X, source.y, **given)
    U = align.adapt(target.X, **names).transform(target.X, **names)
    direct = network(objective=VIRTUAL).fit(
        np.concatenate([Z, U]),
        [*source.y, *[None] * len(U)],
        **{k: np.append(given[k], names[k]) for k in given},
    )
    np.testing.assert_array_equal(
        pipe.predict_proba(target), direct.adapt(U, **names).predict_proba(U, **names)
    )


class Learner(ClassifierMixin, BaseEstimator):
    """A last step that learns from trials without labels, and keeps what it got."""

    learns_unlabelled = True

    def fit(self, X, y, subjects=None, sessions=None, sample_weight=None):
        self.classes_ = np.unique([label for label in y if label is not None])
        self.got_ = X, y, subjects, sessions, sample_weight
        return self

    def predict(self, X):
        return np.repeat(self.classes_[0], len(X))


class Doubled(BaseEstimator):
    """A step that can do no more than transform."""

    def fit(self, X, y=None):
        self.n_ = len(X)
        return self

    def transform(self, X):
        return 2.0 * X


@pytest.mark.parametrize("subjects", ["me", ["a"] * 4 + ["b"] * 2, None])
def test_what_joins_has_no_label_and_a_domain_of_its_own(subjects):
    X, T = np.ones((6, 2, 8)), np.full((3, 2, 8), 5.0)
    pipe = Pipeline([("double", Doubled()), ("learn", Learner())])
    weight = np.arange(6.0)
    pipe.fit(
        X, list("ababab"), subjects=subjects, sample_weight=weight, X_target_unlabeled=T
    )
    # The steps before are fitted to the source alone.
    assert pipe[0].n_ == 6
    Z, y, who, when, w = pipe[1].got_
    np.testing.assert_array_equal(Z, np.concatenate([2.0 * X, 2.0 * T]))
    assert list(y) == [*"ababab", None, None, None]
    mine = subjects if isinstance(subjects, list) else [subjects or ""] * 6
    assert list(who) == [*mine, *["target"] * 3] and list(when) == [""] * 9
    assert list(w) == [*weight, 1.0, 1.0, 1.0]
