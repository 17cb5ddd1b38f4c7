"""One faulty recording never costs another's work."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

from eegtensor import EEGTensorError, EEGTensorWarning, Trials
from eegtensor.io import RecordingError, read_trials

Maker = Callable[..., mne.io.RawArray]
Saver = Callable[..., Path]
WINDOW = {"tmin": 0.0, "tmax": 1.0}


@pytest.fixture
def folder(make_raw: Maker, save: Saver) -> Path:
    """Two good people, a cut file, a flat channel, microvolts, a saturated one."""
    for i in (1, 2):
        save(make_raw(seed=i), f"d/sub-{i}_raw.fif")
    path = save(make_raw(), "d/sub-3_raw.fif")
    path.write_bytes(path.read_bytes()[:20000])
    flat = make_raw(seed=4)
    flat._data[1] = 0.0
    save(flat, "d/sub-4_raw.fif")
    units = make_raw(seed=5)
    units._data *= 1e6
    save(units, "d/sub-5_raw.fif")
    railed = make_raw(seed=6)
    railed._data[4, 700:1400] = 3e-4
    save(railed, "d/sub-6_raw.fif")
    return path.parent


def _people(trials: Trials) -> list[str]:
    return sorted(set(trials.metadata["subject"]))


def test_raise_lists_all_and_keeps_the_good(folder: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        read_trials(folder, **WINDOW)
    error = caught.value
    assert [Path(f.path).name for f in error.faults] == [
        f"sub-{i}_raw.fif" for i in (3, 4, 5, 6)
    ]
    for fault, words in zip(
        error.faults,
        ("cut short", "flat (no signal): C3", "microvolts stored as", "saturated: Pz"),
        strict=True,
    ):
        assert words in fault.fault and fault.remedy
        assert fault.fault in str(error) and fault.path in str(error)
    assert error.trials is not None and _people(error.trials) == ["1", "2"]
    assert error.trials.X.shape == (8, 5, 100)


def test_warn_keeps_what_is_readable(folder: Path) -> None:
    with pytest.warns(EEGTensorWarning) as caught:
        trials = read_trials(folder, on_bad="warn", **WINDOW)
    assert _people(trials) == ["1", "2", "4", "5", "6"]
    assert len(trials.ch_names) == 5
    assert len(caught) == 1
    for i in (3, 4, 5, 6):
        assert f"sub-{i}_raw.fif" in str(caught[0].message)
    assert np.abs(trials.X).max() > 1.0


def test_drop_leaves_channels_and_recordings_out(folder: Path) -> None:
    with pytest.warns(EEGTensorWarning) as caught:
        trials = read_trials(folder, on_bad="drop", **WINDOW)
    assert _people(trials) == ["1", "2", "4", "6"]
    assert trials.ch_names == ["Fz", "Cz", "C4"]
    assert len(caught) == 1 and "channels dropped" in str(caught[0].message)


def test_drop_restores_channels_by_interpolation(folder: Path) -> None:
    (folder / "sub-6_raw.fif").unlink()
    with pytest.warns(EEGTensorWarning):
        trials = read_trials(folder, on_bad="drop", channels="interpolate", **WINDOW)
    assert trials.ch_names == ["Fz", "C3", "Cz", "C4", "Pz"]
    restored = trials.X[(trials.metadata["subject"] == "4").to_numpy()][:, 1]
    assert (np.ptp(restored, axis=1) > 1e-6).all()


def test_nothing_left_is_an_error_in_every_mode(folder: Path) -> None:
    for on_bad in ("raise", "warn", "drop"):
        with pytest.raises(RecordingError) as caught:
            read_trials(folder, include="*sub-3*", on_bad=on_bad, **WINDOW)
        assert caught.value.trials is None and len(caught.value.faults) == 1


def test_good_recordings_warn_of_nothing(folder: Path) -> None:
    for on_bad in ("raise", "warn", "drop"):
        trials = read_trials(folder, include="*sub-[12]*", on_bad=on_bad, **WINDOW)
        assert len(trials) == 8


def test_scale_mends_units(folder: Path) -> None:
    trials = read_trials(folder, include="*sub-5*", scale=1e-6, **WINDOW)
    assert 1e-5 < trials.X.std() < 3e-5


def test_bad_channels_that_are_not_picked_do_not_count(folder: Path) -> None:
    trials = read_trials(folder, include="*sub-[46]*", picks=["Fz", "Cz"], **WINDOW)
    assert len(trials) == 8


def test_with_a_store_the_good_trials_are_in_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        read_trials(folder, store=tmp_path / "store", **WINDOW)
    assert caught.value.trials is not None
    assert _people(Trials.load(tmp_path / "store")) == ["1", "2"]


def test_two_recordings_that_claim_the_same(make_raw: Maker, save: Saver) -> None:
    save(make_raw(), "sub-1_ses-2_raw.fif")
    path = save(make_raw(), "sub-1_ses-2_epo_copy_raw.fif")
    with pytest.raises(EEGTensorError, match=r"claim subject 1, session 2") as caught:
        read_trials(path.parent, **WINDOW)
    for words in ("sub-1_ses-2_raw.fif", "sub-1_ses-2_epo_copy_raw.fif", "include="):
        assert words in str(caught.value)
    assert len(read_trials(path.parent, include="*copy*", **WINDOW)) == 4
    broken = path.parent / "sub-1_ses-2_raw.edf"
    broken.write_bytes(b"")
    path.unlink()
    with pytest.raises(EEGTensorError, match=r"claim.*sub-1_ses-2_raw\.edf"):
        read_trials(path.parent, **WINDOW)


def test_tasks_that_differ_are_named(make_raw: Maker, save: Saver) -> None:
    save(make_raw(), "sub-1_task-rest_raw.fif")
    path = save(make_raw(), "sub-1_task-mi_raw.fif")
    with pytest.raises(EEGTensorError, match="tasks differ"):
        read_trials(path.parent, **WINDOW)


def test_errors_survive_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(RecordingError("a.edf", "is empty", "get it")))
    assert str(error) == "a.edf: is empty. What to do: get it."


def test_labels_and_dataset(make_raw: Maker, save: Saver) -> None:
    path = save(make_raw(), "mi-set/sub-1/ses-a/sub-1_ses-a_task-mi_run-2_raw.fif")
    trials = read_trials(path, **WINDOW)
    row = trials.metadata.iloc[0]
    assert row[["dataset", "subject", "session", "run", "task"]].tolist() == [
        *("mi-set", "1", "a", "2", "mi")
    ]
    assert row["recording"] == path.name
    whole = read_trials(path.parents[2], dataset="other", **WINDOW)
    assert whole.metadata["dataset"].unique().tolist() == ["other"]
    assert whole.metadata["recording"][0] == f"sub-1/ses-a/{path.name}"
    named = read_trials(path, names=lambda p: {"subject": "x", "session": 3}, **WINDOW)
    assert [str(d) for d in named.domain.names] == ["mi-set/x/3"]


def test_trials_go_to_epochs_and_back(folder: Path) -> None:
    trials = read_trials(folder, include="*sub-[12]*", **WINDOW)
    again = Trials.from_epochs(trials.to_epochs())
    assert np.array_equal(again.X, trials.X.astype(np.float64))
    assert again.y.tolist() == trials.y.tolist()


def test_stim_channels_are_not_judged(make_raw: Maker, save: Saver) -> None:
    raw = make_raw()
    stim = mne.io.RawArray(
        np.full((1, raw.n_times), 7.0),
        mne.create_info(["STI"], 100.0, "stim"),
        verbose="ERROR",
    )
    raw.add_channels([stim], force_update_info=True)
    trials = read_trials(save(raw, "a_raw.fif"), picks="all", **WINDOW)
    assert trials.ch_names[-1] == "STI" and (trials.X[:, -1] == 7.0).all()


def test_channels_named_like_a_type(make_raw: Maker, save: Saver) -> None:
    raw = make_raw(names=("Cz", "ecg", "emg"))
    trials = read_trials(save(raw, "a_raw.fif"), picks=["emg", "Cz"], **WINDOW)
    assert np.array_equal(
        trials.X[0], raw.get_data()[[2, 0], 200:300].astype(np.float32)
    )


def test_a_recording_of_mostly_bad_channels_is_dropped_whole(
    make_raw: Maker, save: Saver
) -> None:
    save(make_raw(), "sub-1_raw.fif")
    broken = make_raw(seed=2)
    broken._data[:3] = 0.0
    path = save(broken, "sub-2_raw.fif")
    with pytest.warns(EEGTensorWarning, match=r"sub-2_raw\.fif: left out, flat"):
        trials = read_trials(path.parent, on_bad="drop", **WINDOW)
    assert _people(trials) == ["1"] and len(trials.ch_names) == 5


def test_cut_short_recordings_are_read_on_demand(
    shared_data: Path,
) -> None:
    path = shared_data / "formats/made/edf_truncated_midrecord.edf"
    with pytest.raises(RecordingError, match=r"40 data records.*holds 20\.5") as caught:
        read_trials(path, **WINDOW)
    assert caught.value.trials is None
    with pytest.warns(EEGTensorWarning, match="cut short"):
        trials = read_trials(path, on_bad="warn", **WINDOW)
    assert len(trials) == 1
    with pytest.raises(RecordingError, match="cut short"):
        read_trials(path, on_bad="drop", **WINDOW)


@pytest.fixture
def cut_brainvision(make_raw: Maker, tmp_path: Path) -> Path:
    """A BrainVision recording whose data end at a whole sample, too early."""
    path = tmp_path / "cut" / "sub-1.vhdr"
    path.parent.mkdir()
    raw = make_raw()
    mne.export.export_raw(path, raw, verbose="ERROR")
    data = path.with_suffix(".eeg").read_bytes()
    frame = len(data) // raw.n_times
    third_event = int(raw.annotations.onset[2] * raw.info["sfreq"])
    path.with_suffix(".eeg").write_bytes(data[: frame * third_event])
    return path


def test_markers_beyond_the_end_say_that_data_are_missing(
    cut_brainvision: Path,
) -> None:
    with pytest.raises(RecordingError, match="markers lie beyond the last"):
        read_trials(cut_brainvision, **WINDOW)
    with pytest.warns(EEGTensorWarning, match="markers lie beyond"):
        trials = read_trials(cut_brainvision, on_bad="warn", **WINDOW)
    assert 0 < len(trials) < 4


def test_drop_leaves_a_damaged_recording_out(
    cut_brainvision: Path, make_raw: Maker, save: Saver
) -> None:
    save(make_raw(), "cut/sub-2_raw.fif")
    with pytest.warns(EEGTensorWarning, match=r"left out(.|\n)*sub-1.vhdr"):
        trials = read_trials(cut_brainvision.parent, on_bad="drop", **WINDOW)
    assert _people(trials) == ["2"]
