"""Small recordings made with MNE, whose every sample the tests know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

NAMES = ("Fz", "C3", "Cz", "C4", "Pz")


@pytest.fixture
def make_raw() -> Callable[..., mne.io.RawArray]:
    """Return a maker of continuous recordings of about 20 uV noise."""

    def make(
        *,
        names: tuple[str, ...] = NAMES,
        sfreq: float = 100.0,
        seconds: float = 30.0,
        seed: int = 0,
        onsets: tuple[float, ...] = (2.0, 5.0, 9.0, 14.0),
        classes: tuple[str, ...] = ("left", "right"),
        first_samp: int = 0,
    ) -> mne.io.RawArray:
        rng = np.random.default_rng(seed)
        X = 2e-5 * rng.standard_normal((len(names), round(seconds * sfreq)))
        info = mne.create_info(list(names), sfreq, "eeg")
        raw = mne.io.RawArray(X, info, first_samp=first_samp, verbose="ERROR")
        words = [classes[i % len(classes)] for i in range(len(onsets))]
        raw.set_annotations(mne.Annotations(list(onsets), 0.0, words))
        return raw

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of FIF files below the test's folder."""

    def write(raw: mne.io.BaseRaw, name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw.save(path, overwrite=True, verbose="ERROR", fmt="double")
        return path

    return write


@pytest.fixture
def save_npz(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of `.npz` trials; arguments replace or remove keys."""

    def write(name: str, **changes: object) -> Path:
        rng = np.random.default_rng(1)
        values: dict[str, object] = {
            "X": rng.integers(-20000, 20000, (6, 3, 200)).astype(np.int16),
            "scale": np.float32(1e-9),
            "y": np.asarray(["rest", "task"] * 3),
            "sfreq": np.float64(100.0),
            "ch_names": np.asarray(["C3", "Cz", "C4"]),
            "subject": np.asarray("07"),
            "session": np.asarray("2"),
            "run": np.asarray(["1", "1", "1", "2", "2", "2"]),
            "unit": np.asarray("V"),
        }
        values.update(changes)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{k: v for k, v in values.items() if v is not None})
        return path

    return write
