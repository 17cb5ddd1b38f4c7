"""Downloads from a mirror on the loopback interface, and through MOABB."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mne
import numpy as np
import pytest
import yaml

from eegtensor import EEGTensorError
from eegtensor.io import fetch
from eegtensor.io.cards import Card, load_card, open_card, verify_card
from eegtensor.io.fetch import fetch_card
from eegtensor.io.moabb_files import moabb_dataset

pytest.importorskip("pooch")


class Mirror:
    """A folder served on 127.0.0.1; `asked` counts requests for each file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.cut = folder, [], set()
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                mirror.asked.append(name)
                if name in mirror.cut:
                    data = (folder / name).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                else:
                    super().do_GET()

            def log_message(self, *args):
                pass

        handler = functools.partial(Handler, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    server = Mirror(folder)
    yield server
    server.close()


def store_npz(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    np.savez(
        path,
        X=(1000 * rng.standard_normal((6, 2, 200))).astype(np.int16),
        scale=np.float32(1e-8),
        y=np.array(["rest", "task"] * 3),
        sfreq=100.0,
        ch_names=np.array(["C3", "C4"]),
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def card(mirror, tmp_path) -> Card:
    """A card of three people whose files the mirror has."""
    for i in (1, 2, 3):
        store_npz(mirror.folder / f"sub-0{i}_ses-0.npz", i)
    content = {
        "name": "small",
        "title": "a small set",
        "paradigm": "workload",
        "source": {"urls": ["https://example.org"]},
        "licence": "CC0-1.0",
        "citation": {"text": "nobody"},
        "n_subjects": 3,
        "n_sessions": 1,
        "events": {"rest": "rest", "task": "task"},
        "channels": ["C3", "C4"],
        "sfreq": 100,
        "window": [0, 2],
        "band": None,
        "settings_from": "the test",
        "local": {"include": "*.npz", "names": "sub-{subject}_ses-{session}.npz"},
        "fetch": {"files": {"base_url": mirror.url}},
        "checksums": {p.name: digest(p) for p in sorted(mirror.folder.glob("*.npz"))},
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_card(file)


def change(card: Card, **fields) -> Card:
    return Card(
        **{**{k: getattr(card, k) for k in card.__dataclass_fields__}, **fields}
    )


def visible(folder: Path) -> list[str]:
    return sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    )


def test_fetched_card_opens(card, mirror, tmp_path):
    copy = fetch_card(card, tmp_path / "copy")
    assert visible(copy) == sorted(card.checksums)
    assert set(verify_card(card, copy).values()) == {"ok"}
    trials = open_card(card, copy)
    assert len(trials) == 18
    assert [d.subject for d in trials.domain.names] == ["01", "02", "03"]
    asked = len(mirror.asked)
    fetch_card(card, tmp_path / "copy")
    assert len(mirror.asked) == asked


def test_fetch_of_some_people(card, mirror, tmp_path):
    copy = fetch_card(card, tmp_path / "copy", subjects=[2])
    assert visible(copy) == ["sub-02_ses-0.npz"]
    with pytest.raises(EEGTensorError, match=r"subjects 9.*choose among 01, 02, 03"):
        fetch_card(card, tmp_path / "copy", subjects=[9])


def test_interrupted_fetch_resumes(card, mirror, tmp_path, monkeypatch):
    real = fetch._download
    started = []

    def interrupted(pooch, url, *args):
        started.append(url)
        if len(started) == 2:
            raise KeyboardInterrupt
        real(pooch, url, *args)

    monkeypatch.setattr(fetch, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_card(card, tmp_path / "copy")
    assert visible(tmp_path / "copy") == ["sub-01_ses-0.npz"]
    monkeypatch.undo()
    fetch_card(card, tmp_path / "copy")
    assert len(visible(tmp_path / "copy")) == 3
    assert mirror.asked.count("sub-01_ses-0.npz") == 1


def test_a_transfer_that_breaks_off_leaves_no_file(card, mirror, tmp_path):
    mirror.cut.add("sub-02_ses-0.npz")
    with pytest.raises(
        EEGTensorError, match=r"sub-02_ses-0\.npz.*call fetch_card again"
    ):
        fetch_card(card, tmp_path / "copy")
    assert visible(tmp_path / "copy") == ["sub-01_ses-0.npz"]
    assert not list((tmp_path / "copy").glob(".part-*"))
    mirror.cut.clear()
    fetch_card(card, tmp_path / "copy")
    assert set(verify_card(card, tmp_path / "copy").values()) == {"ok"}


def test_a_partial_or_damaged_file_is_fetched_again(card, mirror, tmp_path):
    copy = fetch_card(card, tmp_path / "copy")
    target = copy / "sub-03_ses-0.npz"
    target.write_bytes(target.read_bytes()[:100])
    mirror.asked.clear()
    fetch_card(card, copy)
    assert mirror.asked == ["sub-03_ses-0.npz"]
    assert set(verify_card(card, copy).values()) == {"ok"}


def test_a_wrong_checksum_is_refused(card, mirror, tmp_path):
    wrong = change(card, checksums={**card.checksums, "sub-01_ses-0.npz": "0" * 64})
    with pytest.raises(EEGTensorError, match=r"SHA-256.*expected is 0000"):
        fetch_card(wrong, tmp_path / "copy")
    assert visible(tmp_path / "copy") == []


def test_checksums_that_lie_beside_the_data(card, mirror, tmp_path):
    lines = [f"{digest(p)}  {p.name}\n" for p in sorted(mirror.folder.glob("*.npz"))]
    (mirror.folder / "SHA256SUMS.txt").write_text("".join(lines))
    rule = {"base_url": "http://127.0.0.1:9", "sums": "SHA256SUMS.txt"}
    sums = change(card, checksums={}, fetch={"files": {**rule, "include": ["sub*"]}})
    copy = fetch_card(sums, tmp_path / "copy", source=mirror.url)
    assert visible(copy) == sorted(card.checksums)
    store_npz(mirror.folder / "sub-02_ses-0.npz", 77)
    with pytest.raises(EEGTensorError, match="SHA-256"):
        fetch_card(sums, tmp_path / "other", source=mirror.url)
    (mirror.folder / "SHA256SUMS.txt").write_text("<html>moved</html>")
    with pytest.raises(EEGTensorError, match="no SHA-256 sums"):
        fetch_card(sums, tmp_path / "third", source=mirror.url)


def test_without_a_checksum_files_are_called_unverified_and_watched(
    card, mirror, tmp_path, caplog
):
    rule = {"base_url": mirror.url, "list": sorted(card.checksums)}
    bare = change(card, checksums={}, fetch={"files": rule})
    with caplog.at_level(logging.WARNING, logger="eegtensor"):
        copy = fetch_card(bare, tmp_path / "copy")
    assert sum("unverified" in r.message for r in caplog.records) == 3
    (copy / "sub-01_ses-0.npz").write_bytes(b"cut")
    fetch_card(bare, copy)
    assert digest(copy / "sub-01_ses-0.npz") == card.checksums["sub-01_ses-0.npz"]


@pytest.mark.parametrize("name", ["../escape.npz", "/etc/escape.npz"])
def test_a_mirror_cannot_write_outside_the_folder(card, mirror, tmp_path, name):
    evil = change(card, checksums={name: "0" * 64})
    with pytest.raises(EEGTensorError, match="outside the folder"):
        fetch_card(evil, tmp_path / "copy")


def test_a_folder_holds_one_dataset_and_an_intact_record(card, mirror, tmp_path):
    copy = fetch_card(card, tmp_path / "copy")
    with pytest.raises(EEGTensorError, match="copy of 'small'"):
        fetch_card("eegmat_physionet", copy, source=mirror.url)
    (copy / ".eegtensor-fetch.json").write_text("{")
    with pytest.raises(EEGTensorError, match="damaged"):
        fetch_card(card, copy)


def test_an_unreachable_source_is_named(card, tmp_path):
    with pytest.raises(EEGTensorError, match=r"127\.0\.0\.1:9/.*cannot be fetched"):
        fetch_card(card, tmp_path / "copy", source="http://127.0.0.1:9/")


def test_shared_sets_have_no_download_but_take_a_mirror(shared_data, tmp_path):
    with pytest.raises(EEGTensorError, match=r"no download.*bnci2014_004"):
        fetch_card("bnci_iv_2b", tmp_path / "copy")
    server = Mirror(shared_data / "bnci_iv_2b")
    try:
        copy = fetch_card(
            "bnci_iv_2b", tmp_path / "copy", source=server.url, subjects=["01"]
        )
    finally:
        server.close()
    assert len(visible(copy)) == 5
    assert open_card("bnci_iv_2b", copy).X.shape == (600, 3, 750)


def test_simulated_card_is_not_fetched(tmp_path):
    with pytest.raises(EEGTensorError, match="no download"):
        fetch_card("simulated", tmp_path)


def test_eegmat_from_a_mirror_of_physionet(shared_data, mirror, tmp_path):
    names = ("Subject00_1.edf", "Subject00_2.edf")
    for name in names:
        (mirror.folder / name).write_bytes((shared_data / "native" / name).read_bytes())
    lines = [f"{digest(mirror.folder / name)} {name}\n" for name in names]
    (mirror.folder / "SHA256SUMS.txt").write_text(
        "".join([*lines, "0" * 64, " RECORDS"])
    )
    copy = fetch_card("eegmat_physionet", tmp_path / "copy", source=mirror.url)
    assert visible(copy) == list(names)
    assert len(open_card("eegmat_physionet", copy)) == 60


@pytest.fixture
def fake():
    """MOABB's own stand-in for a dataset: events in a stim channel."""
    moabb_fake = pytest.importorskip("moabb.datasets.fake")
    return moabb_fake.FakeDataset(
        ["left_hand", "right_hand", "feet", "tongue"],
        n_sessions=2,
        n_runs=2,
        n_subjects=3,
        channels=("C3", "Cz", "C4"),
        duration=80,
        n_events=8,
        seed=1,
        sfreq=250,
    )


def onsets_of_moabb(dataset, subject: int) -> list[tuple[float, str]]:
    """Trial starts as MOABB's own stim channel has them, first session and run."""
    runs = next(iter(dataset._get_single_subject_data(subject).values()))
    raw = next(iter(runs.values()))
    names = {code: name for name, code in dataset.event_id.items()}
    events = mne.find_events(raw, shortest_event=0, verbose="ERROR")
    return [
        (float(s - raw.first_samp) / raw.info["sfreq"], names[c]) for s, _, c in events
    ]


def test_moabb_data_become_recordings_that_open(fake, tmp_path):
    copy = fetch_card("bnci2014_001", tmp_path / "copy", source=fake, subjects=[1, 3])
    files = visible(copy)
    assert len(files) == 8
    assert files[0] == "sub-01/ses-0/sub-01_ses-0_run-0_raw.fif"
    raw = mne.io.read_raw_fif(copy / files[0], verbose="ERROR")
    assert raw.ch_names == ["C3", "Cz", "C4"]
    trials = open_card("bnci2014_001", copy)
    assert trials.ch_names == ["C3", "Cz", "C4"]
    assert trials.classes == ["feet", "left_hand", "right_hand", "tongue"]
    assert len(trials.domain.names) == 4
    assert set(trials.metadata["run"]) == {"0", "1"}
    one = trials.metadata[trials.metadata["recording"] == files[0]]
    # The last trial's window leaves the recording.
    wanted = [trial for trial in onsets_of_moabb(fake, 1) if trial[0] + 3.5 < 80]
    assert len(wanted) == 7
    np.testing.assert_allclose(one["onset"], [t for t, _ in wanted], atol=0.5 / 250)
    assert trials.y[one.index].tolist() == [name for _, name in wanted]


def test_samples_are_moabbs_samples(fake, tmp_path):
    copy = fetch_card("bnci2014_001", tmp_path / "copy", source=fake, subjects=[2])
    trials = open_card("bnci2014_001", copy, band=None)
    raw = fake.get_data([2])[2]["0"]["0"].pick("eeg")
    onset = trials.metadata["onset"].iloc[0]
    first = round((onset + trials.tmin) * 250)
    np.testing.assert_allclose(
        trials.X[0], raw.get_data()[:, first : first + 750], rtol=1e-5, atol=1e-12
    )


def test_shift_moves_moabbs_trial_start(fake, tmp_path):
    card = load_card("bnci2014_001")
    fetched = [
        open_card(
            card,
            fetch_card(
                change(card, fetch={"moabb": {"class": "X", "shift": shift}}),
                tmp_path / str(shift),
                source=fake,
                subjects=[1],
            ),
        ).metadata["onset"]
        for shift in (0.0, 0.2)
    ]
    np.testing.assert_allclose(fetched[1] - fetched[0], 0.2, atol=1 / 250)


def test_moabb_fetch_resumes_person_by_person(fake, tmp_path, monkeypatch):
    asked, real = [], fake._get_single_subject_data

    def fails_once(subject):
        asked.append(subject)
        if subject == 2 and asked.count(2) == 1:
            raise ConnectionError("line is down")
        return real(subject)

    monkeypatch.setattr(fake, "_get_single_subject_data", fails_once)
    with pytest.raises(
        EEGTensorError, match=r"subject 2 .*line is down.*call fetch_card"
    ):
        fetch_card("bnci2014_001", tmp_path / "copy", source=fake)
    assert {f.split("/")[0] for f in visible(tmp_path / "copy")} == {"sub-01"}
    fetch_card("bnci2014_001", tmp_path / "copy", source=fake)
    assert asked == [1, 2, 2, 3]
    victim = tmp_path / "copy" / "sub-03/ses-1/sub-03_ses-1_run-0_raw.fif"
    victim.write_bytes(victim.read_bytes()[:1000])
    fetch_card("bnci2014_001", tmp_path / "copy", source=fake)
    assert asked == [1, 2, 2, 3, 3]
    record = json.loads((tmp_path / "copy" / ".eegtensor-fetch.json").read_text())
    assert record["files"]["sub-03/ses-1/sub-03_ses-1_run-0_raw.fif"] == digest(victim)


def test_moabb_class_of_a_card_is_used(fake, tmp_path, monkeypatch):
    datasets = pytest.importorskip("moabb.datasets")
    monkeypatch.setattr(datasets, "BNCI2014_001", lambda **kwargs: fake)
    copy = fetch_card("bnci2014_001", tmp_path / "copy", subjects=["1"])
    assert len(visible(copy)) == 4


def test_moabb_without_the_class_or_the_person(fake, tmp_path):
    with pytest.raises(EEGTensorError, match="no dataset 'Nobody2099'"):
        moabb_dataset("some", {"class": "Nobody2099"})
    with pytest.raises(EEGTensorError, match=r"no subjects 7.*1, 2, 3"):
        fetch_card("bnci2014_001", tmp_path / "copy", source=fake, subjects=[7])
