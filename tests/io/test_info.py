from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

import eegtensor.io
from eegtensor import EEGTensorError
from eegtensor.io import recording_info


def test_continuous(
    make_raw: Callable[..., mne.io.RawArray], save: Callable[..., Path]
) -> None:
    raw = make_raw(names=("Fz", "T3", "Cz", "EOG left"))
    raw._data[2] = 0.0
    info = recording_info(save(raw, "sub-4_ses-b_task-mi_run-3_raw.fif"))
    assert (info.format, info.kind) == ("FIF", "continuous")
    assert (info.subject, info.session, info.run, info.task) == ("4", "b", "3", "mi")
    assert info.channels == {"eeg": 3, "eog": 1}
    assert info.ch_names == ["Fz", "T3", "Cz", "EOG left"]
    assert (info.sfreq, info.duration, info.n_trials) == (100.0, 30.0, None)
    assert info.events == {"left": 2, "right": 2}
    assert info.events_source == "annotations"
    assert info.quality is not None and info.quality.ch_names == ["Fz", "T7", "Cz"]
    assert info.faults == ["flat (no signal): Cz"]
    assert info.remedies and info.notes == ["not EEG by their names: EOG left"]


def test_trials(save_npz: Callable[..., Path]) -> None:
    info = recording_info(save_npz("sub-9.npz"))
    assert (info.format, info.kind, info.n_trials) == ("npz trials", "trials", 6)
    assert (info.subject, info.session) == ("07", "2")
    assert info.events == {"rest": 3, "task": 3} and info.duration == 2.0
    assert any("not the path's" in note for note in info.notes)


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EEGTensorError, match="is a folder"):
        recording_info(tmp_path)


def test_an_edf_written_elsewhere(tmp_path: Path, rng: np.random.Generator) -> None:
    edfio = pytest.importorskip("edfio")
    X = 20 * rng.standard_normal((2, 1000))
    signals = [
        edfio.EdfSignal(x, 100.0, label=f"EEG {n}-Ref", physical_dimension="uV")
        for x, n in zip(X, ("FP1", "T3"), strict=True)
    ]
    annotations = [edfio.EdfAnnotation(2.0, None, "go")]
    path = tmp_path / "sub-1" / "ses-2" / "sub-1_ses-2_eeg.edf"
    path.parent.mkdir(parents=True)
    edfio.Edf(signals, annotations=annotations).write(path)
    trials = eegtensor.io.read_trials(tmp_path, tmin=0.0, tmax=1.0)
    assert trials.ch_names == ["Fp1", "T7"] and trials.y.tolist() == ["go"]
    # One step of 16 bit over the range of the noise.
    assert np.abs(trials.X[0] - 1e-6 * X[:, 200:300]).max() < 5e-9
    assert [str(d) for d in trials.domain.names] == [f"{tmp_path.name}/1/2"]


def test_exports() -> None:
    assert eegtensor.io.open_card and eegtensor.io.list_cards
    with pytest.raises(AttributeError):
        eegtensor.io.absent  # noqa: B018
