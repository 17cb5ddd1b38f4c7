"""Trials that were cut before: npz, epochs files and stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from scipy.signal import butter, sosfiltfilt

from eegtensor import EEGTensorError, Trials
from eegtensor.io import RecordingError, read_trials

NpzSaver = Callable[..., Path]
WINDOW = {"tmin": 0.5, "tmax": 1.5}


def test_npz_samples_labels_and_window(save_npz: NpzSaver) -> None:
    path = save_npz("sub-01_ses-0.npz")
    trials = read_trials(path, **WINDOW)
    with np.load(path) as file:
        X, scale = file["X"], float(file["scale"])
    assert np.array_equal(trials.X, (X[:, :, 50:150] * scale).astype(np.float32))
    assert trials.y.tolist() == ["rest", "task"] * 3
    # The arrays win over the path.
    assert trials.metadata["subject"].unique().tolist() == ["07"]
    assert trials.metadata["run"].tolist() == ["1"] * 3 + ["2"] * 3
    assert trials.ch_names == ["C3", "Cz", "C4"] and trials.sfreq == 100.0


def test_npz_takes_the_path_where_arrays_are_missing(save_npz: NpzSaver) -> None:
    path = save_npz("sub-01_ses-5.npz", subject=None, session=None, run=None)
    row = read_trials(path, **WINDOW).metadata.iloc[0]
    assert row[["subject", "session", "run"]].tolist() == ["01", "5", "0"]


def test_npz_filter_runs_over_the_whole_trial(save_npz: NpzSaver) -> None:
    path = save_npz("a.npz")
    trials = read_trials(path, band=(8.0, 30.0), **WINDOW)
    with np.load(path) as file:
        X = file["X"] * float(file["scale"])
    sos = butter(4, (8.0, 30.0), "bandpass", fs=100.0, output="sos")
    wanted = sosfiltfilt(sos, X, axis=-1)[:, :, 50:150].astype(np.float32)
    assert np.array_equal(trials.X, wanted)


def test_npz_classes_are_chosen_and_renamed(save_npz: NpzSaver) -> None:
    path = save_npz("a.npz")
    trials = read_trials(path, events={"t": "task"}, **WINDOW)
    assert trials.y.tolist() == ["t"] * 3
    assert trials.metadata["run"].tolist() == ["1", "2", "2"]
    with pytest.raises(EEGTensorError, match="feet; there are rest, task"):
        read_trials(path, events=["feet"], **WINDOW)


def test_npz_continuous_targets(save_npz: NpzSaver) -> None:
    path = save_npz("a.npz", y=np.linspace(0, 1, 6))
    assert read_trials(path, **WINDOW).y.dtype == np.float64
    with pytest.raises(RecordingError, match="continuous targets"):
        read_trials(path, events=["task"], **WINDOW)


@pytest.mark.parametrize("window", [(-0.1, 1.0), (0.0, 2.01)])
def test_npz_window_outside(save_npz: NpzSaver, window: tuple[float, float]) -> None:
    with pytest.raises(RecordingError, match=r"which hold \[0, 2\) s"):
        read_trials(save_npz("a.npz"), tmin=window[0], tmax=window[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": None}, "key X is missing"),
        ({"y": None}, "keys y are missing"),
        ({"sfreq": None, "scale": None}, "keys scale, sfreq are missing"),
        ({"X": np.zeros((6, 3), np.int16)}, r"X has shape \(6, 3\)"),
        ({"X": np.zeros((6, 3, 0), np.int16)}, r"X has shape \(6, 3, 0\)"),
        ({"X": np.full((6, 3, 9), "a")}, "dtype <U1"),
        ({"y": np.asarray(["rest"] * 5)}, r"y has shape \(5,\) for 6 trials"),
        ({"y": np.asarray([0.0, 1, 2, 3, 4, np.nan])}, "y holds NaN"),
        ({"y": np.asarray([{}, 1, 2, 3, 4, 5], dtype=object)}, "pickled objects"),
        ({"X": np.asarray([[[{}]]], dtype=object)}, "pickled objects"),
        ({"ch_names": np.asarray(["C3", "Cz"])}, "2 names for 3 channels"),
        ({"ch_names": np.asarray(["C3", "C3", "Cz"])}, "2 names for 3 channels"),
        ({"scale": np.float32(0)}, "scale is .*not one positive number"),
        ({"sfreq": np.float64(np.nan)}, "sfreq is .*not one positive number"),
        ({"sfreq": np.asarray([100.0, 200.0])}, "sfreq is"),
        ({"session": np.asarray(["a", "b"])}, r"session has shape \(2,\)"),
        ({"unit": np.asarray("uV")}, "unit is 'uV'"),
    ],
)
def test_npz_faults_are_named(
    save_npz: NpzSaver, changes: dict[str, object], words: str
) -> None:
    path = save_npz("a.npz", **changes)
    with pytest.raises(RecordingError, match=words) as caught:
        read_trials(path, **WINDOW)
    assert caught.value.path == str(path) and caught.value.remedy


def test_npz_damage(save_npz: NpzSaver) -> None:
    path = save_npz("a.npz")
    whole = path.read_bytes()
    for content in (whole[:500], whole[: len(whole) // 2], b"PK\x03\x04", b"nothing"):
        path.write_bytes(content)
        with pytest.raises(RecordingError, match=r"damaged or cut short|missing"):
            read_trials(path, **WINDOW)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(RecordingError, match="damaged"):
        read_trials(path, **WINDOW)


@pytest.fixture
def epochs(rng: np.random.Generator) -> mne.EpochsArray:
    info = mne.create_info(["Fz", "Cz", "Pz"], 100.0, "eeg")
    events = np.asarray([[100, 0, 1], [300, 0, 2], [500, 0, 1], [700, 0, 2]])
    metadata = pd.DataFrame({"speed": [1, 2, 3, 4], "session": list("aabb")})
    return mne.EpochsArray(
        2e-5 * rng.standard_normal((4, 3, 151)),
        info,
        events=events,
        tmin=-0.5,
        event_id={"go": 1, "stop": 2},
        metadata=metadata,
        verbose="ERROR",
    )


def test_epochs_file(epochs: mne.EpochsArray, tmp_path: Path) -> None:
    path = tmp_path / "sub-3-epo.fif"
    epochs.save(path, fmt="double", verbose="ERROR")
    trials = read_trials(path, tmin=-0.5, tmax=1.0)
    X = epochs.get_data(copy=True)
    assert np.array_equal(trials.X, X[:, :, :150].astype(np.float32))
    assert trials.y.tolist() == ["go", "stop", "go", "stop"]
    assert trials.metadata["session"].tolist() == ["a", "a", "b", "b"]
    assert trials.metadata["subject"].tolist() == ["3"] * 4
    assert trials.metadata["speed"].tolist() == [1, 2, 3, 4]
    later = read_trials(path, tmin=0.25, tmax=0.75, events={"halt": 2})
    assert later.y.tolist() == ["halt", "halt"]
    assert np.array_equal(later.X, X[[1, 3], :, 75:125].astype(np.float32))
    with pytest.raises(RecordingError, match=r"hold \[-0.5, 1.01\) s"):
        read_trials(path, tmin=-0.6, tmax=0.5)


def test_eeglab_epochs(epochs: mne.EpochsArray, tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    X = epochs.get_data(copy=True)
    records = [
        {"latency": i * 151.0 + 51, "type": name, "epoch": float(i + 1)}
        for i, name in enumerate(("go", "stop", "go", "stop"))
    ]
    eeg = {
        "setname": "x",
        "nbchan": 3.0,
        "trials": 4.0,
        "pnts": 151.0,
        "srate": 100.0,
        "xmin": -0.5,
        "xmax": 1.0,
        "data": (X * 1e6).transpose(1, 2, 0),
        "chanlocs": np.asarray([("Fz",), ("Cz",), ("Pz",)], dtype=[("labels", object)]),
        "event": np.asarray(
            [(r["latency"], r["type"], r["epoch"]) for r in records],
            dtype=[("latency", object), ("type", object), ("epoch", object)],
        ),
        "epoch": np.asarray(
            [(i + 1.0, 0.0, r["type"]) for i, r in enumerate(records)],
            dtype=[
                ("event", object),
                ("eventlatency", object),
                ("eventtype", object),
            ],
        ),
    }
    path = tmp_path / "sub-5.set"
    scipy_io.savemat(path, {"EEG": eeg}, appendmat=False)
    trials = read_trials(path, tmin=0.0, tmax=1.0)
    assert trials.y.tolist() == ["go", "stop", "go", "stop"]
    assert np.allclose(trials.X, X[:, :, 50:150], rtol=1e-6)


def test_store_is_read_like_a_recording(save_npz: NpzSaver, tmp_path: Path) -> None:
    for i in (1, 2):
        save_npz(f"set/{i}.npz", subject=np.asarray(f"s{i}"))
    whole = read_trials(tmp_path / "set", **WINDOW)
    stored = read_trials(tmp_path / "set", store=tmp_path / "store", **WINDOW)
    assert isinstance(stored.X, np.memmap) and stored.digest == whole.digest
    again = read_trials(tmp_path / "store", tmin=0.5, tmax=1.0)
    assert np.array_equal(again.X, whole.X[:, :, :50])
    assert again.metadata["subject"].tolist() == ["s1"] * 6 + ["s2"] * 6
    assert again.metadata["dataset"].unique().tolist() == ["set"]
    assert Trials.load(tmp_path / "store").digest == whole.digest


def test_two_npz_files_of_the_same_person(save_npz: NpzSaver, tmp_path: Path) -> None:
    save_npz("set/a.npz")
    save_npz("set/b.npz")
    with pytest.raises(EEGTensorError, match=r"claim subject 07, session 2, run 1"):
        read_trials(tmp_path / "set", **WINDOW)


def test_fif_without_a_telling_name(epochs: mne.EpochsArray, tmp_path: Path) -> None:
    path = tmp_path / "sub-3.fif"
    epochs.save(path, fmt="double", verbose="ERROR")
    assert len(read_trials(path, tmin=0.0, tmax=1.0)) == 4
    events = tmp_path / "sub-3-eve.fif"
    mne.write_events(events, epochs.events, verbose="ERROR")
    with pytest.raises(RecordingError, match="by its name it holds no signals"):
        read_trials(events, tmin=0.0, tmax=1.0)


def test_bad_epochs_are_left_out(epochs: mne.EpochsArray, tmp_path: Path) -> None:
    epochs.drop([1], verbose="ERROR")
    path = tmp_path / "sub-3-epo.fif"
    epochs.save(path, fmt="double", verbose="ERROR")
    trials = read_trials(path, tmin=0.0, tmax=1.0)
    assert trials.y.tolist() == ["go", "go", "stop"]
