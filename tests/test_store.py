"""The store: what is written is read, kills and concurrent readers do no harm."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _factory import make_trials

from eegtensor import EEGTensorError, Trials
from eegtensor.store import StoreWriter, is_store


def test_round_trip(tmp_path: Path) -> None:
    trials = make_trials()
    digest = trials.save(tmp_path / "store")
    loaded = Trials.load(tmp_path / "store")
    assert isinstance(loaded.X, np.memmap) and not loaded.X.flags.writeable
    np.testing.assert_array_equal(loaded.X, trials.X)
    assert loaded.digest == digest == trials.digest
    # The digest is read from the index; computed afresh it is the same.
    fresh = Trials(loaded.X, loaded.y, loaded.metadata, loaded.info, loaded.tmin)
    assert fresh.digest == digest
    expected = trials.metadata.drop(columns="note")
    pd.testing.assert_frame_equal(loaded.metadata.drop(columns="note"), expected)
    assert loaded.metadata["note"].tolist() == trials.metadata["note"].tolist()
    assert loaded.tmin == trials.tmin
    assert np.load(next((tmp_path / "store").glob("*/X.npy"))).shape == trials.X.shape


def test_appended_recordings_equal_one_write(tmp_path: Path) -> None:
    trials = make_trials()
    with StoreWriter(tmp_path / "parts") as writer:
        for part in (trials[:5], trials[5:]):
            writer.append(part.X, part.y, part.metadata)
        digest = writer.finish(trials.info, trials.tmin)
    assert digest == trials.digest


def test_overwriting_keeps_one_generation(tmp_path: Path) -> None:
    make_trials().save(tmp_path / "s")
    old = Trials.load(tmp_path / "s")
    before = np.array(old.X)
    make_trials(8, seed=3).save(tmp_path / "s")
    assert len(Trials.load(tmp_path / "s")) == 8
    # Who had the old generation open still reads it.
    np.testing.assert_array_equal(old.X, before)
    assert len([p for p in (tmp_path / "s").iterdir() if p.is_dir()]) == 1


def test_a_failed_write_leaves_the_old_store(tmp_path: Path) -> None:
    trials = make_trials()
    trials.save(tmp_path / "s")
    with pytest.raises(EEGTensorError, match="cannot join"):
        with StoreWriter(tmp_path / "s") as writer:
            writer.append(trials.X, trials.y, trials.metadata)
            writer.append(trials.X[:, :2], trials.y, trials.metadata)
    assert Trials.load(tmp_path / "s").digest == trials.digest
    assert not list((tmp_path / "s").glob(".writing-*"))
    with pytest.raises(EEGTensorError, match="No trials were written"):
        with StoreWriter(tmp_path / "empty") as writer:
            writer.finish(trials.info, 0.0)
    assert not (tmp_path / "empty").exists()


KILLED = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, sys.argv[2])
    from _factory import make_trials
    from eegtensor.store import StoreWriter
    trials = make_trials(10, seed=9)
    with StoreWriter(sys.argv[1]) as writer:
        writer.append(trials.X, trials.y, trials.metadata)
        print("writing", flush=True)
        time.sleep(60)
    """
)


def test_a_killed_write_leaves_the_old_store_and_is_swept_up(tmp_path: Path) -> None:
    trials = make_trials()
    trials.save(tmp_path / "s")
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "s"), here],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "writing"
        process.send_signal(signal.SIGKILL)
    assert Trials.load(tmp_path / "s").digest == trials.digest
    assert list((tmp_path / "s").glob(".writing-*"))
    make_trials(6).save(tmp_path / "s")
    assert not list((tmp_path / "s").glob(".writing-*"))


def _rewrite(path: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    i = 0
    while time.monotonic() < end:
        make_trials(6 + i % 5, seed=i % 3).save(path)
        i += 1


def test_readers_and_a_writer_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    make_trials().save(path)
    context = mp.get_context("fork")
    writer = context.Process(target=_rewrite, args=(path, 2.0))
    writer.start()
    reads = 0
    while writer.is_alive():
        loaded = Trials.load(path)
        fresh = Trials(loaded.X, loaded.y, loaded.metadata, loaded.info, loaded.tmin)
        assert fresh.digest == loaded.digest
        reads += 1
    writer.join()
    assert writer.exitcode == 0 and reads > 3


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(EEGTensorError, match="not a store"):
        Trials.load(tmp_path)
    trials = make_trials()
    trials.save(tmp_path / "s")
    index = tmp_path / "s" / "index.json"
    good = json.loads(index.read_text())
    data = next((tmp_path / "s").glob("*/X.npy"))
    whole = data.read_bytes()
    data.write_bytes(whole[:-100])
    with pytest.raises(EEGTensorError, match="damaged"):
        Trials.load(tmp_path / "s")
    data.write_bytes(whole)
    index.write_text(json.dumps(good | {"n_trials": 99}))
    with pytest.raises(EEGTensorError, match="index says 99 trials"):
        Trials.load(tmp_path / "s")
    index.write_text(json.dumps(good | {"format": 99}))
    with pytest.raises(EEGTensorError, match="format 99"):
        Trials.load(tmp_path / "s")
    index.write_text("{")
    with pytest.raises(EEGTensorError, match="cannot be read"):
        Trials.load(tmp_path / "s")
    os.remove(index)
    assert not is_store(tmp_path / "s")


def test_a_folder_of_other_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(EEGTensorError, match="other files"):
        make_trials().save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_the_rate_survives_fif_single_precision(tmp_path: Path) -> None:
    trials = make_trials()
    with trials.info._unlock():
        trials.info["sfreq"] = 1000 / 3
    trials.save(tmp_path / "s")
    assert Trials.load(tmp_path / "s").sfreq == trials.sfreq


def test_objects_keep_their_kind(tmp_path: Path) -> None:
    trials = make_trials()[:3]
    trials.metadata["mixed"] = pd.Series([np.int64(3), None, "x"], dtype=object)
    trials.metadata["count"] = pd.array([1, pd.NA, 2], dtype="Int64")
    trials.save(tmp_path / "s")
    metadata = Trials.load(tmp_path / "s").metadata
    assert metadata["mixed"].tolist() == [3, None, "x"]
    assert metadata["count"].isna().tolist() == [False, True, False]


def test_samples_are_not_cut_to_integers(tmp_path: Path) -> None:
    part = make_trials()[:2]
    with (
        StoreWriter(tmp_path / "s") as writer,
        pytest.raises(EEGTensorError, match="dtype float"),
    ):
        writer.append(np.ones(part.X.shape, dtype=int), part.y, part.metadata)
        writer.append(np.ones(part.X.shape), part.y, part.metadata)


def test_index_without_a_key_and_a_killed_first_write(tmp_path: Path) -> None:
    trials = make_trials()
    trials.save(tmp_path / "s")
    index = tmp_path / "s" / "index.json"
    content = json.loads(index.read_text())
    content.pop("n_trials")
    index.write_text(json.dumps(content))
    with pytest.raises(EEGTensorError, match="damaged"):
        Trials.load(tmp_path / "s")
    index.unlink()
    trials.save(tmp_path / "s")
    assert len(Trials.load(tmp_path / "s")) == len(trials)


def test_old_leftovers_go_and_other_people_s_files_stay(tmp_path: Path) -> None:
    make_trials().save(tmp_path / "s")
    ours = [tmp_path / "s" / "0123456789ab-cdef01", tmp_path / "s" / ".index.json-ab"]
    theirs = [tmp_path / "s" / "figures", tmp_path / "s" / "notes.txt"]
    for folder in (ours[0], theirs[0]):
        folder.mkdir()
    for file in (ours[1], theirs[1]):
        file.write_text("x")
    two_days_ago = time.time() - 2 * 86400
    for entry in (*ours, *theirs):
        os.utime(entry, (two_days_ago, two_days_ago))
    young = tmp_path / "s" / "fedcba987654-123456"
    young.mkdir()
    make_trials(8).save(tmp_path / "s")
    assert not any(entry.exists() for entry in ours)
    assert all(entry.exists() for entry in (*theirs, young))
