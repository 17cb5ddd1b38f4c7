from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

from eegtensor import EEGTensorError, EEGTensorWarning
from eegtensor.io import RecordingError, read_trials
from eegtensor.io.harmonise import canonical_name, canonical_names
from eegtensor.io.montage import (
    interpolation_matrix,
    make_info,
    standard_positions,
)

Maker = Callable[..., mne.io.RawArray]
Saver = Callable[..., Path]
WINDOW = {"tmin": 0.0, "tmax": 1.0}


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("FP1", "Fp1"),
        ("cz", "Cz"),
        ("Fc5.", "FC5"),
        ("Fp1..", "Fp1"),
        ("EEG Fp1", "Fp1"),
        ("EEG Fp2-Ref", "Fp2"),
        ("EEG T3-LE", "T7"),
        ("C3-A1A2", "C3"),
        ("T3", "T7"),
        ("t4", "T8"),
        ("T5", "P7"),
        ("T6", "P8"),
        ("C3-A2", "C3-A2"),
        ("EEG 001", "EEG 001"),
        ("E12", "E12"),
        ("C3-C4", "C3-C4"),
    ],
)
def test_canonical_names(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical


def test_names_that_would_collide_stay() -> None:
    assert canonical_names(["T3", "T7", "cz"]) == ["T3", "T7", "Cz"]


def test_positions_come_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    standard_positions.cache_clear()
    assert {"Cz", "T7", "P8"} <= standard_positions().keys()
    assert not recwarn.list


def test_spellings_and_orders_meet(make_raw: Maker, save: Saver) -> None:
    a = make_raw(names=("Fc5.", "T3", "Cz"), seed=1)
    b = make_raw(names=("EEG CZ-Ref", "EEG FC5-Ref", "EEG T7-Ref"), seed=2)
    path = save(a, "sub-1_raw.fif")
    save(b, "sub-2_raw.fif")
    trials = read_trials(path.parent, **WINDOW)
    assert trials.ch_names == ["FC5", "T7", "Cz"]
    second = trials.X[(trials.metadata["subject"] == "2").to_numpy()]
    expected = b.get_data()[[1, 2, 0], 200:300].astype(np.float32)
    assert np.array_equal(second[0], expected)
    loc = trials.info["chs"][1]["loc"][:3]
    assert np.allclose(loc, standard_positions()["T7"])


def test_intersection_says_what_was_lost(
    make_raw: Maker, save: Saver, caplog: pytest.LogCaptureFixture
) -> None:
    save(make_raw(), "sub-1_raw.fif")
    path = save(make_raw(names=("C4", "Cz", "C3")), "sub-2_raw.fif")
    with caplog.at_level(logging.WARNING, "eegtensor"):
        trials = read_trials(path.parent, **WINDOW)
    assert trials.ch_names == ["C3", "Cz", "C4"]
    assert "channels Fz, Pz are left out: absent or bad in sub-2_raw.fif" in caplog.text


def test_interpolation_is_mnes(
    make_raw: Maker, save: Saver, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("Fz", "C3", "Cz", "C4", "Pz", "O1", "O2", "F3")
    save(make_raw(names=names), "sub-1_raw.fif")
    raw = make_raw(names=names[:-1], seed=3)
    path = save(raw, "sub-2_raw.fif")
    with caplog.at_level(logging.WARNING, "eegtensor"):
        trials = read_trials(path.parent, channels="interpolate", **WINDOW)
    assert trials.ch_names == list(names)
    assert "sub-2_raw.fif: channels F3 are interpolated" in caplog.text
    full = mne.io.RawArray(
        np.vstack([raw.get_data(), np.zeros(raw.n_times)]),
        make_info(names, ["eeg"] * 8, 100.0, standard_positions()),
        verbose="ERROR",
    )
    full.info["bads"] = ["F3"]
    full.interpolate_bads(verbose="ERROR")
    second = trials.X[(trials.metadata["subject"] == "2").to_numpy()][0]
    assert np.allclose(second, full.get_data()[:, 200:300], rtol=1e-6, atol=1e-12)
    assert np.abs(second[-1]).max() > 1e-6


def test_interpolation_matrix_reproduces_a_constant() -> None:
    present = ["Fz", "C3", "Cz", "C4", "Pz", "O1"]
    W = interpolation_matrix(present, ["O2", "F3"], standard_positions())
    assert W.shape == (2, 6)
    assert np.allclose(W.sum(axis=1), 1.0, atol=1e-3)


def test_no_common_channel_names_each_persons(make_raw: Maker, save: Saver) -> None:
    save(make_raw(names=("Fz", "Cz")), "sub-1_raw.fif")
    path = save(make_raw(names=("O1", "O2")), "sub-2_raw.fif")
    with pytest.raises(
        EEGTensorError,
        match=r"sub-1_raw.fif with Fz, Cz; sub-2_raw.fif with O1, O2.*interpolate",
    ):
        read_trials(path.parent, **WINDOW)
    with pytest.raises(EEGTensorError, match=r"only 2 channels of known position"):
        read_trials(path.parent, channels="interpolate", **WINDOW)


def test_picks_by_name_and_type(make_raw: Maker, save: Saver) -> None:
    raw = make_raw(names=("Fz", "C3", "Cz", "EOG left", "C4"))
    path = save(raw, "a_raw.fif")
    assert read_trials(path, **WINDOW).ch_names == ["Fz", "C3", "Cz", "C4"]
    assert read_trials(path, picks="eog", **WINDOW).ch_names == ["EOG left"]
    chosen = read_trials(path, picks=["CZ", "eog", "EEG C3"], **WINDOW)
    assert chosen.ch_names == ["Cz", "EOG left", "C3"]
    assert len(read_trials(path, picks="all", **WINDOW).ch_names) == 5
    with pytest.raises(RecordingError, match=r"no channels or types Oz; it has Fz"):
        read_trials(path, picks=["Cz", "Oz"], **WINDOW)


def test_picked_channel_that_one_recording_lacks(make_raw: Maker, save: Saver) -> None:
    save(make_raw(), "sub-1_raw.fif")
    path = save(make_raw(names=("Fz", "C3", "C4", "Pz")), "sub-2_raw.fif")
    with pytest.raises(RecordingError, match="no channels or types Cz") as caught:
        read_trials(path.parent, picks=["C3", "Cz"], **WINDOW)
    assert caught.value.path.endswith("sub-2_raw.fif")
    assert caught.value.trials is not None and len(caught.value.trials) == 4
    restored = read_trials(path.parent, channels="interpolate", **WINDOW)
    assert restored.ch_names == ["Fz", "C3", "Cz", "C4", "Pz"] and len(restored) == 8
    with pytest.raises(EEGTensorError, match="No recording has the channels Oz"):
        read_trials(path.parent, picks=["C3", "Oz"], channels="interpolate", **WINDOW)


def test_channels_marked_bad_in_the_file_are_left_out(
    make_raw: Maker, save: Saver
) -> None:
    raw = make_raw()
    raw.info["bads"] = ["Cz"]
    trials = read_trials(save(raw, "a_raw.fif"), **WINDOW)
    assert trials.ch_names == ["Fz", "C3", "C4", "Pz"]


def test_positions_in_millimetres_are_not_believed(shared_data: Path) -> None:
    folder = shared_data / "ssvep_exo" / "sub-01" / "ses-0"
    with pytest.warns(EEGTensorWarning, match="implausible"):
        trials = read_trials(folder, tmin=1, tmax=2, on_bad="warn")
    norms = [np.linalg.norm(ch["loc"][:3]) for ch in trials.info["chs"]]
    assert 0.05 < min(norms) and max(norms) < 0.15
