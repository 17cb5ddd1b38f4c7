"""Protocols hold out what they say."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError, concatenate
from eegtensor.benchmark import make_folds


def _check(folds, n_trials):
    for i, fold in enumerate(folds):
        assert fold.index == i
        assert len(fold.train) and len(fold.test)
        assert not set(fold.train) & set(fold.test)
        assert set(fold.train) | set(fold.test) <= set(range(n_trials))


def test_leave_one_subject_out(make_trials):
    trials = make_trials(4)
    folds = make_folds(trials, "leave-one-subject-out")
    _check(folds, len(trials))
    for fold, name in zip(folds, ["s1", "s2", "s3", "s4"], strict=True):
        assert set(trials.subjects[fold.test]) == {f"toy/{name}"}
        assert f"toy/{name}" not in trials.subjects[fold.train]
        assert len(fold.train) + len(fold.test) == len(trials)


def test_leave_one_session_out_stays_within_the_subject(make_trials):
    trials = make_trials(2, (6, 8, 10))
    folds = make_folds(trials, "leave-one-session-out")
    _check(folds, len(trials))
    assert [len(fold.test) for fold in folds] == [6, 8, 10] * 2
    for fold in folds:
        assert len(set(trials.subjects[fold.train])) == 1
        assert set(trials.subjects[fold.train]) == set(trials.subjects[fold.test])
        assert not set(trials.sessions[fold.train]) & set(trials.sessions[fold.test])


def test_within_session_is_stratified_and_covers_every_trial(make_trials):
    trials = make_trials(2, (10, 20))
    folds = make_folds(trials, "within-session", n_folds=5)
    _check(folds, len(trials))
    assert len(folds) == 2 * 2 * 5
    tested = np.sort(np.concatenate([fold.test for fold in folds]))
    np.testing.assert_array_equal(tested, np.arange(len(trials)))
    for fold in folds:
        assert len({trials.domain.codes[i] for i in (*fold.train, *fold.test)}) == 1
        _, counts = np.unique(trials.y[fold.test], return_counts=True)
        assert len(counts) == 2 and np.ptp(counts) == 0


def test_k_subjects_out_is_seeded(make_trials):
    trials = make_trials(7, (4,))
    folds = make_folds(trials, "3-subjects-out", seed=0)
    _check(folds, len(trials))
    groups = [sorted(set(trials.subjects[fold.test])) for fold in folds]
    assert sorted(map(len, groups)) == [1, 3, 3]
    assert sorted(s for group in groups for s in group) == sorted(set(trials.subjects))
    again = make_folds(trials, "3-subjects-out", seed=0)
    other = make_folds(trials, "3-subjects-out", seed=1)
    assert [f.name for f in again] == [f.name for f in folds]
    assert [f.name for f in other] != [f.name for f in folds]


def test_cross_dataset(make_trials):
    both = concatenate([make_trials(2, dataset="A"), make_trials(3, dataset="B")])
    dataset = both.metadata["dataset"].to_numpy()
    (fold,) = make_folds(both, "cross-dataset", train="B", test="A")
    assert set(dataset[fold.train]) == {"B"} and set(dataset[fold.test]) == {"A"}
    assert len(make_folds(both, "cross-dataset")) == 2
    (fold,) = make_folds(both, "cross-dataset", test="A")
    assert set(dataset[fold.train]) == {"B"}


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        ("leave-one-out", {}, "is not known"),
        ("k-subjects-out", {}, "4-subjects-out"),
        ("0-subjects-out", {}, "is not known"),
        ("9-subjects-out", {}, "held out at once"),
        ("within-session", {"n_folds": 9}, "too few for 9 folds"),
        ("cross-dataset", {}, "held out at once"),
        ("cross-dataset", {"test": "C"}, "not among the datasets toy"),
    ],
)
def test_impossible_protocols_are_refused(make_trials, protocol, options, message):
    with pytest.raises(EEGTensorError, match=message):
        make_folds(make_trials(), protocol, **options)


def test_one_person_or_one_session_is_not_enough(make_trials):
    with pytest.raises(EEGTensorError, match="Nothing would be left to train on"):
        make_folds(make_trials(1), "leave-one-subject-out")
    with pytest.raises(EEGTensorError, match="No subject has two sessions"):
        make_folds(make_trials(3, (8,)), "leave-one-session-out")
