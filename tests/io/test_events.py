from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.io import RecordingError, read_trials
from eegtensor.io.events import assign_classes, matches, split_request

Maker = Callable[..., mne.io.RawArray]
Saver = Callable[..., Path]
WINDOW = {"tmin": 0.0, "tmax": 1.0}


def _write_events(path: Path, rows: list[list[int]]) -> None:
    mne.write_events(path, np.asarray(rows), overwrite=True, verbose="ERROR")


def test_annotations_except_bad_edge_and_boundary(make_raw: Maker, save: Saver) -> None:
    raw = make_raw()
    raw.annotations.append([20, 21, 22, 23], 0, ["BAD_x", "EDGE", "boundary", "bad"])
    trials = read_trials(save(raw, "a_raw.fif"), **WINDOW)
    assert trials.y.tolist() == ["left", "right", "left", "right"]
    assert trials.metadata["onset"].tolist() == [2.0, 5.0, 9.0, 14.0]


def test_stim_channel(make_raw: Maker, save: Saver) -> None:
    raw = make_raw(onsets=(), first_samp=500)
    pulses = np.zeros((1, raw.n_times))
    pulses[0, 300:310], pulses[0, 900:905] = 7, 3
    stim = mne.io.RawArray(
        pulses, mne.create_info(["STI"], 100.0, "stim"), first_samp=500, verbose="ERROR"
    )
    raw.add_channels([stim], force_update_info=True)
    trials = read_trials(save(raw, "a_raw.fif"), **WINDOW)
    assert trials.y.tolist() == ["7", "3"]
    assert trials.metadata["onset"].tolist() == [3.0, 9.0]
    assert trials.ch_names == ["Fz", "C3", "Cz", "C4", "Pz"]


def test_event_file_wins_and_counts_from_first_samp(
    make_raw: Maker, save: Saver
) -> None:
    raw = make_raw(first_samp=700)
    path = save(raw, "a_raw.fif")
    # Sorted by class, as some files are: trials come in order of onset.
    _write_events(path.parent / "a-eve.fif", [[2700, 0, 1], [1200, 0, 2]])
    trials = read_trials(path, **WINDOW)
    assert trials.y.tolist() == ["2", "1"]
    X = raw.get_data()
    assert np.array_equal(trials.X[0], X[:, 500:600].astype(np.float32))
    assert np.array_equal(trials.X[1], X[:, 2000:2100].astype(np.float32))
    named = read_trials(path, events={"go": 2, "stop": [1]}, **WINDOW)
    assert named.y.tolist() == ["go", "stop"]


def test_annotation_onsets_with_first_samp(make_raw: Maker, save: Saver) -> None:
    raw = make_raw(onsets=(), first_samp=700)
    raw.set_meas_date(1_000_000)
    onset = raw.first_samp / 100.0 + 4.0
    raw.set_annotations(
        mne.Annotations(onset, 0, "go", orig_time=raw.info["meas_date"])
    )
    trials = read_trials(save(raw, "a_raw.fif"), **WINDOW)
    assert np.array_equal(trials.X[0], raw.get_data()[:, 400:500].astype(np.float32))


def test_bids_events_tsv(make_raw: Maker, save: Saver) -> None:
    path = save(make_raw(), "sub-1/eeg/sub-1_task-mi_eeg.fif")
    table = path.parent / "sub-1_task-mi_events.tsv"
    table.write_text(
        "onset\tduration\ttrial_type\tvalue\n"
        "6.0\t1\thand\t11\n3.0\t1\tfoot\t12.0\nn/a\t1\tfoot\t12\n8.0\t0\tn/a\tn/a\n"
        "9.0\t1\tBAD_span\t1\n"
    )
    trials = read_trials(path, **WINDOW)
    assert trials.y.tolist() == ["foot", "hand"]
    by_code = read_trials(path, events={"h": 11, "f": 12}, **WINDOW)
    assert by_code.y.tolist() == ["f", "h"]
    table.write_text("time\tname\n1\tx\n")
    with pytest.raises(RecordingError, match="columns onset"):
        read_trials(path, **WINDOW)


def test_template_and_function_name_event_files(
    make_raw: Maker, save: Saver, tmp_path: Path
) -> None:
    path = save(make_raw(), "sub-4_raw.fif")
    (tmp_path / "marks").mkdir()
    _write_events(tmp_path / "marks" / "4-eve.fif", [[1000, 0, 9]])
    for events in ("marks/{subject}-eve.fif", lambda p: tmp_path / "marks/4-eve.fif"):
        assert read_trials(path, events=events, **WINDOW).y.tolist() == ["9"]
    both = read_trials(
        path, events={"odd": 9}, event_files="{folder}/marks/4-eve.fif", **WINDOW
    )
    assert both.y.tolist() == ["odd"]
    with pytest.raises(RecordingError, match="does not exist"):
        read_trials(path, events="{stem}.eve", **WINDOW)
    with pytest.raises(EEGTensorError, match="unknown field"):
        read_trials(path, events="{person}-eve.fif", **WINDOW)


def test_unknown_events_name_those_there_are(make_raw: Maker, save: Saver) -> None:
    path = save(make_raw(), "a_raw.fif")
    with pytest.raises(EEGTensorError, match=r"events feet; there are left, right"):
        read_trials(path, events=["left", "feet"], **WINDOW)


def test_one_recording_may_lack_a_class(make_raw: Maker, save: Saver) -> None:
    save(make_raw(), "sub-1_raw.fif")
    path = save(make_raw(classes=("left",)), "sub-2_raw.fif")
    trials = read_trials(path.parent, events=["left", "right"], **WINDOW)
    assert len(trials) == 8
    with pytest.raises(
        RecordingError, match=r"none of the events.*left \(4\)"
    ) as caught:
        read_trials(path.parent, events=["right"], **WINDOW)
    assert caught.value.trials is not None and len(caught.value.trials) == 2


def test_no_events_says_what_to_do(make_raw: Maker, save: Saver) -> None:
    with pytest.raises(RecordingError, match=r"no events.*events=.*eegtensor info"):
        read_trials(save(make_raw(onsets=()), "a_raw.fif"), **WINDOW)


def test_requests() -> None:
    assert split_request(["a", 3])[0] == {"a": ("a",), "3": ("3",)}
    assert split_request(7)[0] == {"7": ("7",)}
    assert split_request({"x": [1, 2], "y": "z"})[0] == {"x": ("1", "2"), "y": ("z",)}
    assert split_request("left")[0] == {"left": ("left",)}
    with pytest.raises(EEGTensorError, match="two classes"):
        split_request({"x": [1, 2], "y": 2})
    with pytest.raises(EEGTensorError, match="empty"):
        split_request([])


def test_matching_goes_by_parts_and_codes(make_raw: Maker, save: Saver) -> None:
    assert matches("left", ("left/hand",)) and matches("hand/left", ("left/hand",))
    assert not matches("le", ("left/hand",))
    raw = make_raw(classes=("Stimulus/S  1", "Stimulus/S 12"))
    trials = read_trials(save(raw, "a_raw.fif"), events={"x": 1, "y": 12}, **WINDOW)
    assert trials.y.tolist() == ["x", "y", "x", "y"]
    index, names = assign_classes([("a/b",), ("a/c",)], {"b": ("b",), "a": ("a/c",)})
    assert index.tolist() == [0, 1] and names == ["b", "a"]
    with pytest.raises(EEGTensorError, match="belongs to the classes a, b"):
        assign_classes([("a/b",)], {"a": ("a",), "b": ("b",)})
