"""Modes divide sessions as MOABB does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eegtensor import EEGTensorError
from eegtensor.benchmark import parse_mode, split_session
from eegtensor.benchmark.modes import parse_modes
from eegtensor.benchmark.runner import plan_fold
from eegtensor.benchmark.splits import make_folds
from eegtensor.domains import Domain

MOABB_MODES = [
    "train",
    "train_trialwise",
    "train_and_target_unlabeled_20p",
    "train_and_target_unlabeled_50p",
    "train_and_target_unlabeled_full",
    "train_and_target_labeled_20p",
    "train_and_target_labeled_50p",
]


@pytest.mark.parametrize("name", MOABB_MODES)
def test_indices_equal_moabbs_splitter(make_trials, name):
    protocols = pytest.importorskip("moabb.evaluations.protocols")
    splitters = pytest.importorskip("moabb.evaluations.splitters")
    theirs = protocols.CrossSubjectMode(name)
    trials = make_trials(3, (7, 10))
    metadata = pd.DataFrame(trials.metadata)
    splitter = splitters.CrossSubjectSplitter(
        calibration_size=theirs.calibration_size,
        calibration_labeled=theirs.calibration_labeled,
    )
    mode = parse_mode(name)
    assert parse_mode(theirs) == mode
    assert mode.labelled == theirs.calibration_labeled
    assert mode.trialwise == theirs.trialwise
    folds = make_folds(trials, "leave-one-subject-out")
    expected = list(splitter.split(trials.y, metadata))
    assert len(folds) == len(expected) == 3
    for fold, split in zip(folds, expected, strict=True):
        parts = plan_fold(trials, fold, [mode], seed=0)[mode]
        np.testing.assert_array_equal(fold.train, split[0])
        scored = np.concatenate([part.scored for part in parts])
        np.testing.assert_array_equal(scored, split[-1])
        given = np.concatenate([part.adapt for part in parts])
        np.testing.assert_array_equal(given, split[1] if len(split) == 3 else [])


@pytest.mark.parametrize("n_trials", [1, 2, 3, 4, 5, 9, 99, 100])
@pytest.mark.parametrize("percent", [1, 20, 29, 50, 99])
def test_share_is_the_floor_with_one_left(n_trials, percent):
    part = split_session(parse_mode(f"{percent}%"), np.arange(n_trials), Domain(*"abc"))
    n_given = min(max(percent * n_trials // 100, 1), n_trials - 1)
    np.testing.assert_array_equal(part.adapt, np.arange(n_given))
    np.testing.assert_array_equal(part.scored, np.arange(n_given, n_trials))


def test_random_part_depends_on_seed_and_domain_only():
    mode, trials = parse_mode("20%-random"), np.arange(100, 150)

    def given(seed, session="0"):
        part = split_session(mode, trials, Domain("d", "s", session), seed=seed)
        assert len(part.adapt) == 10
        together = np.sort(np.concatenate([part.adapt, part.scored]))
        np.testing.assert_array_equal(together, trials)
        return set(part.adapt.tolist())

    assert given(0) == given(0)
    assert given(0) != given(1)
    assert given(0) != given(0, session="1")
    assert given(0) != set(range(100, 110))


def test_labelled_k_takes_the_first_of_every_class():
    y = np.asarray(["a", "a", "a", "b", "a", "b", "b", "b"])
    mode = parse_mode("labelled-2")
    part = split_session(mode, np.arange(10, 18), Domain(*"abc"), y=y)
    assert part.adapt.tolist() == [10, 11, 13, 15]
    assert part.scored.tolist() == [12, 14, 16, 17]


def test_labelled_k_needs_a_trial_left_to_score():
    y = np.asarray(["a", "b", "a", "b", "a"])
    with pytest.raises(EEGTensorError, match="D/S/0 has 2 of class 'b'"):
        split_session(parse_mode("labelled-2"), np.arange(5), Domain(*"DS0"), y=y)


def test_common_set_is_what_half_leaves():
    for n_trials in (1, 6, 7):
        trials, domain = np.arange(n_trials), Domain(*"abc")
        common = split_session(parse_mode("none"), trials, domain).common
        half = split_session(parse_mode("50%"), trials, domain)
        np.testing.assert_array_equal(common, half.scored)
        for name in ("full", "20%-random", "90%"):
            part = split_session(parse_mode(name), trials, domain)
            np.testing.assert_array_equal(part.common, common)
            assert set(common) <= set(part.predicted)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half", "is not known"),
        ("20", "is not known"),
        ("0%", "out of range"),
        ("120%", "out of range"),
        ("labelled-60%", "at most 50 %"),
        ("labelled-0", "out of range"),
    ],
)
def test_unknown_modes_are_refused(name, message):
    with pytest.raises(EEGTensorError, match=message):
        parse_mode(name)


def test_only_full_is_transductive():
    modes = parse_modes(
        ["none", "online", "20%", "50%-random", "full", "labelled-50%", "100%"]
    )
    assert [m.name for m in modes if m.transductive] == ["full"]
    assert len(modes) == 6
    assert parse_mode("full").sees == "the scored trials"
    assert parse_mode("20%").sees == "earlier trials"
    assert parse_mode("none").sees == "nothing"


def test_modes_that_keep_back_the_same_trials_say_so():
    key = {
        m.name: m.keeps_back
        for m in parse_modes(
            [
                "none",
                "online",
                "full",
                "20%",
                "labelled-20%",
                "20%-random",
                "labelled-20",
            ]
        )
    }
    assert key["none"] == key["online"] == key["full"]
    assert key["20%"] == key["labelled-20%"]
    assert len({key[m] for m in ("none", "20%", "20%-random", "labelled-20")}) == 4


def test_calibration_may_be_later_than_what_is_scored():
    # The first trials of a person's second session help to score the first one.
    assert parse_mode("labelled-20%").sees == "other trials, with labels"


def test_one_mode_of_moabb_needs_no_list():
    protocols = pytest.importorskip("moabb.evaluations.protocols")
    assert parse_modes(protocols.CrossSubjectMode.TRAIN) == parse_modes("none")
