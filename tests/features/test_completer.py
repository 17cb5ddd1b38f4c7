"""Completer: arrays, recordings and epochs; what counts as lost and what stays."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from sklearn.base import clone

from eegtensor import EEGTensorError
from eegtensor.features import Completer
from eegtensor.features._losses import electrode_directions
from eegtensor.features.completer import interval

NAMES = ["Fz", "Cz", "Pz", "C3", "C4", "P3", "P4", "Oz", "F3", "F4"]
SFREQ = 100.0


@pytest.fixture(scope="module")
def raw() -> mne.io.RawArray:
    """Ten channels that mix four slow sources, in volts, with an EOG channel."""
    rng = np.random.default_rng(0)
    sources = np.cumsum(rng.standard_normal((4, 1500)), axis=1)
    sources -= np.apply_along_axis(
        lambda s: np.convolve(s, np.ones(50) / 50, "same"), 1, sources
    )
    info = mne.create_info([*NAMES, "EOG"], SFREQ, ["eeg"] * 10 + ["eog"])
    info.set_montage("standard_1020", on_missing="ignore")
    places = np.array([ch["loc"][:3] for ch in info["chs"][:10]])
    mixing = np.exp(
        -((places[:, None] - places[None, ::3][:, :4]) ** 2).sum(-1) / 0.008
    )
    X = 1e-5 * mixing @ sources + 1e-7 * rng.standard_normal((10, 1500))
    raw = mne.io.RawArray(np.vstack([X, X[:1]]), info, verbose="error")
    return raw


def error(found: np.ndarray, truth: np.ndarray, lost: np.ndarray) -> float:
    return float(np.linalg.norm((found - truth)[lost]) / np.linalg.norm(truth[lost]))


def test_arrays_with_nan(raw) -> None:
    truth = raw.get_data(picks="eeg")
    lost = np.random.default_rng(1).random(truth.shape) < 0.2
    lost[2, 300:400] = True
    completer = Completer()
    out = completer.fit_transform(np.where(lost, np.nan, truth))
    np.testing.assert_array_equal(out[~lost], truth[~lost])
    assert error(out, truth, lost) < 0.2
    np.testing.assert_array_equal(completer.restored_, lost)
    assert (completer.uncertainty_[lost] > 0).all()
    assert not completer.uncertainty_[~lost].any()
    low, high = interval(out, completer.uncertainty_)
    inside = ((truth >= low) & (truth <= high))[lost].mean()
    assert 0.8 < inside <= 1.0
    assert completer.table_["cells"].sum() == lost.sum()
    again = clone(completer).fit_transform(np.where(lost, np.nan, truth))
    np.testing.assert_array_equal(again, out)


def test_bad_channels_segments_and_nan_of_a_recording(raw) -> None:
    given = raw.copy()
    truth = given.get_data()
    given._data[4, 700:760] = np.nan
    given.info["bads"] = ["Pz"]
    given.set_annotations(
        mne.Annotations(
            [2.0, 5.0, 9.0, 12.0],
            [0.05, 0.5, 2.0, 0.1],
            ["BAD_gap", "BAD_C3", "bad long", "eyes open"],
            ch_names=[(), ("C3",), (), ()],
        )
    )
    completer = Completer()
    out = completer.fit_transform(given)
    assert given.info["bads"] == ["Pz"] and np.isnan(given._data).any()
    lost = np.zeros((10, 1500), bool)
    lost[2] = True
    lost[4, 700:760] = True
    lost[:, 200:205] = True
    lost[3, 500:550] = True
    # Two seconds of all channels stay, and stay annotated; so does what is no fault.
    lost[:, 900:1100] = False
    np.testing.assert_array_equal(completer.restored_, lost)
    assert out.info["bads"] == []
    assert list(out.annotations.description) == ["bad long", "eyes open"]
    found = out.get_data()
    np.testing.assert_array_equal(found[10], truth[10])
    np.testing.assert_array_equal(found[:10][~lost], truth[:10][~lost])
    assert error(found[:10], truth[:10], lost) < 0.7
    assert set(completer.table_["kind"]) == {"run", "gap", "channel"}


def test_a_recording_that_begins_late(raw) -> None:
    late = raw.copy()
    late.set_meas_date(0)
    late.set_annotations(mne.Annotations([5.0], [0.2], ["BAD"], orig_time=0))
    late.crop(4.0, None)
    completer = Completer()
    out = completer.fit_transform(late)
    assert completer.restored_[:, 100:120].all()
    assert completer.restored_.sum() == 200
    assert len(out.annotations) == 0


def test_annotations_of_other_channels_stay(raw) -> None:
    given = raw.copy().set_annotations(
        mne.Annotations(
            [2.0, 4.0, 6.0],
            [0.1, 0.1, 0.1],
            ["BAD", "BAD", "BAD"],
            ch_names=[("EOG",), ("EOG", "Fz"), ("Fz",)],
        )
    )
    completer = Completer()
    out = completer.fit_transform(given)
    assert completer.restored_.sum() == completer.restored_[0].sum() == 20
    assert out.annotations.onset.tolist() == [2.0, 4.0]


def test_everything_is_lost(raw) -> None:
    given = raw.copy()
    given.info["bads"] = list(NAMES)
    with pytest.raises(EEGTensorError, match="lost from beginning to end"):
        Completer().fit_transform(given)


def test_a_few_samples_are_no_data(raw) -> None:
    given = raw.copy()
    given.info["chs"][7]["loc"][:3] = np.nan
    given._data[2, 6:] = np.nan
    completer = Completer()
    assert np.isfinite(completer.fit_transform(given).get_data()).all()
    assert completer.table_["kind"].tolist() == ["channel"]


def test_trials_too_long_to_restore(raw) -> None:
    epochs = mne.make_fixed_length_epochs(raw, 1.5, preload=True, verbose="error")
    epochs._data[3] = np.nan
    epochs._data[5, 1, 20:60] = np.nan
    completer = Completer()
    out = completer.fit_transform(epochs).get_data(picks="eeg")
    assert np.isnan(out[3]).all() and np.isfinite(np.delete(out, 3, axis=0)).all()
    assert completer.left_[3].all() and completer.left_.sum() == 150
    assert completer.table_["cells"].tolist() == [40]


def test_epochs(raw) -> None:
    epochs = mne.make_fixed_length_epochs(raw, 1.0, preload=True, verbose="error")
    truth = epochs.get_data()
    epochs._data[3, 1, 20:60] = np.nan
    epochs.info["bads"] = ["P4"]
    completer = Completer()
    out = completer.fit_transform(epochs)
    assert isinstance(out, mne.BaseEpochs) and out.info["bads"] == []
    found = out.get_data()
    assert np.isfinite(found).all()
    lost = completer.restored_
    assert lost[:, 6].all() and lost[3, 1, 20:60].all()
    assert lost.sum() == 15 * 100 + 40
    np.testing.assert_array_equal(found[:, :10][~lost], truth[:, :10][~lost])


def test_directions_are_those_of_the_best_sphere(raw) -> None:
    from mne.bem import _fit_sphere

    info = mne.pick_info(raw.info, range(10))
    places = np.array([ch["loc"][:3] for ch in info["chs"]])
    theirs = places - _fit_sphere(places)[1]
    ours = electrode_directions(info)
    # MNE's search ends within two millimetres of the optimum.
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    radii = [np.linalg.norm(found, axis=1) for found in (ours, theirs)]
    assert radii[0].std() <= radii[1].std() + 1e-9


def test_channels_without_position(raw) -> None:
    given = raw.copy()
    given.info["chs"][7]["loc"][:3] = np.nan
    given.info["bads"] = ["Pz"]
    # A channel that lost nothing needs none.
    assert Completer().fit_transform(given).info["bads"] == []
    given._data[7, :30] = np.nan
    with pytest.raises(EEGTensorError, match="Positions of channels Oz are not known"):
        Completer().fit_transform(given)
    truth = given.get_data(picks="eeg")
    truth[1] = np.nan
    with pytest.raises(EEGTensorError, match="Positions of channels 1"):
        Completer().fit_transform(truth)


def test_what_cannot_be_done_says_so(raw) -> None:
    with pytest.raises(EEGTensorError, match="method='magic' is not known"):
        Completer("magic").fit_transform(np.ones((3, 4)))
    with pytest.raises(EEGTensorError, match="give floats"):
        Completer().fit_transform(np.ones((3, 4), int))
    with pytest.raises(EEGTensorError, match="info has 11 channels"):
        Completer().fit_transform(np.ones((3, 4)), info=raw.info)
    with pytest.raises(EEGTensorError, match="level"):
        interval(np.ones(2), np.ones(2), 1.5)
    few = raw.copy().pick(["Fz", "EOG"])
    with pytest.raises(EEGTensorError, match="1 EEG channels"):
        Completer().fit_transform(few)


@pytest.fixture(scope="module")
def smooth(raw) -> mne.io.RawArray:
    """The recording without what white noise could be taken for."""
    return raw.copy().filter(None, 15.0, picks="all", verbose="error")


@pytest.mark.parametrize("denoise", ["nonlocal", "nonlocal-tf"])
def test_noise_stays_unless_denoising_is_asked_for(smooth, denoise) -> None:
    truth = smooth.get_data(picks="eeg")
    rng = np.random.default_rng(2)
    X = truth + 0.3 * truth.std() * rng.standard_normal(truth.shape)
    X[3, 200:300] = np.nan
    lost = np.isnan(X)
    plain = Completer()
    kept = plain.fit_transform(X)
    np.testing.assert_array_equal(kept[~lost], X[~lost])
    assert not hasattr(plain, "noise_")
    completer = Completer(denoise=denoise)
    clean = completer.fit_transform(X)
    assert error(clean, truth, ~lost) < 0.6 * error(X, truth, ~lost)
    np.testing.assert_allclose(completer.noise_, 0.3 * truth.std(), rtol=0.15)
    np.testing.assert_array_equal(completer.restored_, lost)


@pytest.mark.parametrize("denoise", ["nonlocal", "nonlocal-tf"])
def test_denoising_of_recordings_and_epochs(smooth, denoise) -> None:
    noisy = smooth.copy()
    rng = np.random.default_rng(2)
    level = 0.3 * smooth.get_data(picks="eeg").std()
    noisy._data[:10] += level * rng.standard_normal((10, smooth.n_times))
    noisy.info["bads"] = ["Pz"]
    noisy.set_annotations(mne.Annotations(5.0, 3.0, "BAD_long"))
    completer = Completer(denoise=denoise)
    out = completer.fit_transform(noisy)
    truth, before, after = (r.get_data(picks="eeg") for r in (smooth, noisy, out))
    gap = np.zeros(truth.shape, dtype=bool)
    gap[:, 500:800] = True
    assert error(after, truth, ~gap) < 0.7 * error(before, truth, ~gap)
    # A gap too long to restore is not touched; nor are channels of other kinds.
    np.testing.assert_array_equal(after[gap], before[gap])
    np.testing.assert_array_equal(out.get_data("EOG"), noisy.get_data("EOG"))
    assert completer.noise_.shape == (10,)
    noisy.info["bads"] = []
    epochs = mne.make_fixed_length_epochs(noisy.set_annotations(None), 1.0)
    epochs.load_data()
    clean = Completer(denoise=denoise).fit_transform(epochs).get_data(picks="eeg")
    whole = truth.reshape(10, 15, 100).swapaxes(0, 1)
    was = epochs.get_data(picks="eeg")
    assert error(clean, whole, whole == whole) < 0.7 * error(was, whole, whole == whole)


def test_denoising_that_is_not_known() -> None:
    with pytest.raises(EEGTensorError, match="denoise='wavelet'"):
        Completer(denoise="wavelet").fit(None)
