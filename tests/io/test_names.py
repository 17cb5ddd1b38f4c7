from __future__ import annotations

from pathlib import Path

import pytest

from eegtensor import EEGTensorError
from eegtensor.io.names import Label, base_stem, label_of


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("d/sub-01/ses-0/sub-01_ses-0_task-ssvep_raw.fif", ("01", "0", "0", "ssvep")),
        ("d/sub-01_ses-01T.npz", ("01", "01T", "0", "")),
        (
            "d/sub-3/ses-b/eeg/sub-3_ses-b_task-mi_run-12_eeg.vhdr",
            ("3", "b", "12", "mi"),
        ),
        ("d/sub-04/recording.edf", ("04", "0", "0", "")),
        ("d/Subject00_1.edf", ("Subject00_1", "0", "0", "")),
        ("d/anna_raw.fif.gz", ("anna", "0", "0", "")),
        ("d/my-sub-9.edf", ("my-sub-9", "0", "0", "")),
    ],
)
def test_entities_and_stems(path: str, label: tuple[str, ...]) -> None:
    assert label_of(Path(path)) == Label(*label)


@pytest.mark.parametrize(
    ("template", "path", "label"),
    [
        ("S{subject}_{session}.edf", "d/S07_2.edf", ("07", "2", "0", "")),
        ("Subject{subject}_{run}", "d/Subject00_1.edf", ("00", "0", "1", "")),
        ("{subject}/*/{session}.set", "d/ann/x/day1.set", ("ann", "day1", "0", "")),
        ("{subject}/{subject}_{task}.edf", "d/a/a_rest.edf", ("a", "0", "0", "rest")),
    ],
)
def test_template(template: str, path: str, label: tuple[str, ...]) -> None:
    assert label_of(Path(path), template) == Label(*label)


def test_template_that_does_not_fit_names_path_and_template() -> None:
    with pytest.raises(EEGTensorError, match=r"S07-2.edf does not fit.*include="):
        label_of(Path("d/S07-2.edf"), "S{subject}_{session}.edf")
    with pytest.raises(EEGTensorError, match=r"does not fit"):
        label_of(Path("d/a/b_rest.edf"), "{subject}/{subject}_{task}.edf")
    with pytest.raises(EEGTensorError, match=r"unknown field \{person\}"):
        label_of(Path("d/x.edf"), "{person}.edf")


def test_function() -> None:
    label = label_of(Path("d/x.edf"), lambda p: {"subject": 5, "session": p.stem})
    assert label == Label("5", "x")
    with pytest.raises(EEGTensorError, match="keys subject, session, run, task"):
        label_of(Path("d/x.edf"), lambda p: {"person": 5})


def test_base_stem_drops_what_only_says_recording() -> None:
    assert base_stem(Path("a_task-x_raw.fif")) == "a_task-x"
    assert base_stem(Path("a_eeg.vhdr")) == "a"
    assert base_stem(Path("a.b.edf")) == "a.b"
