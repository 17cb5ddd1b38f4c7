"""The shared recordings, read natively."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eegtensor import EEGTensorError, EEGTensorWarning
from eegtensor.io import RecordingError, read_trials

# Of the event file: rest, 13, 21 and 17 Hz.
SSVEP = {"1": 33024, "2": 33025, "3": 33026, "4": 33027}


def test_gdf_copy_gives_the_trials_of_the_fif(shared_data: Path) -> None:
    """Codes 33024.. name the class half a second before the trial's start."""
    with pytest.warns(EEGTensorWarning, match="millivolts stored as volts"):
        fif = read_trials(
            shared_data / "ssvep_exo/sub-01/ses-0", tmin=1.0, tmax=5.0, on_bad="warn"
        )
    gdf_path = shared_data / "native/sub-01_ses-0_task-ssvep.gdf"
    # The event file lies one sample after the GDF's start of the trial.
    later = 0.5 + 1 / 256
    with pytest.warns(EEGTensorWarning, match="a thousand times too small"):
        gdf = read_trials(
            gdf_path, events=SSVEP, tmin=1.0 + later, tmax=5.0 + later, on_bad="warn"
        )
    assert fif.ch_names == gdf.ch_names and len(fif) == 32
    assert fif.y.tolist() == gdf.y.tolist()
    assert np.abs(fif.X - 1e6 * gdf.X).max() < 1e-6 * np.abs(fif.X).max()
    assert np.allclose(fif.metadata["onset"] - gdf.metadata["onset"], later)


def test_both_forms_of_ssvep_are_refused_by_default(shared_data: Path) -> None:
    for path in ("ssvep_exo/sub-01/ses-0", "native/sub-01_ses-0_task-ssvep.gdf"):
        with pytest.raises(RecordingError, match="implausible amplitude") as caught:
            read_trials(shared_data / path, tmin=0.0, tmax=1.0)
        assert "--on-bad warn" in str(caught.value)


def test_fif_and_gdf_of_one_session_collide(shared_data: Path) -> None:
    paths = [shared_data / "ssvep_exo/sub-01/ses-0", shared_data / "native"]
    with pytest.raises(EEGTensorError, match=r"_raw\.fif and .*\.gdf.*include="):
        read_trials(paths, tmin=0.0, tmax=1.0)


def test_ssvep_filter_bank(shared_data: Path) -> None:
    bands = [(12.5, 13.5), (16.5, 17.5), (20.5, 21.5)]
    with pytest.warns(EEGTensorWarning):
        trials = read_trials(
            shared_data / "ssvep_exo", tmin=1.0, tmax=5.0, bands=bands, on_bad="warn"
        )
    assert trials.X.shape == (512, 24, 1024)
    assert len(trials.domain.names) == 16 and trials.classes == ["1", "2", "3", "4"]
    onset = trials.metadata.groupby(["subject", "session"], sort=False)["onset"]
    assert onset.apply(lambda t: t.is_monotonic_increasing).all()


@pytest.mark.parametrize(
    ("name", "n_trials", "n_domains", "classes"),
    [
        ("eegmat", 1439, 24, ["arithmetic", "rest"]),
        ("bnci_iv_2b", 3000, 25, ["left_hand", "right_hand"]),
    ],
)
def test_npz_sets(
    shared_data: Path, name: str, n_trials: int, n_domains: int, classes: list[str]
) -> None:
    trials = read_trials(shared_data / name, tmin=0.5, tmax=3.5, band=(8.0, 30.0))
    assert len(trials) == n_trials and len(trials.domain.names) == n_domains
    assert trials.classes == classes
    assert trials.metadata["dataset"].unique().tolist() == [name]


def test_eeglab_sample(shared_data: Path) -> None:
    trials = read_trials(
        shared_data / "eeglab_sample", events=["square"], tmin=-0.5, tmax=1.0
    )
    assert trials.y.tolist() == ["square"] * 80
    assert len(trials.ch_names) == 30 and "EOG1" not in trials.ch_names
