"""Completer where recordings are awkward: channel order, edges, dates, gaps, types."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pytest
import torch

import eegtensor.features.completer as module
from eegtensor import EEGTensorError
from eegtensor.features import Completer
from eegtensor.features._losses import electrode_directions, usable
from eegtensor.features.completer import interval
from eegtensor.tensor.completion import complete

NAMES = ["EOG", "Fz", "Cz", "STI", "Pz", "C3", "C4", "P3", "P4", "Oz"]
KINDS = ["eog", "eeg", "eeg", "stim", *["eeg"] * 6]
EEG = [1, 2, *range(4, 10)]
SFREQ = 100.0


def signals(rng: np.random.Generator, n_times: int = 900) -> np.ndarray:
    """Eight channels that mix three rhythms, in volts."""
    f = rng.uniform(4, 12, (3, 1))
    sources = np.sin(2 * np.pi * f * np.arange(n_times) / SFREQ + rng.random((3, 1)))
    X = 1e-5 * rng.uniform(0.5, 1, (8, 3)) @ sources
    return np.asarray(X + 5e-7 * rng.standard_normal(X.shape))


@pytest.fixture
def raw(rng: np.random.Generator) -> mne.io.RawArray:
    """Channels of other kinds stand first and in the middle."""
    info = mne.create_info(NAMES, SFREQ, KINDS)
    info.set_montage("standard_1005", on_missing="ignore")
    X = np.zeros((10, 900))
    X[EEG] = signals(rng)
    X[0], X[3] = 1e-4 * rng.standard_normal(900), rng.integers(0, 2, 900)
    return mne.io.RawArray(X, info, verbose="error")


@pytest.mark.parametrize("cut", [False, True])
def test_channels_of_other_kinds_between(raw, cut: bool) -> None:
    raw.info["bads"] = ["EOG", "C4"]
    given = mne.make_fixed_length_epochs(raw, 1.0, preload=True) if cut else raw
    completer = Completer()
    out = completer.fit_transform(given)
    before, after = given.get_data(), out.get_data()
    changed = (before != after).any(axis=(0, 2) if cut else 1)
    assert np.array(NAMES)[changed].tolist() == ["C4"]
    assert out.info["bads"] == ["EOG"]
    assert completer.restored_.any(axis=(0, 2) if cut else 1).nonzero()[0].tolist() == [
        4
    ]
    # What is restored looks like the others, not like EOG.
    truth = before[:, 6] if cut else before[6]
    found = after[:, 6] if cut else after[6]
    assert np.linalg.norm(found - truth) < 1.2 * np.linalg.norm(truth)


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("late", [0.0, 2.0])
def test_annotations_are_where_mne_says(raw, dated: bool, late: float) -> None:
    raw.set_meas_date(1_600_000_000 if dated else None)
    onset = [1.5, 2.3, 4.0, 6.0, 8.9]
    length = [0.7, 0.1, 0.035, 2.0, 5.0]
    words = ["Bad_edge", "bad", "BAD_c", "BAD long", "bad end"]
    raw.set_annotations(
        mne.Annotations([*onset, 5.0], [*length, 0.1], [*words, "go"])
        if not dated
        else mne.Annotations(
            [*onset, 5.0], [*length, 0.1], [*words, "go"], raw.info["meas_date"]
        ),
        emit_warning=False,
    )
    raw.crop(late)
    theirs = np.isnan(raw.get_data("eeg", reject_by_annotation="NaN", verbose="error"))
    completer = Completer(max_gap=1.0)
    out = completer.fit_transform(raw)
    long = slice(round((6 - late) * SFREQ), round((8 - late) * SFREQ))
    assert completer.left_[long].all() and completer.left_.sum() == 200
    np.testing.assert_array_equal(
        completer.restored_ | completer.left_, theirs, strict=True
    )
    # What stays is where it was.
    expected = [a for a in raw.annotations if a["description"] in ("BAD long", "go")]
    assert [(a["onset"], a["description"]) for a in out.annotations] == [
        (a["onset"], a["description"]) for a in expected
    ]
    np.testing.assert_array_equal(
        out.get_data("eeg")[~theirs], raw.get_data("eeg")[~theirs]
    )


@pytest.mark.parametrize("dated", [False, True])
def test_annotations_of_trials(raw, dated: bool) -> None:
    raw.set_meas_date(1_600_000_000 if dated else None)
    bad = mne.Annotations(
        [1.9, 3.2, 4.3, 5.1, 6.5],
        [0.3, 0.1, 0.3, 0.1, 0.6],
        ["BAD", "bad", "BAD", "go", "bad EOG"],
        ch_names=[[], [], ["Pz", "Oz"], [], ["EOG"]],
    )
    raw.set_annotations(bad).crop(1.0)
    epochs = mne.make_fixed_length_epochs(
        raw, 1.0, preload=True, reject_by_annotation=False
    )
    completer = Completer()
    out = completer.fit_transform(epochs)
    lost = np.zeros((8, 800), bool)
    lost[:, 90:120] = lost[:, 220:230] = True
    lost[[2, 7], 330:360] = True
    found = completer.restored_.swapaxes(0, 1).reshape(8, -1)
    np.testing.assert_array_equal(found, lost)
    assert list(out.annotations.description) == ["go", "bad EOG"]
    assert len(epochs.annotations) == 5
    whole = completer.restored_
    np.testing.assert_array_equal(
        out.get_data("eeg")[~whole], epochs.get_data("eeg")[~whole]
    )
    assert (out.get_data("eeg")[whole] != epochs.get_data("eeg")[whole]).all()
    slower = epochs.copy().resample(50.0)
    completer.fit_transform(slower)
    np.testing.assert_array_equal(
        completer.restored_.swapaxes(0, 1).reshape(8, -1), lost[:, ::2]
    )


def test_longest_gap_that_is_restored_is_in_seconds(raw) -> None:
    for duration, left in ((0.3, 0), (0.31, 31)):
        raw.set_annotations(mne.Annotations(3.0, duration, "BAD"))
        completer = Completer(max_gap=0.3)
        out = completer.fit_transform(raw)
        assert completer.left_.sum() == left
        assert len(out.annotations) == bool(left)


def test_a_trial_with_a_gap_too_long_is_restored_where_it_can_be(raw) -> None:
    epochs = mne.make_fixed_length_epochs(raw, 1.5, preload=True)
    truth = epochs.get_data()
    epochs._data[2, :, 10:90] = np.nan
    epochs._data[2, 5, 100:130] = np.nan
    for denoise in (None, "nonlocal"):
        completer = Completer(max_gap=0.5, denoise=denoise)
        out = completer.fit_transform(epochs).get_data()
        assert np.isnan(out[2][EEG, 10:90]).all()
        assert completer.left_.sum() == completer.left_[2, 10:90].sum() == 80
        assert completer.restored_.sum() == 30
        run = out[2, 5, 100:130] - truth[2, 5, 100:130]
        assert np.linalg.norm(run) < 0.5 * np.linalg.norm(truth[2, 5, 100:130])


def test_settings_reach_the_methods(rng: np.random.Generator) -> None:
    X = signals(rng, 400)
    X[2, 100:150] = X[:, 300:304] = np.nan
    gaussian = Completer("gaussian")
    gaussian.fit_transform(X)
    assert gaussian.table_["method"].str.startswith(("gaussian", "zero")).all()
    one = [Completer(random_state=s).fit_transform(X) for s in (0, 5)]
    theirs = complete(X, random_state=5)
    np.testing.assert_array_equal(one[1], theirs.X)
    assert (one[0] != one[1]).any()
    completer = Completer(random_state=5)
    completer.fit_transform(X)
    np.testing.assert_array_equal(completer.uncertainty_, theirs.std)
    with pytest.raises(EEGTensorError, match="denoise='wavelet'"):
        Completer(denoise="wavelet").fit_transform(X)
    for options in ({"max_gap": -1.0}, {"max_gap": "1 s"}, {"random_state": None}):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            Completer(**options).fit_transform(X)


def test_arrays_of_other_libraries(rng: np.random.Generator) -> None:
    X = signals(rng, 200)
    lost = np.zeros(X.shape, bool)
    lost[3, 40:60] = True
    want = Completer().fit_transform(np.where(lost, np.nan, X))
    found = Completer().fit_transform(np.ma.masked_array(X, lost))
    np.testing.assert_array_equal(found, want, strict=True)
    tensor = torch.tensor(X, requires_grad=True)
    np.testing.assert_array_equal(Completer().fit_transform(tensor), X)
    with pytest.raises(EEGTensorError, match="shape"):
        Completer().fit_transform(np.empty((4, 0, 50)))


def test_interval_is_that_of_a_normal_variable() -> None:
    for level, half in ((0.9, 1.6448536), (0.5, 0.6744898), (0.95, 1.959964)):
        low, high = interval([1.0], [2.0], level)
        ends = [1 - 2 * half, 1 + 2 * half]
        np.testing.assert_allclose([*low, *high], ends, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mapped_arrays_stay_as_they_were(
    rng: np.random.Generator, tmp_path: Path, dtype: type
) -> None:
    X = signals(rng, 500).astype(dtype)
    X[1, 60:90] = np.nan
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    completer = Completer()
    out = completer.fit_transform(mapped)
    assert out.dtype == dtype and completer.uncertainty_.dtype == dtype
    lost = np.isnan(X)
    assert (out[~lost] == X[~lost]).all() and np.isfinite(out).all()
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)


def test_files_that_are_not_in_memory(raw, tmp_path: Path) -> None:
    raw._data[5] = np.nan
    path = tmp_path / "x_raw.fif"
    raw.save(path, fmt="double", verbose="error")
    lazy = mne.io.read_raw_fif(path, verbose="error")
    completer = Completer()
    out = completer.fit_transform(lazy)
    assert not lazy.preload and out.preload
    assert completer.table_["kind"].tolist() == ["channel"]
    assert np.isfinite(out.get_data()).all()
    rest = np.delete(np.arange(10), 5)
    np.testing.assert_array_equal(out.get_data()[rest], raw.get_data()[rest])


def test_trials_of_a_few_samples(rng: np.random.Generator) -> None:
    X = signals(rng, 60).reshape(8, 12, 5).swapaxes(0, 1)
    X[3, 2, :2] = np.nan
    assert np.isfinite(Completer().fit_transform(X)).all()


def test_a_channel_lost_in_every_trial_is_found() -> None:
    lost = np.zeros((8, 5, 20), bool)
    lost[:, 2] = True
    # One row of positions is missing, of a channel that lost nothing.
    places = np.eye(5, 3) + 0.1
    places[4] = np.nan
    rows, kept = usable(lost, places, None)
    assert rows.tolist() == [0, 1, 2, 3]
    assert kept is not None and np.isfinite(kept).all()
    # Without any channel to place, positions play no part.
    assert usable(np.zeros_like(lost), places, None)[1] is None
    # Five samples are all there is.
    assert usable(np.zeros((2, 5), bool), None, None)[1] is None


def test_places_that_are_none(raw) -> None:
    info = mne.pick_info(raw.info, EEG)
    whole = electrode_directions(info)
    info["chs"][3]["loc"][:3] = 0.0
    found = electrode_directions(info)
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(
        np.delete(found, 3, 0), np.delete(whole, 3, 0), atol=0.02
    )
    for k in range(5):
        info["chs"][k]["loc"][:3] = np.nan
    assert np.isnan(electrode_directions(info)).all()


def test_patches_of_denoising_are_in_seconds(raw, monkeypatch) -> None:
    given = []

    def kept(X, **sizes):
        given.append(sizes)
        return real(X, **sizes)

    real = module.denoise_nonlocal
    monkeypatch.setattr(module, "denoise_nonlocal", kept)
    raw.crop(0, 2.99)
    Completer(denoise="nonlocal").fit_transform(raw)
    Completer(denoise="nonlocal").fit_transform(raw.copy().resample(200.0))
    assert [sizes["window"] for sizes in given] == [6, 12]
    assert [sizes["patch"] for sizes in given] == [12, 25]


def test_noise_of_a_channel_that_is_left_out(raw) -> None:
    raw.info["chs"][4]["loc"][:3] = np.nan
    raw.info["bads"] = ["C3"]
    raw.crop(0, 2.99)
    completer = Completer(denoise="nonlocal")
    out = completer.fit_transform(raw)
    assert (completer.noise_ > 0).tolist() == [i != 2 for i in range(8)]
    np.testing.assert_array_equal(out.get_data("Pz"), raw.get_data("Pz"))
