"""Networks that are fitted with trials of unknown class."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError, simulate_trials
from eegtensor.training import UNLABELLED
from eegtensor.transfer import TSMNetClassifier
from eegtensor.transfer._unlabelled import known_classes, of_known


@pytest.mark.parametrize(
    "y, classes",
    [
        (["b", None, "a", "b"], ["a", "b"]),
        ([1, None, 0, 1], [0, 1]),
        ([1.0, np.nan, 0.0, 1.0], [0, 1]),
        (np.array(["b", np.nan, "a", "b"], dtype=object), ["a", "b"]),
    ],
)
def test_none_and_nan_are_unknown(y, classes):
    found, codes = known_classes(y, 4, "it")
    assert found.tolist() == classes
    assert found.dtype.kind in "iU"
    np.testing.assert_array_equal(codes, [1, UNLABELLED, 0, 1])


def test_labels_that_are_all_known_are_as_ever():
    found, codes = known_classes(["b", "a"], 2, "it")
    assert found.tolist() == ["a", "b"] and codes.tolist() == [1, 0]
    with pytest.raises(EEGTensorError, match="one class only"):
        known_classes(["a", None], 2, "it")
    with pytest.raises(EEGTensorError, match="continuous"):
        known_classes([0.5, 1.0, np.nan], 3, "it")


def test_validation_is_of_labelled_trials_and_their_people():
    codes = np.array([0, 0, 1, 1, 2, 2])
    y = np.array([0, 1, -1, -1, 1, 0])
    seen = []

    def held_out(how, codes, names, y, fraction):
        seen.append((codes.tolist(), names, y.tolist()))
        return np.array([True, False, False, True])

    kept = of_known(held_out, "trials", codes, ["ann", "bob", "eve"], y, 0.2)
    assert seen == [([0, 0, 1, 1], ["ann", "eve"], [0, 1, 1, 0])]
    np.testing.assert_array_equal(kept, [True, False, False, False, False, True])


@pytest.fixture(scope="module")
def people():
    trials = simulate_trials(n_subjects=3, n_sessions=1, n_trials=24, n_channels=6)
    return trials


def classifier(**options):
    small = {"n_spatial_filters": 6, "subspace": 4, "epochs": 2, "batch_size": 12}
    return TSMNetClassifier(**{**small, "domains_per_batch": 3, **options})


@pytest.mark.parametrize("validation", ["trials", "domains", None])
def test_a_person_without_labels_has_statistics_and_changes_vat(people, validation):
    X, y = people.X, np.asarray(people.y, dtype=object)
    who = np.asarray(people.subjects)
    target = who == np.unique(who)[-1]
    partly = y.copy()
    partly[target] = None
    objective = ("cross-entropy", "vat(ramp=0)")
    fitted = classifier(objective=objective, validation=validation)
    fitted.fit(X, partly, subjects=who)
    assert fitted.prior_.sum() == pytest.approx(1) and len(fitted.classes_) == 2
    # Its statistics are those that `adapt` would set.
    p = fitted.predict_proba(X[target], subjects=who[target])
    adapted = fitted.adapt(X[target], subjects=who[target])
    q = adapted.predict_proba(X[target], subjects=who[target])
    np.testing.assert_allclose(p, q, atol=1e-6)
    without = classifier(objective=objective, validation=validation)
    without.fit(X[~target], y[~target].astype(str), subjects=who[~target])
    r = without.adapt(X[target], subjects=who[target])
    r = r.predict_proba(X[target], subjects=who[target])
    assert np.abs(p - r).max() > 1e-6
