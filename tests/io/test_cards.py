"""Dataset cards: complete, valid, and openable in one call."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import mne
import numpy as np
import pytest
import yaml

from eegtensor import EEGTensorError, EEGTensorWarning
from eegtensor.io.card_fields import parse_card
from eegtensor.io.cards import (
    cards_folder,
    list_cards,
    load_card,
    open_card,
    read_settings,
    verify_card,
)
from eegtensor.io.errors import RecordingError
from eegtensor.io.read import read_trials
from eegtensor.simulate import simulate_trials

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
CARDS = sorted(DATASETS.glob("*.yaml"))
NAMES = [path.stem for path in CARDS]


def content_of(name: str) -> dict:
    return yaml.safe_load((DATASETS / f"{name}.yaml").read_text(encoding="utf-8"))


def test_the_sets_of_the_field_have_cards():
    assert set(NAMES) >= {
        *("ssvep_exo", "bnci_iv_2b", "eegmat", "simulated", "bnci2014_001"),
        *("bnci2014_004", "bnci2015_001", "lee2019_mi", "stieger2021", "hinss2021"),
        *("sleep_edf", "physionet_mi", "eegmat_physionet", "kalunga2016"),
    }
    assert cards_folder().resolve() == DATASETS
    table = list_cards()
    assert table["name"].tolist() == NAMES
    assert table.set_index("name").loc["stieger2021", "sessions"] == "7-11"


@pytest.mark.parametrize("name", NAMES)
def test_card_fits_the_schema_and_loads(name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((DATASETS / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(content_of(name))
    card = load_card(name)
    assert card.licence and card.citation["text"] and card.source["urls"]
    assert card.citation.get("doi") or card.simulate
    low, high = card.window
    assert low < high and card.sfreq > 2 * max(b[1] for b in card.bands or [(0, 1)])


@pytest.mark.parametrize("name", NAMES)
def test_card_asks_read_trials_only_for_what_it_takes(name):
    card = load_card(name)
    if card.simulate is not None:
        assert set(card.simulate) <= set(inspect.signature(simulate_trials).parameters)
        return
    settings = read_settings(card, DATASETS)
    assert set(settings) <= set(inspect.signature(read_trials).parameters)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if load_card(n).fetch_kind == "moabb"]
)
def test_moabb_agrees_with_the_card(name):
    datasets = pytest.importorskip("moabb.datasets")
    card = load_card(name)
    rule = card.fetch["moabb"]
    dataset = getattr(datasets, rule["class"])(**rule.get("kwargs", {}))
    assert len(dataset.subject_list) == card.n_subjects
    assert set(card.events.values()) <= set(dataset.event_id)
    acquisition = dataset.metadata.acquisition
    assert acquisition.sampling_rate == card.sfreq
    assert set(card.channels) <= set(acquisition.sensors)
    start, stop = dataset.interval
    shift = rule.get("shift", 0.0)
    assert shift in (0.0, -start)
    # Kalunga2016's own interval ends 1 s before the trial does.
    slack = 1.0 if name == "kalunga2016" else 0.0
    assert card.window[1] <= stop - start - shift + slack


def test_schema_and_loader_know_the_same_fields():
    schema = json.loads((DATASETS / "schema.json").read_text())
    full = content_of("sleep_edf")
    for name in schema["properties"]:
        parse_card({**full, name: full.get(name, _some(name))}, Path("sleep_edf.yaml"))
    for name in schema["required"]:
        less = {key: value for key, value in full.items() if key != name}
        with pytest.raises(EEGTensorError, match=name):
            parse_card(less, Path("sleep_edf.yaml"))


def _some(name: str):
    return {
        "bands": [[1.0, 2.0]],
        "formats": {},
        "checksums": {"a.edf": "0" * 64},
        "simulate": {},
    }.get(name, "text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": [2.0, 1.0]}, "'window' is .*smaller first"),
        ({"window": "0-4"}, "'window'"),
        ({"sfreq": "fast"}, "'sfreq' is 'fast'"),
        ({"n_subjects": 0}, "'n_subjects' is 0"),
        ({"n_sessions": [1]}, "'n_sessions'"),
        ({"channels": ["C3", "C3"]}, "'channels'.*different"),
        ({"events": {13: 1}}, "'events'.*quoted"),
        ({"source": {"doi": "10.1/x"}}, "'source'.*urls"),
        ({"band": [30.0, 4.0]}, "'band'"),
        ({"citation": {}}, "'citation'.*text"),
        ({"licence": ""}, "'licence'"),
        ({"checksums": {"a": "123"}}, "'checksums'.*a has none"),
        ({"fetch": {"ftp": {}}}, "fetch"),
        ({"wndow": [0, 1]}, "did you mean 'window'"),
        ({"local": {"path": "x"}}, "'local'"),
        ({"name": "other"}, "one name"),
    ],
)
def test_a_faulty_card_is_named_with_its_field(tmp_path, change, message):
    file = tmp_path / "eegmat.yaml"
    file.write_text(yaml.safe_dump({**content_of("eegmat"), **change}))
    with pytest.raises(EEGTensorError, match=message) as error:
        load_card(file)
    assert str(file) in str(error.value)


def test_files_that_are_no_cards(tmp_path):
    with pytest.raises(EEGTensorError, match="no card file"):
        load_card(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("title: BCI: two colons")
    with pytest.raises(EEGTensorError, match="not YAML"):
        load_card(broken)
    broken.write_text("- a list")
    with pytest.raises(EEGTensorError, match="no mapping"):
        load_card(broken)


def test_an_unknown_name_lists_the_cards():
    with pytest.raises(EEGTensorError) as error:
        open_card("bnci2014_01")
    assert "did you mean 'bnci2014_001'" in str(error.value)
    assert all(name in str(error.value) for name in NAMES)


def test_a_missing_copy_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("EEGTENSOR_DATA", raising=False)
    with pytest.raises(
        EEGTensorError, match=r"\$EEGTENSOR_DATA is not set.*fetch_card"
    ):
        open_card("bnci2014_001")
    monkeypatch.setenv("EEGTENSOR_DATA", str(tmp_path))
    with pytest.raises(EEGTensorError) as error:
        open_card("eegmat")
    assert str(tmp_path / "eegmat") in str(error.value)
    assert "physionet.org" in str(error.value)
    with pytest.raises(EEGTensorError, match="nowhere"):
        open_card("eegmat", tmp_path / "nowhere")


def test_simulated_card_is_the_default_simulation():
    trials = open_card("simulated")
    assert trials.digest == simulate_trials().digest
    assert trials.ch_names == list(load_card("simulated").channels)
    assert trials.classes == sorted(load_card("simulated").events)
    assert len(open_card("simulated", n_subjects=2, n_trials=4)) == 16
    with pytest.raises(EEGTensorError, match="simulated"):
        open_card("simulated", "somewhere")


@pytest.mark.parametrize(
    ("name", "shape", "domains"),
    [
        ("bnci_iv_2b", (3000, 3, 750), 25),
        ("eegmat", (1439, 19, 500), 24),
    ],
)
def test_shared_sets_open_in_one_call(shared_data, monkeypatch, name, shape, domains):
    monkeypatch.setenv("EEGTENSOR_DATA", str(shared_data))
    trials, card = open_card(name), load_card(name)
    assert trials.X.shape == shape
    assert trials.sfreq == card.sfreq and trials.tmin == card.window[0]
    assert trials.classes == sorted(card.events)
    assert len(trials.domain.names) == domains
    assert set(trials.metadata["dataset"]) == {name}
    assert len(np.unique(trials.subjects)) == card.n_subjects
    assert set(verify_card(name).values()) == {"ok"}
    assert len(verify_card(name)) == len(list((shared_data / name).rglob("*.npz")))


def test_ssvep_opens_as_a_filter_bank_and_says_what_is_wrong(shared_data):
    one = shared_data / "ssvep_exo" / "sub-01" / "ses-0"
    with pytest.warns(EEGTensorWarning, match="implausible"):
        trials = open_card("ssvep_exo", one)
    assert trials.X.shape == (32, 24, 1024)
    assert trials.classes == ["13", "17", "21", "rest"]
    assert np.unique(trials.y, return_counts=True)[1].tolist() == [8, 8, 8, 8]
    assert trials.ch_names[0] == "Oz 12.5-13.5Hz"
    with pytest.warns(EEGTensorWarning, match="implausible"):
        wide = open_card("ssvep_exo", one, band=(5, 45), tmin=2.0)
    assert wide.X.shape == (32, 8, 768)
    assert set(verify_card("ssvep_exo", shared_data / "ssvep_exo").values()) == {"ok"}


def test_another_format_of_a_recording_gives_the_same_trials(shared_data):
    fif = shared_data / "ssvep_exo" / "sub-01" / "ses-0"
    gdf = shared_data / "native" / "sub-01_ses-0_task-ssvep.gdf"
    with pytest.warns(EEGTensorWarning):
        a = open_card("ssvep_exo", fif, band=(5, 45))
    with pytest.warns(EEGTensorWarning):
        b = open_card("ssvep_exo", gdf, band=(5, 45))
    # The FIF's event lies one sample later; the order is by onset in both.
    assert a.y.tolist() == b.y.tolist()
    here, there = a.X[:, :, :-1], 1e6 * b.X[:, :, 1:]
    assert np.abs(here - there).max() < 1e-3 * np.abs(here).max()


def test_verify_finds_damaged_and_missing_files(shared_data, tmp_path):
    for file in ("sub-00_ses-0.npz", "sub-01_ses-0.npz"):
        shutil.copy(shared_data / "eegmat" / file, tmp_path / file)
        (tmp_path / file).chmod(0o600)
    with (tmp_path / "sub-01_ses-0.npz").open("ab") as stream:
        stream.write(b"x")
    state = verify_card("eegmat", tmp_path)
    assert state["sub-00_ses-0.npz"] == "ok"
    assert state["sub-01_ses-0.npz"] == "differs"
    assert state["sub-02_ses-0.npz"] == "missing"


def test_files_of_one_class_are_cut_end_to_end(shared_data, tmp_path):
    for i in "12":
        shutil.copy(shared_data / "native" / f"Subject00_{i}.edf", tmp_path)
    trials = open_card("eegmat_physionet", tmp_path)
    assert trials.X.shape == (60, 19, 2000)
    assert np.sum(trials.y == "rest") == 45
    assert trials.metadata["onset"].tolist() == [
        4.0 * i for i in (*range(45), *range(15))
    ]
    assert set(trials.metadata["run"]) == {"1", "2"}
    assert trials.domain.names == (("eegmat_physionet", "00", "0"),)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".edf", ".edf"]
    # The shared set holds the same windows, resampled.
    shared = open_card("eegmat", shared_data / "eegmat" / "sub-00_ses-0.npz")
    a = trials.X[10, trials.ch_names.index("Cz"), ::4]
    b = shared.X[10, shared.ch_names.index("Cz")]
    assert np.corrcoef(a, b)[0, 1] > 0.95


def test_a_file_that_fits_no_class_is_named(shared_data, tmp_path):
    shutil.copy(
        shared_data / "native" / "Subject00_1.edf", tmp_path / "Subject00_3.edf"
    )
    with pytest.raises(EEGTensorError, match="Subject00_3"):
        open_card("eegmat_physionet", tmp_path)


def night(folder: Path, subject: str, stages: list[tuple[float, str]]) -> None:
    """Write a synthetic Sleep-EDF night: a PSG and its hypnogram."""
    rng = np.random.default_rng(int(subject))
    seconds = int(sum(length for length, _ in stages))
    info = mne.create_info(["Fpz-Cz", "Pz-Oz"], 100.0, "eeg")
    raw = mne.io.RawArray(2e-5 * rng.standard_normal((2, 100 * seconds)), info)
    raw.rename_channels({"Fpz-Cz": "EEG Fpz-Cz", "Pz-Oz": "EEG Pz-Oz"})
    raw.export(folder / f"SC4{subject}1E0-PSG.edf", verbose="ERROR")
    onset = np.cumsum([0.0, *(length for length, _ in stages[:-1])])
    notes = mne.Annotations(onset, [s[0] for s in stages], [s[1] for s in stages])
    raw.set_annotations(notes)
    raw.pick([0]).export(folder / f"SC4{subject}1EC-Hypnogram.edf", verbose="ERROR")


def test_scored_nights_become_epochs(tmp_path):
    pytest.importorskip("edfio")
    night(
        tmp_path,
        "00",
        [(60.0, "Sleep stage W"), (30.0, "Sleep stage 3"), (60.0, "Sleep stage 4")],
    )
    night(tmp_path, "07", [(30.0, "Sleep stage R"), (30.0, "Movement time")])
    trials = open_card("sleep_edf", tmp_path)
    assert trials.y.tolist() == ["W", "W", "N3", "N3", "N3", "R"]
    assert trials.X.shape == (6, 2, 3000)
    assert trials.metadata["onset"].tolist() == [0.0, 30.0, 60.0, 90.0, 120.0, 0.0]
    assert [d.subject for d in trials.domain.names] == ["00", "07"]
    assert set(trials.sessions) == {"1"}
    (tmp_path / "SC4071EC-Hypnogram.edf").unlink()
    with pytest.raises(RecordingError, match="SC4071E0-PSG"):
        open_card("sleep_edf", tmp_path)


def test_readme_lists_every_card():
    text = (DATASETS / "README.md").read_text(encoding="utf-8")
    for card in list_cards().itertuples():
        row = next(x for x in text.splitlines() if x.startswith(f"| `{card.name}` "))
        assert f"| {card.subjects} x {card.sessions} |" in row
        assert card.licence in row and card.classes in row
