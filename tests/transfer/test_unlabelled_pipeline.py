"""Unlabelled target trials that a pipeline's network learns from."""

from __future__ import annotations

import copy

import numpy as np
import pytest

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
