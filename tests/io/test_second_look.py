"""Faults that a second reader found: each of these once gave nonsense or a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import yaml

from eegtensor import EEGTensorError, Trials
from eegtensor.io import RecordingError, load_card, read_trials, recording_info
from eegtensor.io.cards import cards_folder
from eegtensor.io.moabb_files import _save

MakeRaw = Callable[..., mne.io.RawArray]
Save = Callable[..., Path]


def test_events_do_not_drift_where_the_ratio_is_rounded(
    make_raw: MakeRaw, save: Save
) -> None:
    onsets = tuple(np.arange(10.0, 890.0, 40.0))
    raw = make_raw(sfreq=499.95, seconds=900.0, onsets=onsets)
    raw._data *= 0.05
    for onset in onsets:
        start = round(onset * 499.95)
        raw._data[:, start : start + 100] += 5e-5
    trials = read_trials(save(raw, "s_raw.fif"), tmin=-0.2, tmax=0.3, sfreq=250.0)
    assert set((trials.X[:, 0] > 2.5e-5).argmax(axis=1)) <= {49, 50, 51}


def test_a_nan_in_the_reference_is_seen(make_raw: MakeRaw, save: Save) -> None:
    raw = make_raw()
    raw._data[4, 250] = np.nan
    path = save(raw, "s_raw.fif")
    ask = {"tmin": 0.0, "tmax": 1.0, "picks": ["C3"], "band": (1, 30)}
    with pytest.raises(RecordingError, match="NaN or infinite samples in Pz"):
        read_trials(path, reference="average", **ask)
    with pytest.warns(UserWarning, match="channels dropped"):
        trials = read_trials(path, reference="average", on_bad="drop", **ask)
    assert np.isfinite(trials.X).all()
    with (
        pytest.raises(RecordingError, match="left out"),
    ):
        read_trials(path, reference="Pz", on_bad="drop", **ask)


def test_all_channels_bad(make_raw: MakeRaw, save: Save) -> None:
    raw = make_raw()
    raw.info["bads"] = list(raw.ch_names)
    with pytest.raises(RecordingError, match="marked bad"):
        recording_info(save(raw, "s_raw.fif"))


def test_info_of_two_faults_prints(make_raw: MakeRaw, save: Save) -> None:
    raw = make_raw()
    raw._data[0] = 0.0
    raw._data[1] = np.nan
    text = str(recording_info(save(raw, "s_raw.fif")))
    assert text.count("  fault ") == 2 and text.count("what to do") == 1


def test_kinds_of_labels_do_not_mix(save_npz: Save, tmp_path: Path) -> None:
    save_npz("a.npz", subject="1", y=np.arange(6.0))
    save_npz("b.npz", subject="2")
    with pytest.raises(EEGTensorError, match="part 0 has continuous targets"):
        read_trials(tmp_path, tmin=0.0, tmax=1.0)


def test_half_precision_keeps_its_digits(save_npz: Save) -> None:
    X = np.random.default_rng(0).standard_normal((6, 3, 200)).astype(np.float16)
    trials = read_trials(
        save_npz("a.npz", X=X, scale=np.float32(2e-5)), tmin=0.0, tmax=2.0
    )
    np.testing.assert_allclose(trials.X, X.astype(float) * 2e-5, rtol=1e-6)


def test_a_store_keeps_its_task_and_takes_a_name(
    make_raw: MakeRaw, save: Save, tmp_path: Path
) -> None:
    path = save(make_raw(), "sub-1_task-walk_raw.fif")
    read_trials(path, tmin=0.0, tmax=1.0, store=tmp_path / "st", dataset="own")
    again = read_trials(tmp_path / "st", tmin=0.0, tmax=1.0)
    assert set(again.metadata["task"]) == {"walk"}
    assert set(again.metadata["dataset"]) == {"own"}
    named = read_trials(tmp_path / "st", tmin=0.0, tmax=1.0, dataset="new")
    assert set(named.metadata["dataset"]) == {"new"}


def test_a_damaged_store_costs_no_other_recording(
    save_npz: Save, tmp_path: Path
) -> None:
    good = read_trials(save_npz("in/a.npz"), tmin=0.0, tmax=1.0)
    good.save(tmp_path / "in" / "bad")
    (tmp_path / "in" / "bad" / "index.json").write_text("{")
    good[[]].save(tmp_path / "in" / "none")
    with pytest.raises(RecordingError, match="damaged") as caught:
        read_trials(tmp_path / "in", tmin=0.0, tmax=1.0)
    assert caught.value.trials is not None and len(caught.value.trials) == len(good)
    assert any("no trials" in fault.fault for fault in caught.value.faults)


def test_epochs_keep_their_onsets_and_lack_no_subject(
    make_raw: MakeRaw, save: Save, tmp_path: Path
) -> None:
    trials = read_trials(save(make_raw(), "s_raw.fif"), tmin=0.0, tmax=1.0)
    epochs = trials.to_epochs()
    epochs.save(tmp_path / "s-epo.fif", verbose="ERROR")
    again = read_trials(tmp_path / "s-epo.fif", tmin=0.0, tmax=1.0)
    np.testing.assert_allclose(again.metadata["onset"], trials.metadata["onset"])
    epochs.metadata = pd.DataFrame({"subject": ["1", np.nan, "2", "2"]})
    epochs.save(tmp_path / "t-epo.fif", verbose="ERROR")
    with pytest.raises(RecordingError, match="'subject' is missing for trials 1"):
        read_trials(tmp_path / "t-epo.fif", tmin=0.0, tmax=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tmax": 0.001}, "holds no sample"),
        ({"tmin": "a"}, "is empty"),
        ({"sfreq": "100"}, "is no rate"),
        ({"scale": 0}, "is no factor"),
        ({"picks": [0, 1]}, "are no names"),
        ({"picks": []}, "are no names"),
        ({"events": "{sub}.eve"}, "^The path template"),
        ({"bands": 5}, "is no list"),
        ({"include": 5}, "include= is a int"),
        ({"names": 5}, "names= is a int"),
        ({"reference": 5}, "reference= is a int"),
    ],
)
def test_wrong_settings_are_named(
    make_raw: MakeRaw, save: Save, change: dict, message: str
) -> None:
    path = save(make_raw(), "s_raw.fif")
    with pytest.raises(EEGTensorError, match=message):
        read_trials(path, **({"tmin": 0.0, "tmax": 1.0} | change))


def test_no_paths() -> None:
    with pytest.raises(EEGTensorError, match="are no paths"):
        read_trials(None, tmin=0.0, tmax=1.0)  # type: ignore[arg-type]


def test_codes_may_be_floats(make_raw: MakeRaw, save: Save) -> None:
    path = save(make_raw(classes=("1", "2")), "s_raw.fif")
    trials = read_trials(path, tmin=0.0, tmax=1.0, events={"go": 1.0, "no": [2.0]})
    assert isinstance(trials, Trials) and trials.classes == ["go", "no"]


def test_moabb_annotations_stay_where_a_recording_starts_late(
    make_raw: MakeRaw, tmp_path: Path
) -> None:
    raw = make_raw(first_samp=5000)
    _save(raw, tmp_path / "s_raw.fif", {"left": 1, "right": 2}, 0.5)
    trials = read_trials(tmp_path / "s_raw.fif", tmin=0.0, tmax=1.0)
    np.testing.assert_allclose(trials.metadata["onset"], [2.5, 5.5, 9.5, 14.5])


@pytest.mark.parametrize(
    ("card", "change", "message"),
    [
        ("eegmat_physionet", {"local": {"blocks": {"length": 4}}}, "give blocks as"),
        ("eegmat_physionet", {"local": {"names": "(?P<subject>["}}, "regular expr"),
        ("bnci2014_001", {"fetch": {"moabb": {}}}, "give moabb as"),
    ],
)
def test_rules_of_a_card_of_ones_own(
    tmp_path: Path, card: str, change: dict, message: str
) -> None:
    content = yaml.safe_load((cards_folder() / f"{card}.yaml").read_text())
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({**content, "name": "own", **change}))
    with pytest.raises(EEGTensorError, match=message):
        load_card(own)
    own.write_bytes(b"\xff\xfe")
    with pytest.raises(EEGTensorError, match="not YAML"):
        load_card(own)
