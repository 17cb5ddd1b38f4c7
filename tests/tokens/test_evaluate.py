"""Distortion, against the project's yardstick."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.tokens import EEGTokenizer, distortion, evaluate, rate_distortion

ROOT = Path(__file__).resolve().parents[2]


def load_yardstick() -> Any:
    path = Path(
        os.environ.get("EEGTENSOR_YARDSTICK", ROOT.parent / "shared" / "measure")
    )
    path = path / "rate_distortion.py"
    if not path.is_file():
        pytest.skip(f"the yardstick is not at {path}")
    spec = importlib.util.spec_from_file_location("rate_distortion", path)
    assert spec is not None
    assert spec.loader is not None
    yardstick = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(yardstick)
    return yardstick


def test_as_the_yardstick_says() -> None:
    yardstick = load_yardstick()
    rng = np.random.default_rng(0)
    truth = [rng.standard_normal((3, n)) for n in (1000, 1300)]
    rebuilt = [x + 0.3 * rng.standard_normal(x.shape) for x in truth]
    theirs, ours = yardstick.metrics(truth, rebuilt), distortion(truth, rebuilt)
    assert ours.nrmse == pytest.approx(theirs["nrmse"], rel=1e-9)
    for name in ("nmse", "power_db", "phase_deg"):
        for band, value in getattr(ours, name).items():
            assert value == pytest.approx(theirs[f"{name}_{band}"], rel=1e-9)


def test_closed_forms() -> None:
    x = np.random.default_rng(0).standard_normal((2, 2000))
    found = distortion([x], [0.5 * x])
    assert found.nrmse == pytest.approx(0.5, rel=1e-3)
    for band in found.nmse:
        assert found.nmse[band] == pytest.approx(0.25)
        assert found.power_db[band] == pytest.approx(20 * np.log10(2), rel=1e-4)
        assert found.phase_deg[band] == pytest.approx(0, abs=1e-4)


def test_rate_and_distortion_of_a_tokenizer() -> None:
    x = np.random.default_rng(0).standard_normal((2, 20 * 200))
    made = EEGTokenizer(bits_per_second=13, n_states=0).fit(x, sfreq=200.0)
    found = evaluate(made, [x])
    assert found.bits_per_second == 8.0
    assert 0 < found.nrmse < 1


def test_other_shapes_are_refused() -> None:
    x = np.zeros((2, 1000))
    with pytest.raises(EEGTensorError, match="rebuilt"):
        distortion([x], [x[:, 1:]])


class Halver:
    """A tokenizer of somebody else: it halves what it gets."""

    def encode(self, x: NDArray, *, sfreq: float, ch_names: Any = None) -> NDArray:
        return x

    def decode(self, tokens: NDArray) -> NDArray:
        return 0.5 * tokens


def recording(seed: int, sfreq: float, seconds: int = 12) -> mne.io.BaseRaw:
    """Return noise of two channels, one a thousand times the other, and an offset."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, round(seconds * sfreq))) * [[1e-5], [1e-2], [1.0]]
    x[0] += 1e-5
    info = mne.create_info(["Cz", "Pz", "STI"], sfreq, ["eeg", "eeg", "stim"])
    return mne.io.RawArray(x, info, verbose="ERROR")


def test_any_tokenizer_any_recording(tmp_path: Path) -> None:
    raws = [recording(0, 200.0), recording(1, 500.0)]
    found = evaluate(Halver(), raws)
    assert found.nrmse == pytest.approx(0.5, abs=2e-3)
    assert np.isnan(found.bits_per_second)
    raws[1].save(tmp_path / "one_raw.fif", verbose="ERROR")
    from_file = evaluate(Halver(), tmp_path / "one_raw.fif")
    assert from_file.nrmse == pytest.approx(0.5, abs=2e-3)
    x = raws[0].get_data(picks="eeg")
    assert evaluate(Halver(), [x], sfreq=200.0).nrmse == pytest.approx(0.5, abs=0.02)


def test_rates_count_by_what_they_code() -> None:
    class Rated(NamedTuple):
        x: NDArray
        bits_per_second: float

    class Longer(Halver):
        """It spends a bit a second on every second there is."""

        def encode(self, x: NDArray, *, sfreq: float, ch_names: Any = None) -> Any:
            return Rated(x, x.shape[1] / sfreq)

        def decode(self, tokens: Any) -> NDArray:
            return np.asarray(tokens.x)

    rng = np.random.default_rng(0)
    found = evaluate(Longer(), [rng.standard_normal((2, 200 * n)) for n in (10, 30)])
    assert found.bits_per_second == pytest.approx((10 * 10 + 30 * 30) / 40)
    assert found.nrmse == 0


def test_recordings_are_prepared_as_the_yardstick_does() -> None:
    yardstick = load_yardstick()
    raw = recording(0, 250.0)
    x = raw.get_data(picks="eeg")
    rng = np.random.default_rng(9)

    class Noisy(Halver):
        def decode(self, tokens: NDArray) -> NDArray:
            self.made = tokens + 0.3 * tokens.std(axis=1, keepdims=True) * (
                rng.standard_normal(tokens.shape)
            )
            return np.asarray(self.made)

    noisy = Noisy()
    ours = evaluate(noisy, raw)
    truth, error = (yardstick.prepare(v, 250.0) for v in (x, noisy.made - x))
    # It scales what it prepares: the error's share of the truth's variance is back.
    sos = yardstick.ss.butter(3, [0.5, 44.5], btype="bandpass", fs=250.0, output="sos")
    spread = [
        yardstick.ss.resample_poly(
            yardstick.ss.sosfiltfilt(sos, v, axis=-1), 4, 5, axis=-1
        )[:, 200:-200].std(axis=1, keepdims=True)
        for v in (x, noisy.made - x)
    ]
    rebuilt = truth + error * spread[1] / spread[0]
    theirs = yardstick.metrics([truth], [rebuilt])
    assert ours.nrmse == pytest.approx(theirs["nrmse"], rel=1e-3)
    row = ours.row()
    for name in set(row) - {"bits_per_second"}:
        assert row[name] == pytest.approx(theirs[name], rel=2e-3), name


def test_recordings_that_cannot_be_compared() -> None:
    raw = recording(0, 200.0)
    cases: list[tuple[Any, str]] = [
        ([], "no recordings"),
        ([raw, raw.get_data()], "beside"),
        (raw.copy().crop(0, 3), "lasts 3.0 s"),
        (mne.make_fixed_length_epochs(raw, 2, verbose="ERROR"), "holds trials"),
    ]
    for given, words in cases:
        with pytest.raises(EEGTensorError, match=words):
            evaluate(Halver(), given)


def test_the_curve_falls_and_fill_trades_error_for_power() -> None:
    rng = np.random.default_rng(0)
    # Energy at all frequencies, so that some has to be left out.
    train, test = (rng.standard_normal((2, 200 * n)) for n in (20, 10))
    table = rate_distortion(
        "band-rvq", [train], [test], (13, 104), fills=(0.0, 1.0), n_states=0
    )
    assert list(table["asked"]) == [13, 13, 104, 104]
    assert list(table["fill"]) == [0.0, 1.0] * 2
    assert set(table["kind"]) == {"band-rvq"} and set(table["n_states"]) == {0}
    assert (table["bits_per_second"] <= table["asked"]).all()
    plain, filled = (table[table["fill"] == fill] for fill in (0.0, 1.0))
    assert plain["nrmse"].is_monotonic_decreasing
    assert (filled["nrmse"].to_numpy() > plain["nrmse"].to_numpy()).all()
    assert (filled["power_db"].to_numpy() < plain["power_db"].to_numpy()).all()
    made = EEGTokenizer(bits_per_second=104, n_states=0).fit(train, sfreq=200.0)
    alone = evaluate(made, [test], fill=1.0).row()
    assert table.iloc[-1][list(alone)].to_dict() == pytest.approx(alone)
    with pytest.raises(EEGTensorError, match="no rates"):
        rate_distortion("band-rvq", [train], [test], ())
