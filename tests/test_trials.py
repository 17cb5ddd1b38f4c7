"""Trials: checks, selection, epochs there and back, digests, domains."""

from __future__ import annotations

import dataclasses

import mne
import numpy as np
import pandas as pd
import pytest
from _factory import make_trials

from eegtensor import EEGTensorError, Trials, concatenate
from eegtensor.domains import Domain


def test_keys_are_strings_and_come_first() -> None:
    info = mne.create_info(2, 10.0, "eeg")
    metadata = pd.DataFrame({"extra": [1.5], "subject": [3]})
    trials = Trials(np.zeros((1, 2, 4)), None, metadata, info)
    assert list(trials.metadata.columns) == [
        "dataset",
        "subject",
        "session",
        "run",
        "extra",
    ]
    assert trials.metadata["subject"][0] == "3"
    assert trials.metadata["session"][0] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((3, 4))}, "shape"),
        ({"X": np.zeros((2, 5, 4))}, "channels"),
        ({"y": ["a"]}, "y has 1 entries for 2 trials"),
        ({"y": [1.0, np.nan]}, "not finite for trials 1"),
        ({"metadata": pd.DataFrame({"subject": ["a", None]})}, "'subject' is missing"),
        ({"metadata": pd.DataFrame(index=range(3))}, "metadata has 3 entries"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    given = {
        "X": np.zeros((2, 2, 4)),
        "y": ["a", "b"],
        "metadata": pd.DataFrame(index=range(2)),
        "info": mne.create_info(2, 10.0, "eeg"),
    } | change
    with pytest.raises(EEGTensorError, match=message):
        Trials(**given)


def test_selection_keeps_rows_together() -> None:
    trials = make_trials()
    mask = trials.metadata["subject"].to_numpy() == "2"
    for index in (mask, np.flatnonzero(mask), slice(6, 12)):
        part = trials[index]
        np.testing.assert_array_equal(part.X, trials.X[6:])
        assert part.y is not None and trials.y is not None
        assert part.y.tolist() == trials.y[6:].tolist()
        assert part.metadata["event_sample"].tolist() == [
            100 * i + 7 for i in range(6, 12)
        ]
    assert len(trials[3]) == 1
    assert len(trials[[]]) == 0
    with pytest.raises(EEGTensorError, match="mask has 2 entries"):
        trials[np.array([True, False])]


def test_epochs_there_and_back_keep_all_that_is_promised() -> None:
    trials = make_trials()
    epochs = trials.to_epochs()
    back = Trials.from_epochs(epochs)
    np.testing.assert_allclose(back.X, trials.X, rtol=1e-7)
    assert back.y is not None and trials.y is not None
    assert back.y.tolist() == trials.y.tolist()
    assert back.tmin == trials.tmin and back.sfreq == trials.sfreq
    assert back.ch_names == trials.ch_names
    assert back.metadata["event_sample"].tolist() == (100 * np.arange(12) + 7).tolist()
    assert back.metadata["event_code"].tolist() == [4, 9] * 6
    assert back.metadata["subject"].tolist() == trials.metadata["subject"].tolist()
    assert back.metadata["note"].tolist()[1:] == ["x"] * 11
    np.testing.assert_allclose(
        [ch["loc"][:3] for ch in back.info["chs"]],
        [ch["loc"][:3] for ch in trials.info["chs"]],
    )
    again = back.to_epochs()
    np.testing.assert_array_equal(again.events, epochs.events)
    assert again.event_id == epochs.event_id


def test_lazy_epochs_give_good_data_channels_of_good_epochs() -> None:
    rng = np.random.default_rng(0)
    info = mne.create_info(
        ["C3", "C4", "EOG1", "STI"], 100.0, ["eeg"] * 2 + ["eog", "stim"]
    )
    raw = mne.io.RawArray(1e-5 * rng.standard_normal((4, 1000)), info, verbose="ERROR")
    raw._data[0, 210:230] = 1.0
    events = np.array([[100, 0, 1], [200, 0, 2], [300, 0, 1], [400, 0, 2]])
    epochs = mne.Epochs(
        raw, events, {"a": 1, "b": 2}, 0, 0.5, baseline=None, picks="all",
        reject={"eeg": 0.1}, verbose="ERROR",
    )  # fmt: skip
    trials = Trials.from_epochs(epochs)
    assert trials.ch_names == ["C3", "C4"]
    assert list(trials.y) == ["a", "a", "b"]
    np.testing.assert_array_equal(trials.metadata["event_sample"], [100, 300, 400])
    np.testing.assert_allclose(trials.X[1], raw.get_data()[:2, 300:351])
    raw.info["bads"] = ["C4"]
    epochs.info["bads"] = ["C4"]
    assert Trials.from_epochs(epochs).ch_names == ["C3"]
    assert Trials.from_epochs(epochs, picks=["EOG1"]).ch_names == ["EOG1"]
    with pytest.raises(EEGTensorError, match="leaves no channel"):
        Trials.from_epochs(epochs, picks=["Oz"])


def test_continuous_targets_pass_through_epochs() -> None:
    trials = make_trials(y=np.linspace(0, 1, 12))
    assert trials.classes == []
    back = Trials.from_epochs(trials.to_epochs(), target="target")
    np.testing.assert_allclose(back.y, trials.y)
    with pytest.raises(EEGTensorError, match="No metadata column 'age'"):
        Trials.from_epochs(trials.to_epochs(), target="age")


def test_domains_and_qualified_subjects() -> None:
    trials = make_trials()
    codes, names = trials.domain
    assert names[0] == Domain("d", "1", "a")
    assert codes.tolist() == [0, 0, 1] * 2 + [2, 2, 3] * 2
    assert trials.subjects[0] == "d/1"


def test_digest_sees_every_part() -> None:
    base = make_trials()
    assert make_trials().digest == base.digest
    X = base.X.copy()
    X[3, 1, 7] += 1e-9
    relabelled = np.asarray(base.y).copy()
    relabelled[0] = "right"
    moved = base.metadata.assign(session="z")
    renamed = base.info.copy()
    mne.rename_channels(renamed, {"C3": "F3"})
    others = [
        Trials(X, base.y, base.metadata, base.info, base.tmin),
        Trials(base.X, relabelled, base.metadata, base.info, base.tmin),
        Trials(base.X, None, base.metadata, base.info, base.tmin),
        Trials(base.X, base.y, moved, base.info, base.tmin),
        Trials(base.X, base.y, base.metadata, renamed, base.tmin),
        Trials(base.X, base.y, base.metadata, base.info, 0.2),
        Trials(base.X.astype(float), base.y, base.metadata, base.info, base.tmin),
    ]
    assert len({base.digest, *(t.digest for t in others)}) == 8


def test_a_changed_copy_has_a_digest_of_its_own() -> None:
    base = make_trials()
    before = base.digest
    assert dataclasses.replace(base, X=2 * base.X).digest != before


def test_concatenate_joins_and_refuses() -> None:
    a, b = make_trials(4), make_trials(6, seed=1)
    both = concatenate([a, b])
    assert len(both) == 10
    np.testing.assert_array_equal(both.X[4:], b.X)
    shifted = Trials(b.X, b.y, b.metadata, b.info, 0.5)
    with pytest.raises(EEGTensorError, match="Part 1 differs from part 0 in tmin"):
        concatenate([a, shifted])
    with pytest.raises(EEGTensorError, match="channels"):
        concatenate([a, b.pick(["C3"])])


def test_pick() -> None:
    trials = make_trials()
    part = trials.pick(["C4", "C3"])
    np.testing.assert_array_equal(part.X, trials.X[:, [2, 0]])
    assert part.ch_names == ["C4", "C3"]
    with pytest.raises(EEGTensorError, match="No channels Oz among C3, Cz, C4"):
        trials.pick(["Oz"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": pd.array(["a", pd.NA], dtype="string")}, "y is missing for trials 1"),
        ({"X": np.full((2, 2, 4), "a")}, "dtype"),
        ({"metadata": {"subject": ["a", "b"]}}, "metadata is a dict"),
        (
            {"metadata": pd.DataFrame({"run": pd.array(["1", pd.NA], "string")})},
            "'run' is missing for trials 1",
        ),
    ],
)
def test_what_pandas_calls_missing_is_refused(change: dict, message: str) -> None:
    test_what_does_not_fit_is_refused(change, message)


def test_digest_follows_changes_in_place(tmp_path) -> None:
    trials = make_trials()
    before = trials.digest
    trials.X[0] += 1e-6
    assert trials.digest != before
    trials.save(tmp_path / "s")
    for change in (
        lambda t: t.y.__setitem__(0, t.y[-1]),
        lambda t: t.metadata.__setitem__("session", "9"),
        lambda t: mne.rename_channels(t.info, {t.ch_names[0]: "new"}),
    ):
        loaded = Trials.load(tmp_path / "s")
        assert loaded.digest == trials.digest
        change(loaded)
        assert loaded.digest != trials.digest


def test_targets_and_classes_do_not_mix() -> None:
    a = make_trials()
    b = dataclasses.replace(a, y=np.linspace(0, 1, len(a)))
    with pytest.raises(EEGTensorError, match="continuous targets"):
        concatenate([a, b])
    objects = np.asarray(b.y, dtype=object)
    assert dataclasses.replace(a, y=objects).y.dtype == np.float64
    assert len(concatenate([a.to_epochs(), a.to_epochs()])) == 2 * len(a)


def test_epochs_without_all_codes() -> None:
    trials = make_trials()
    metadata = trials.metadata.assign(event_code=np.nan, event_sample=np.nan)
    epochs = dataclasses.replace(trials, metadata=metadata).to_epochs()
    assert sorted(epochs.event_id.values()) == [1, 2]
    with pytest.raises(EEGTensorError, match="no trials"):
        trials[[]].to_epochs()
    epochs.metadata = epochs.metadata.assign(score="high")
    with pytest.raises(EEGTensorError, match="no number for trials 0"):
        Trials.from_epochs(epochs, target="score")
