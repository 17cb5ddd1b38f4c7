"""Every native file at hand, good or damaged, loads or is refused in words."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from eegtensor import EEGTensorError, EEGTensorWarning
from eegtensor.io import RecordingError, read_trials, recording_info
from eegtensor.io.discover import find_recordings

CUT = "cut short"
# file -> (faults that on_bad="raise" stops at, as words that name them) or the
# words of the error where nothing can be read.
LOADS: dict[str, list[str]] = {
    "antio/test-ref.cnt": [],
    "brainvision/Analyzer_nV_Export.vhdr": [],
    "brainvision/test.vhdr": [],
    "brainvision/test_NO.vhdr": [],
    "brainvision/test_VAmp.ahdr": ["flat .*Oz, O1"],
    "cnt/test_CNT_events_mne_JWoess_clipped.cnt": [],
    "curry/test_bdf_stim_channel Curry 7.dat": [],
    "curry/test_bdf_stim_channel Curry 8.cdt": [],
    "curry/test_sfreq_0.dat": [],
    "edf_bdf_gdf/chtypes_edf.edf": [
        r"flat.*\$A2",
        r"saturated.*\$A1",
        r"implaus.*\$A1",
    ],
    "edf_bdf_gdf/duplicate_channel_labels.edf": [],
    "edf_bdf_gdf/eeglab_test.bdf": [],
    "edf_bdf_gdf/mne_test.bdf": [],
    "edf_bdf_gdf/subsecond_starttime.edf": [],
    "edf_bdf_gdf/test.edf": [],
    "edf_bdf_gdf/test_1ch.gdf": ["no EEG channels"],
    "edf_bdf_gdf/test_bdf_stim_channel.bdf": [],
    "edf_bdf_gdf/test_edf_stim_channel.edf": ["saturated.*P8"],
    "edf_bdf_gdf/test_uneven_samp.edf": ["implausible.*microvolts stored as volts"],
    "edf_bdf_gdf/test_utf8_annotations.edf": ["flat.*squarewave", "pulse", "ramp"],
    "eeglab/test_raw_2021.set": [],
    "eeglab/test_raw_chanloc.set": ["flat.*Fp1", "saturated"],
    "eeglab/test_raw_event_duration.set": [],
    "egi/test_egi.raw": ["flat.*E6, E8", "implausible.*E90"],
    "egi/test_egi_evoked.mff": [],
    "fif/openbci_mi_robert_raw.fif": [],
    "made/brainvision_missing_vmrk.vhdr": ["marker file 'absent_file.vmrk'", CUT],
    "made/brainvision_odd_bytes.vhdr": ["203 bytes are left over"],
    "made/edf_bad_startdate.edf": [],
    "made/edf_duplicate_labels.edf": [],
    "made/edf_flat_first_channel.edf": ["flat.*Fp1"],
    "made/edf_good_eegmat_first20s.edf": [],
    "made/edf_nrecords_minus1.edf": [],
    "made/edf_physionet_S001R04_repaired_first40s.edf": [],
    "made/edf_physmin_eq_physmax.edf": ["no physical range.*Fp1"],
    "made/edf_saturated_second_channel.edf": ["saturated.*Fp2"],
    "made/edf_truncated_midrecord.edf": ["promises 40 data records.*holds 20.5"],
    "made/gdf_good_ssvepexo_first60s.gdf": ["implausible.*thousand times too small"],
    "neuralynx": [],
    "nicolet/test_nicolet_raw.data": ["flat.*PHO"],
    "nihonkohden/MB0400FU.EDF": [r"flat.*\$A1", r"saturated.*\$A2", r"implaus.*\$A2"],
    "nihonkohden/MB0400FU.EEG": [],
    "nsx/test_BRSMPGRP_raw.ns3": ["implausible.*elec64"],
    "persyst/sub-pt1_ses-02_task-monitor_acq-ecog_run-01_clip2.lay": [
        r"flat.*\$TP10",
        r"saturated.*\$TP9",
    ],
}
REFUSED: dict[str, str] = {
    "cnt/eeglab_test.cnt": "promises 105370 bytes",
    "edf_bdf_gdf/SC4001EC-Hypnogram.edf": "no signal channels",
    "made/bdf_truncated_half.bdf": "0.48 of its first data record",
    "made/brainvision_missing_eeg.vhdr": "data file 'absent_file.eeg' is missing",
    "made/cnt_truncated.cnt": CUT,
    "made/edf_bad_nsignals.edf": "number of signals reads 'abcd'",
    "made/edf_crlf_damaged_in_git_S001R04_first300kB.edf": "carriage return.*git",
    "made/edf_empty_file.edf": "empty",
    "made/edf_header_cut.edf": "ends within its header",
    "made/edf_header_only.edf": "header and 0 of its first data record",
    "made/edf_not_edf_text.edf": "no EDF file",
    "made/eeglab_missing_fdt.set": "'test_raw_chanloc.fdt'.*missing",
    "made/eeglab_truncated.set": CUT,
    "made/fif_truncated_half_raw.fif": CUT,
    "made/fif_truncated_header_raw.fif": CUT,
    "made/gdf_header_only_256.gdf": "ends within its header",
    "made/gdf_truncated_200k.gdf": CUT,
    "nsx/test_NEURALSG_raw.ns3": "this variant of NSx is not readable",
}


def test_every_file_has_an_expected_outcome(shared_data: Path) -> None:
    root = shared_data / "formats"
    found, _ = find_recordings(root)
    names = {path.relative_to(root).as_posix() for path in found}
    assert names == LOADS.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", LOADS)
def test_loads_with_exactly_these_faults(shared_data: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = recording_info(shared_data / "formats" / name)
    assert info.ch_names and info.sfreq > 0 and info.duration > 0
    assert len(info.faults) == len(LOADS[name]), info.faults
    for fault, words in zip(info.faults, LOADS[name], strict=True):
        _assert_words(words, fault)
    assert bool(info.remedies) == bool(info.faults)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_words(shared_data: Path, name: str) -> None:
    path = shared_data / "formats" / name
    with pytest.raises(RecordingError) as caught:
        recording_info(path)
    error = caught.value
    _assert_words(REFUSED[name], error.fault)
    assert error.path == str(path) and error.remedy
    assert str(path) in str(error) and "What to do:" in str(error)


@pytest.mark.parametrize("name", [*LOADS, *REFUSED])
def test_reading_gives_trials_or_one_error(shared_data: Path, name: str) -> None:
    path = shared_data / "formats" / name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", EEGTensorWarning)
        try:
            trials = read_trials(path, tmin=0.0, tmax=0.01, on_bad="warn")
        except EEGTensorError as error:
            assert path.name in str(error)
        else:
            assert len(trials) and len(trials.ch_names) == trials.X.shape[1]


def test_samples_equal_mne(shared_data: Path) -> None:
    import mne

    path = shared_data / "formats/edf_bdf_gdf/test_bdf_stim_channel.bdf"
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
    trials = read_trials(path, tmin=0.0, tmax=0.5)
    start = [round(t * 500) for t in trials.metadata["onset"]]
    whole = raw.get_data(picks="eeg").astype("float32")
    for x, s in zip(trials.X, start, strict=True):
        assert (x == whole[:, s : s + 250]).all()


def test_explicit_file_that_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "notes.xyz"
    path.write_text("not a recording")
    with pytest.raises(RecordingError, match=r"no recording in a known format"):
        read_trials(path, tmin=0, tmax=1)


def test_truncated_ant_file_is_caught_before_its_library(
    shared_data: Path, tmp_path: Path
) -> None:
    whole = (shared_data / "formats/antio/test-ref.cnt").read_bytes()
    path = tmp_path / "short.cnt"
    path.write_bytes(whole[:50000])
    with pytest.raises(RecordingError, match="50000 of 215120 bytes"):
        recording_info(path)


def _assert_words(words: str, text: str) -> None:
    import re

    assert re.search(words, text), text
