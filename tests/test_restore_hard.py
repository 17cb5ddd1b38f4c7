"""`restore` where files are awkward: formats, dates, edges, channels between."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest

from eegtensor import EEGTensorError
from eegtensor._restored import draw_restoration
from eegtensor.features import Completer
from eegtensor.restore import _give_positions, restore_recording

SFREQ = 100.0
NAMES = ["EOG", "Fz", "Cz", "Pz", "STI", "C3", "C4", "P3", "P4", "Oz"]
KINDS = ["eog", "eeg", "eeg", "eeg", "stim", *["eeg"] * 5]
EEG = [1, 2, 3, 5, 6, 7, 8, 9]


@pytest.fixture
def raw(rng: np.random.Generator) -> mne.io.RawArray:
    """Nine seconds in volts; channels of other kinds first and in the middle."""
    f = rng.uniform(4, 12, (3, 1))
    sources = np.sin(2 * np.pi * f * np.arange(900) / SFREQ)
    X = np.zeros((10, 900))
    X[EEG] = 1e-5 * rng.uniform(0.5, 1, (8, 3)) @ sources
    X += 5e-7 * rng.standard_normal(X.shape)
    X[4] = 0.0
    info = mne.create_info(NAMES, SFREQ, KINDS)
    raw = mne.io.RawArray(X, info, verbose="error")
    return raw


def saved(raw: mne.io.BaseRaw, folder: Path) -> Path:
    path = folder / "src_raw.fif"
    raw.save(path, fmt="double", verbose="error")
    return path


def test_the_table_says_what_the_completer_found(raw, tmp_path: Path) -> None:
    raw.info["bads"] = ["C4", "EOG"]
    raw.set_annotations(
        mne.Annotations(
            [2.0, 4.0, 6.0], [0.5, 0.3, 0.1], "BAD", ch_names=[["Pz"], ["Pz"], []]
        )
    )
    raw.set_montage("standard_1005", on_missing="ignore")
    src, out = saved(raw, tmp_path), tmp_path / "out_raw.fif"
    found = restore_recording(src, out, method="gaussian", max_gap=0.09, random_state=3)
    raw = mne.io.read_raw_fif(src, preload=True, verbose="error")
    completer = Completer("gaussian", 0.09, 3)
    expected = completer.fit_transform(raw)
    after = mne.io.read_raw_fif(out, verbose="error")
    np.testing.assert_array_equal(after.get_data(), expected.get_data())
    assert after.info["bads"] == ["EOG"]
    np.testing.assert_allclose(found.left.to_numpy(), [[6.0, 0.1]])
    assert found.stretches["channel"].tolist() == ["Pz", "Pz", "C4", "C4"]
    np.testing.assert_allclose(found.stretches["onset"], [2.0, 4.0, 0.0, 6.1])
    np.testing.assert_allclose(found.stretches["duration"], [0.5, 0.3, 6.0, 2.9])
    spread = completer.uncertainty_[2, 200:250].mean() * 1e6
    first = found.stretches.iloc[0]
    assert first["interval_uV"] == pytest.approx(1.645 * spread)
    assert first["std_uV"] == pytest.approx(1e6 * expected.get_data("Pz").std())
    both = found.stretches["interval_uV"][:2].mean()
    assert f"Pz              0.80 s  +- {both:.1f}" in str(found)
    written = pd.read_csv(found.table)
    np.testing.assert_allclose(written["onset"], found.stretches["onset"])


def test_the_picture_shows_what_was_restored(raw) -> None:
    # The last one: rows of the picture are not the first channels.
    raw.info["bads"] = ["Oz"]
    raw._data[9] = 5e-3 * np.sin(np.arange(900))
    raw.set_annotations(mne.Annotations([8.0], [0.5], "BAD", ch_names=[["Pz"]]))
    raw.set_montage("standard_1005", on_missing="ignore")
    completer = Completer()
    after = completer.fit_transform(raw)
    figure = draw_restoration(raw, after, completer)
    left, right = figure.axes
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert {"Oz", "Pz"} < set(labels) and "EOG" not in labels and "STI" not in labels
    heights = dict(zip(labels, left.get_yticks(), strict=True))
    step = float(-np.diff(left.get_yticks())[0])
    red = {line.get_ydata().size: line for line in right.lines if line.get_lw() == 0.9}
    at, values = red[50].get_data()
    assert at[0] == pytest.approx(8.0) and at[-1] == pytest.approx(8.49)
    truth = 1e6 * after.get_data("Pz")[0, 800:850]
    np.testing.assert_allclose(values - heights["Pz"], truth, atol=1e-9)
    bands = [b.get_paths()[0].get_extents() for b in right.collections]
    band = next(b for b in bands if abs(b.width - 0.49) < 1e-6)
    half = 1.645e6 * completer.uncertainty_[2, 800:850]
    assert band.y0 == pytest.approx((truth - half).min() + heights["Pz"])
    grey = [b.get_paths()[0].get_extents() for b in left.collections]
    short = next(g for g in grey if abs(g.width - 0.5) < 1e-6)
    assert short.x0 == pytest.approx(7.995)
    assert (short.y0 + short.y1) / 2 == pytest.approx(heights["Pz"])
    # Millivolts before do not run over the other rows; no trace is cut.
    rows = dict(zip(labels, (line.get_ydata() for line in left.lines), strict=True))
    assert np.abs(rows["Oz"] - heights["Oz"]).max() <= 0.5 * step + 1e-9
    low, high = left.get_ylim()
    assert all(low < line.get_ydata().min() for line in right.lines)
    assert all(high > line.get_ydata().max() for line in right.lines)


@pytest.mark.parametrize("end", [".edf", ".vhdr"])
def test_other_formats_in_and_out(raw, tmp_path: Path, end: str) -> None:
    pytest.importorskip({".edf": "edfio", ".vhdr": "pybv"}[end])
    raw.pick(["Fz", "Cz", "Pz", "C3", "C4", "P3", "P4", "Oz"])
    src = tmp_path / f"src{end}"
    raw.export(src, verbose="error")
    read = {".edf": mne.io.read_raw_edf, ".vhdr": mne.io.read_raw_brainvision}[end]
    before = read(src, verbose="error").get_data()
    out = tmp_path / f"out{end}"
    restore_recording(src, out, bads=["Cz"])
    after = read(out, verbose="error").get_data()
    rest = np.arange(8) != 1
    # As fine as 16 bits, or as BrainVision's tenth of a microvolt.
    np.testing.assert_allclose(after[rest], before[rest], atol=1.1e-7)
    assert np.abs(after[1] - before[1]).max() > 1e-6


def test_a_format_that_cannot_be_written(raw, tmp_path: Path, monkeypatch) -> None:
    def missing(*args, **options):
        raise ImportError(f"{options['fmt']}io is not there")

    monkeypatch.setattr(mne.io.BaseRaw, "export", missing)
    with pytest.raises(EEGTensorError, match=r"out\.set cannot be written: eeglabio"):
        restore_recording(saved(raw, tmp_path), tmp_path / "out.set", bads=["Cz"])


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("kind", ["table", ".txt", ".csv"])
def test_segments_of_a_cropped_recording(
    raw, tmp_path: Path, dated: bool, kind: str
) -> None:
    raw.set_meas_date(1_600_000_000 if dated else None)
    own = mne.Annotations(
        [3.0, 8.0], [0.5, 0.1], ["BAD own", "go"], ch_names=[["Oz"]] * 2
    )
    raw.set_annotations(own).crop(2.0)
    # Seconds from the first sample there is.
    path = tmp_path / ("segments.tsv" if kind == "table" else f"segments{kind}")
    if kind == "table":
        text = "# mine\nonset\tduration\tchannel\n-0.5\t1.0\tCz\n6.5\t9\tFz : Cz\n"
        path.write_text(text, encoding="utf-8")
    elif kind == ".txt" or not dated:
        names = [["Cz"], ["Fz", "Cz"]]
        mne.Annotations([0.0, 6.5], [0.5, 0.5], "BAD", ch_names=names).save(path)
    else:
        names = [["Cz"], ["Fz", "Cz"]]
        date = raw.info["meas_date"]
        mne.Annotations([2.0, 8.5], [0.5, 0.5], "BAD", date, names).save(path)
    out = tmp_path / "out_raw.fif"
    found = restore_recording(saved(raw, tmp_path), out, segments=path).stretches
    rows = found[["channel", "onset", "duration"]].round(2).to_numpy().tolist()
    assert rows == [
        ["Fz", 6.5, 0.5],
        ["Cz", 0.0, 0.5],
        ["Cz", 6.5, 0.5],
        ["Oz", 1.0, 0.5],
    ]
    # What else was annotated is where it was.
    left = mne.io.read_raw_fif(out, verbose="error").annotations
    assert list(left.description) == ["go"]
    assert left.onset[0] == pytest.approx(8.0)


def test_only_channels_without_a_place_get_one(raw) -> None:
    raw.set_montage("standard_1005", on_missing="ignore")
    mine = np.array([0.01, 0.02, 0.09])
    raw.info["chs"][2]["loc"][:3] = mine
    _give_positions(raw)
    np.testing.assert_array_equal(raw.info["chs"][2]["loc"][:3], mine)
    raw.info["chs"][6]["loc"][:3] = 0.0
    _give_positions(raw)
    # C4 lies on the right.
    assert raw.info["chs"][6]["loc"][0] > 0.03
    np.testing.assert_array_equal(raw.info["chs"][2]["loc"][:3], mine)
