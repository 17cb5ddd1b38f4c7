"""`eegtensor restore`: file in; file, table and picture out."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import mne
import numpy as np
import pandas as pd
import pytest

from eegtensor.cli import main

SFREQ = 100.0


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    names = ["Fz", "Cz", "Pz", "C3", "C4", "P3", "P4", "Oz"]
    sources = np.sin(2 * np.pi * rng.uniform(4, 12, (3, 1)) * np.arange(1200) / SFREQ)
    X = 1e-5 * rng.uniform(0.5, 1, (8, 3)) @ sources
    X += 1e-6 * rng.standard_normal((8, 1200))
    raw = mne.io.RawArray(X, mne.create_info(names, SFREQ, "eeg"), verbose="error")
    raw.info["bads"] = ["C4"]
    path = tmp_path_factory.mktemp("restore") / "broken_raw.fif"
    raw.save(path, verbose="error")
    return path


def test_the_whole_way(recording: Path, tmp_path: Path, capsys) -> None:
    segments = tmp_path / "segments.csv"
    segments.write_text(
        "onset,duration,channel\n2.0,0.05,\n4.0,1.5,Oz\n6.0,2.0,\n", encoding="utf-8"
    )
    out = tmp_path / "clean_raw.fif"
    words = ["restore", str(recording), "--out", str(out), "--bads", "P3"]
    assert main([*words, "--segments", str(segments)]) == 0
    said = capsys.readouterr().out
    assert "channel" in said and "gap" in said and "run" in said
    assert "Left as it was: 2.00 s of all channels at 6.00 s" in said
    before = mne.io.read_raw_fif(recording, verbose="error")
    after = mne.io.read_raw_fif(out, verbose="error")
    assert after.info["bads"] == []
    assert list(after.annotations.description) == ["BAD_segment"]
    changed = np.abs(after.get_data() - before.get_data()).max(axis=1) > 1e-9
    # The gap changed every channel; without it these three.
    away = np.r_[0:200, 210:400, 560:600, 810:1200]
    rest = np.abs(after.get_data() - before.get_data())[:, away].max(axis=1) > 1e-9
    assert changed.all()
    assert [after.ch_names[i] for i in np.flatnonzero(rest)] == ["C4", "P3"]
    table = pd.read_csv(out.with_suffix(".csv"))
    assert set(table.columns) >= {"channel", "onset", "duration", "interval_uV"}
    assert (table["interval_uV"] > 0).all()
    oz = table[(table["channel"] == "Oz") & (table["duration"] > 1)]
    assert oz["onset"].tolist() == [4.0] and oz["duration"].tolist() == [1.5]
    picture = matplotlib.image.imread(out.with_suffix(".png"))
    # Restored parts are red.
    red = (picture[..., 0] > 0.6) & (picture[..., 1] < 0.5) & (picture[..., 2] < 0.5)
    assert red.sum() > 50


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.mat"], "ends in .mat"),
        (["--out", "nowhere/x.fif"], "is no folder"),
        (["--out", "x_raw.fif", "--bads", "T9"], "has no channel T9"),
        (["--out", "x_raw.fif", "--segments", "none.csv"], "is no file"),
        (["--out", "x_raw.fif", "--method", "magic"], "method='magic'"),
    ],
)
def test_mistakes_are_named(
    recording: Path, tmp_path: Path, monkeypatch, capsys, words, message
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["restore", str(recording), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_was_given_is_never_overwritten(
    recording: Path, tmp_path: Path, capsys
) -> None:
    kept = recording.read_bytes()
    assert main(["restore", str(recording), "--out", str(recording)]) == 2
    segments = tmp_path / "x_raw.csv"
    segments.write_text("onset,duration\n1,0.05\n", encoding="utf-8")
    words = ["--out", str(tmp_path / "x_raw.fif"), "--segments", str(segments)]
    assert main(["restore", str(recording), *words]) == 2
    assert capsys.readouterr().err.count("would be overwritten") == 2
    assert recording.read_bytes() == kept
    assert segments.read_text(encoding="utf-8").startswith("onset,duration")
    assert list(tmp_path.iterdir()) == [segments]


def test_observed_samples_of_a_file_come_back_bit_for_bit(
    recording: Path, tmp_path: Path
) -> None:
    for fmt in ("single", "double"):
        raw = mne.io.read_raw_fif(recording, preload=True, verbose="error")
        raw._data *= np.pi
        src, out = tmp_path / f"é {fmt}_raw.fif", tmp_path / f"{fmt}_clean_raw.fif"
        raw.save(src, fmt=fmt, verbose="error")
        before = mne.io.read_raw_fif(src, verbose="error").get_data()
        assert main(["restore", str(src), "--out", str(out)]) == 0
        after = mne.io.read_raw_fif(out, verbose="error").get_data()
        lost = np.arange(8) == 4
        np.testing.assert_array_equal(after[~lost], before[~lost])
        assert not np.isclose(after[lost], before[lost], rtol=1e-3).all()


def test_a_gap_without_numbers_stays_and_is_named(
    recording: Path, tmp_path: Path, capsys
) -> None:
    raw = mne.io.read_raw_fif(recording, preload=True, verbose="error")
    raw._data[:, 300:600] = np.nan
    raw.annotations.append([2.0, 7.0], [0.0, 0.1], ["BAD boundary", "BAD"])
    src, out = tmp_path / "gap_raw.fif", tmp_path / "clean_raw.fif"
    raw.save(src, fmt="double", verbose="error")
    assert main(["restore", str(src), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("Left as it was") == 1
    assert "Left as it was: 3.00 s of all channels at 3.00 s" in said
    table = pd.read_csv(out.with_suffix(".csv"))
    assert table.notna().all(axis=None)
    half = table[table["channel"] == "C4"]["interval_uV"]
    # Signals are some microvolts.
    assert (half > 0.1).all() and (half < 100).all()


def test_segments_of_a_recording_that_begins_late(
    recording: Path, tmp_path: Path, capsys
) -> None:
    raw = mne.io.read_raw_fif(recording, preload=True, verbose="error")
    raw.info["bads"] = []
    raw.set_meas_date(0).crop(2.0, None)
    src, out = tmp_path / "late_raw.fif", tmp_path / "clean_raw.fif"
    raw.save(src, verbose="error")
    segments = tmp_path / "segments.tsv"
    segments.write_text("onset\tduration\tchannel\n1.0\t0.5\tOz\n", encoding="utf-8")
    words = ["restore", str(src), "--out", str(out), "--segments", str(segments)]
    assert main(words) == 0
    before, after = (
        mne.io.read_raw_fif(p, verbose="error").get_data() for p in (src, out)
    )
    assert np.flatnonzero((before != after).any(axis=0)).tolist() == [*range(100, 150)]
    assert pd.read_csv(out.with_suffix(".csv"))["onset"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset,duration\n900,1\n", "rows 1: no stretch of a recording of 11.99 s"),
        ("onset,duration\n1,-1\n2,x\n3,1\n", "rows 1, 2: no stretch"),
        ("onset,duration,channel\n1,1,T9\n", "names channel T9"),
        ("", "cannot be read as a table"),
    ],
)
def test_segments_that_make_no_sense(
    recording: Path, tmp_path: Path, capsys, text: str, message: str
) -> None:
    segments = tmp_path / "segments.csv"
    segments.write_text(text, encoding="utf-8")
    words = ["--out", str(tmp_path / "x_raw.fif"), "--segments", str(segments)]
    assert main(["restore", str(recording), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("end", ["-Ref", "-Cz", ""])
def test_channels_named_with_their_reference_are_placed(
    recording: Path, tmp_path: Path, end: str
) -> None:
    raw = mne.io.read_raw_fif(recording, verbose="error")
    raw.rename_channels({name: f"EEG {name}{end}" for name in raw.ch_names})
    src = tmp_path / "src_raw.fif"
    raw.save(src, verbose="error")
    assert main(["restore", str(src), "--out", str(tmp_path / "x_raw.fif")]) == 0


def test_differences_of_electrodes_have_no_place(
    recording: Path, tmp_path: Path, capsys
) -> None:
    raw = mne.io.read_raw_fif(recording, verbose="error")
    around = [*raw.ch_names[1:], raw.ch_names[0]]
    names = [f"{a}-{b}" for a, b in zip(raw.ch_names, around, strict=True)]
    raw.rename_channels(dict(zip(raw.ch_names, names, strict=True)))
    src = tmp_path / "src_raw.fif"
    raw.save(src, verbose="error")
    assert main(["restore", str(src), "--out", str(tmp_path / "x_raw.fif")]) == 2
    assert "Positions of channels C4-P3 are not known" in capsys.readouterr().err


def test_a_table_without_onsets(recording: Path, tmp_path: Path, capsys) -> None:
    segments = tmp_path / "segments.csv"
    segments.write_text("start,stop\n1,2\n", encoding="utf-8")
    words = ["--out", str(tmp_path / "x_raw.fif"), "--segments", str(segments)]
    assert main(["restore", str(recording), *words]) == 2
    assert "no column duration, onset" in capsys.readouterr().err


def test_nothing_is_lost(recording: Path, tmp_path: Path, capsys) -> None:
    whole = tmp_path / "whole_raw.fif"
    raw = mne.io.read_raw_fif(recording, verbose="error")
    raw.info["bads"] = []
    raw.save(whole, verbose="error")
    assert main(["restore", str(whole), "--out", str(tmp_path / "o_raw.fif")]) == 2
    assert "Nothing is lost" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [".csv", ".txt", "_annot.fif", "table"])
def test_segments_of_single_channels_as_mne_writes_them(
    recording: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"segments{'.csv' if kind == 'table' else kind}"
    if kind == "table":
        text = "onset,duration,ch_names\n1.0,0.5,Oz\n2.0,0.5,Oz:Cz\n"
        path.write_text(text, encoding="utf-8")
    else:
        found = mne.Annotations(
            [1.0, 2.0], [0.5, 0.5], ["BAD_a", "BAD_b"], ch_names=[["Oz"], ["Oz", "Cz"]]
        )
        found.save(path, verbose="error")
    out = tmp_path / "clean_raw.fif"
    words = ["restore", str(recording), "--out", str(out), "--segments", str(path)]
    assert main(words) == 0
    table = pd.read_csv(out.with_suffix(".csv")).sort_values(["onset", "channel"])
    table = table[table["channel"] != "C4"]  # bad in the file
    assert table["channel"].tolist() == ["Oz", "Cz", "Oz"]
    np.testing.assert_allclose(table["onset"], [1.0, 2.0, 2.0], atol=0.01)
    assert not mne.io.read_raw_fif(out, verbose="error").annotations


def test_a_table_of_dates_counts_from_the_recordings_own(
    recording: Path, tmp_path: Path
) -> None:
    raw = mne.io.read_raw_fif(recording, verbose="error")
    raw.set_meas_date(1_600_000_000).crop(3.0)
    raw.info["bads"] = []
    src, path, out = (tmp_path / n for n in ("x_raw.fif", "bad.csv", "clean_raw.fif"))
    raw.save(src, verbose="error")
    # Six seconds after the recording began, three after what is left of it.
    found = mne.Annotations(
        [6.0, 7.0], [0.5, 0.5], ["BAD_a", "go"], raw.info["meas_date"], [["Oz"], []]
    )
    found.save(path, verbose="error")
    words = ["restore", str(src), "--out", str(out), "--segments", str(path)]
    assert main(words) == 0
    table = pd.read_csv(out.with_suffix(".csv"))
    assert table["channel"].tolist() == ["Oz"]
    np.testing.assert_allclose(table["onset"], [3.0], atol=0.01)


def test_annotations_of_another_recording(
    recording: Path, tmp_path: Path, capsys
) -> None:
    path = tmp_path / "segments.txt"
    mne.Annotations([1.0], [0.5], ["BAD"], ch_names=[["T9"]]).save(path)
    words = ["--out", str(tmp_path / "x_raw.fif"), "--segments", str(path)]
    assert main(["restore", str(recording), *words]) == 2
    assert "does not hold annotations of this recording" in capsys.readouterr().err
