"""Windows, filters and rates against samples cut and filtered by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from eegtensor import EEGTensorError
from eegtensor.io import RecordingError, read_trials
from eegtensor.io.filters import apply_filter, check_bands, design, resample

Maker = Callable[..., mne.io.RawArray]
Saver = Callable[..., Path]


@pytest.mark.parametrize(("tmin", "tmax"), [(0.0, 1.0), (-0.5, 0.25), (0.333, 1.777)])
def test_half_open_windows(
    make_raw: Maker, save: Saver, tmin: float, tmax: float
) -> None:
    raw = make_raw(first_samp=123)
    trials = read_trials(save(raw, "a_raw.fif"), tmin=tmin, tmax=tmax)
    X = raw.get_data()
    n = round((tmax - tmin) * 100)
    assert trials.X.shape == (4, 5, n) and trials.X.dtype == np.float32
    assert trials.tmin == tmin
    for x, onset in zip(trials.X, (2, 5, 9, 14), strict=True):
        start = onset * 100 + round(tmin * 100)
        assert np.array_equal(x, X[:, start : start + n].astype(np.float32))


def test_trials_that_leave_or_touch_bad_spans_are_dropped(
    make_raw: Maker, save: Saver, caplog: pytest.LogCaptureFixture
) -> None:
    raw = make_raw(onsets=(0.2, 5.0, 9.0, 12.0, 14.0, 29.0), classes=tuple("abcdef"))
    # [5, 6) meets [5.9, 6.1); [9, 10) ends where [10, 11) begins; 14.5 is a joint.
    raw.annotations.append([5.9, 10.0, 14.5], [0.2, 1.0, 0.0], ["BAD", "bad x", "EDGE"])
    with caplog.at_level(logging.WARNING, "eegtensor"):
        trials = read_trials(save(raw, "a_raw.fif"), tmin=-0.5, tmax=1.0)
        assert trials.y.tolist() == ["c", "d", "f"]
        assert "3 of 6 trials dropped (1 leave the recording, 2" in caplog.text
    whole = read_trials(save(raw, "a_raw.fif"), tmin=0.0, tmax=1.0)
    assert whole.y.tolist() == ["a", "c", "d", "f"]


def test_no_trial_left_is_an_error(make_raw: Maker, save: Saver) -> None:
    with pytest.raises(RecordingError, match="none of its 4 trials is left: 4 leave"):
        read_trials(save(make_raw(), "a_raw.fif"), tmin=0.0, tmax=40.0)


@pytest.mark.parametrize("band", [(8.0, 30.0), (None, 20.0), (1.0, None)])
def test_filter_is_scipys_on_the_continuous_signal(
    make_raw: Maker, save: Saver, band: tuple[float | None, float | None]
) -> None:
    raw = make_raw()
    trials = read_trials(save(raw, "a_raw.fif"), tmin=0.0, tmax=1.0, band=band)
    edges = [e for e in band if e is not None]
    kind = (
        "bandpass" if len(edges) == 2 else "lowpass" if band[0] is None else "highpass"
    )
    sos = butter(
        4, edges if len(edges) == 2 else edges[0], kind, fs=100.0, output="sos"
    )
    X = sosfiltfilt(sos, raw.get_data(), axis=-1)
    assert np.array_equal(trials.X[2], X[:, 900:1000].astype(np.float32))
    assert trials.info["highpass"] == (band[0] or 0.0)
    assert trials.info["lowpass"] == (band[1] or 50.0)


def test_bands_are_stacked_band_by_band(make_raw: Maker, save: Saver) -> None:
    path = save(make_raw(), "a_raw.fif")
    bands = [(8.0, 12.0), (12.5, 30.0)]
    stacked = read_trials(path, tmin=0.0, tmax=1.0, bands=bands)
    assert stacked.ch_names[:2] == ["Fz 8-12Hz", "C3 8-12Hz"]
    assert stacked.ch_names[5:7] == ["Fz 12.5-30Hz", "C3 12.5-30Hz"]
    for i, band in enumerate(bands):
        single = read_trials(path, tmin=0.0, tmax=1.0, band=band)
        assert np.array_equal(stacked.X[:, 5 * i : 5 * i + 5], single.X)
    positions = [ch["loc"][:3] for ch in stacked.info["chs"]]
    assert np.array_equal(positions[0], positions[5]) and np.abs(positions[0]).any()


def test_filter_stops_at_joints(make_raw: Maker, save: Saver) -> None:
    raw = make_raw()
    raw._data[:, 700:] += 5e-3
    raw.annotations.append(7.0, 0.0, "boundary")
    trials = read_trials(save(raw, "a_raw.fif"), tmin=0.0, tmax=1.0, band=(1.0, 30.0))
    sos = butter(4, (1.0, 30.0), "bandpass", fs=100.0, output="sos")
    X = sosfiltfilt(sos, raw.get_data()[:, :700], axis=-1)
    assert np.array_equal(trials.X[1], X[:, 500:600].astype(np.float32))


def test_short_pieces_are_filtered_too() -> None:
    sos = design((8.0, 30.0), 100.0)
    assert sos is not None
    y = apply_filter(sos, np.random.default_rng(0).standard_normal((2, 120)), [5, 60])
    assert y.shape == (2, 120) and np.isfinite(y).all()


@pytest.mark.parametrize(
    ("old", "new"), [(100.0, 64.0), (100.0, 250.0), (512.0, 100.0)]
)
def test_resampling_keeps_time_and_stops_aliases(old: float, new: float) -> None:
    t = np.arange(round(8 * old)) / old
    y = resample(np.sin(2 * np.pi * 7.0 * t), old, new)
    u = np.arange(len(y)) / new
    middle = (u > 1) & (u < 7)
    assert np.abs(y - np.sin(2 * np.pi * 7.0 * u))[middle].max() < 1e-4
    if new < old:
        alias = resample(np.sin(2 * np.pi * (0.9 * old / 2) * t), old, new)
        assert np.abs(alias[middle]).max() < 1e-3


def test_rates_differ(make_raw: Maker, save: Saver) -> None:
    save(make_raw(), "sub-1_raw.fif")
    path = save(make_raw(sfreq=125.0), "sub-2_raw.fif")
    with pytest.raises(
        EEGTensorError,
        match=r"100 Hz in sub-1_raw.fif; 125 Hz in sub-2_raw.fif.*sfreq=100",
    ):
        read_trials(path.parent, tmin=0.0, tmax=1.0)
    trials = read_trials(path.parent, tmin=-0.5, tmax=1.0, sfreq=50.0)
    assert trials.sfreq == 50.0 and trials.X.shape == (8, 5, 75)


def test_resampled_trials_stand_at_their_events(make_raw: Maker, save: Saver) -> None:
    raw = make_raw(sfreq=200.0, onsets=(3.0, 7.0))
    t = raw.times
    raw._data[:] = 2e-5 * np.sin(2 * np.pi * 5 * t)
    path = save(raw, "a_raw.fif")
    trials = read_trials(path, tmin=-0.1, tmax=0.9, sfreq=80.0)
    assert trials.metadata["onset"].tolist() == [3.0, 7.0]
    wanted = 2e-5 * np.sin(2 * np.pi * 5 * trials.times)
    assert np.abs(trials.X - wanted).max() < 2e-9


def test_settings_that_make_no_sense(make_raw: Maker, save: Saver) -> None:
    path = save(make_raw(), "a_raw.fif")
    with pytest.raises(EEGTensorError, match="empty"):
        read_trials(path, tmin=1.0, tmax=1.0)
    with pytest.raises(EEGTensorError, match=r"reaches beyond half the rate.*100 Hz"):
        read_trials(path, tmin=0.0, tmax=1.0, band=(8.0, 60.0))
    with pytest.raises(EEGTensorError, match="after resampling, which has 40 Hz"):
        read_trials(path, tmin=0.0, tmax=1.0, band=(8.0, 30.0), sfreq=40.0)
    with pytest.raises(EEGTensorError, match="Both band= and bands="):
        read_trials(path, tmin=0.0, tmax=1.0, band=(8, 30), bands=[(8, 30)])
    with pytest.raises(EEGTensorError, match="on_bad='ignore'"):
        read_trials(path, tmin=0.0, tmax=1.0, on_bad="ignore")
    for bad in ((30, 8), (0, 8), (8,), "ab", 5):
        with pytest.raises(EEGTensorError, match="The band"):
            check_bands(bad, None)
    with pytest.raises(EEGTensorError, match="twice"):
        check_bands(None, [(8, 30), (8, 30)])


def test_reference(make_raw: Maker, save: Saver) -> None:
    raw = make_raw()
    path = save(raw, "a_raw.fif")
    X = raw.get_data()[:, 200:300]
    average = read_trials(path, tmin=0, tmax=1, picks=["C4", "Fz"], reference="average")
    assert average.ch_names == ["C4", "Fz"]
    assert np.allclose(average.X[0], (X - X.mean(axis=0))[[3, 0]], atol=1e-12)
    named = read_trials(path, tmin=0, tmax=1, reference=["cz", "Pz"])
    assert named.ch_names == ["Fz", "C3", "C4"]
    assert np.allclose(named.X[0], (X - X[[2, 4]].mean(axis=0))[[0, 1, 3]], atol=1e-12)
    with pytest.raises(RecordingError, match="no reference channel M1"):
        read_trials(path, tmin=0, tmax=1, reference="M1")
