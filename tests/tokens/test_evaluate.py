"""Distortion, against the project's yardstick."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from eegtensor._check import EEGTensorError
from eegtensor.tokens import EEGTokenizer, distortion, evaluate

ROOT = Path(__file__).resolve().parents[2]


def test_as_the_yardstick_says() -> None:
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
