from __future__ import annotations

import logging
from pathlib import Path

import pytest

from eegtensor import EEGTensorError
from eegtensor.io import RecordingError
from eegtensor.io.discover import find_recordings


def _touch(folder: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _names(paths: list[Path], root: Path) -> list[str]:
    return [p.relative_to(root).as_posix() for p in paths]


def test_companions_are_no_recordings(tmp_path: Path) -> None:
    _touch(tmp_path, "a.eeg", "a.vmrk", "b.set", "b.fdt", "c_raw.fif", "c-eve.fif")
    _touch(tmp_path, "d.EDF", "readme.txt", "table.mat", ".hidden.edf", "e-ica.fif")
    _touch(tmp_path, "a.vhdr", text="[Common Infos]\nDataFile=other.eeg\n")
    _touch(tmp_path, "other.eeg", "f_raw.fif", "f_raw-1.fif", "g-epo.fif", "p.lay")
    _touch(tmp_path, "p.dat", "k.EEG", "k.PNT", "k.21E", "h_split-02_raw.fif")
    found, root = find_recordings(tmp_path)
    wanted = {"a.vhdr", "b.set", "c_raw.fif", "d.EDF", "f_raw.fif", "g-epo.fif"}
    assert set(_names(found, root)) == wanted | {
        "p.lay",
        "k.EEG",
        "h_split-02_raw.fif",  # its first part is not there
    }
    # A pattern that names data files finds no BrainVision recording twice.
    named, _ = find_recordings(str(tmp_path / "*.[eE][eE][gG]"))
    assert _names(named, tmp_path) == ["k.EEG"]


def test_natural_order_and_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _touch(tmp_path, "sub-10.edf", "sub-2.edf", "x/sub-1.edf", "notes.md")
    with caplog.at_level(logging.INFO, "eegtensor"):
        found, root = find_recordings(tmp_path)
    assert _names(found, root) == ["sub-2.edf", "sub-10.edf", "x/sub-1.edf"]
    assert "notes.md" in caplog.text


def test_globs_lists_and_include(tmp_path: Path) -> None:
    _touch(tmp_path, "a/sub-1.edf", "a/sub-1.gdf", "b/sub-2.edf", "b/sub-2.md")
    found, root = find_recordings(str(tmp_path / "**" / "*.edf"))
    assert _names(found, root) == ["a/sub-1.edf", "b/sub-2.edf"]
    found, _ = find_recordings(tmp_path / "*" / "sub-*", include="*.gdf")
    assert [p.name for p in found] == ["sub-1.gdf"]
    found, _ = find_recordings([tmp_path / "b", tmp_path / "a"], include=["a/*.edf"])
    assert [p.name for p in found] == ["sub-1.edf"]
    found, _ = find_recordings(tmp_path, include=lambda p: p.parent.name == "b")
    assert [p.name for p in found] == ["sub-2.edf"]
    with pytest.raises(EEGTensorError, match=r"leaves none of the 3 recordings"):
        find_recordings(tmp_path, include="*.fif")


def test_nothing_there(tmp_path: Path) -> None:
    _touch(tmp_path, "x/readme.md")
    with pytest.raises(EEGTensorError, match=r"No recordings in .*readme\.md"):
        find_recordings(tmp_path / "x")
    with pytest.raises(RecordingError, match="no such file"):
        find_recordings(tmp_path / "absent.edf")
    with pytest.raises(EEGTensorError, match="No recordings match"):
        find_recordings(str(tmp_path / "*.edf"))
    with pytest.raises(EEGTensorError, match="no paths"):
        find_recordings([])


def test_folders_that_are_one_recording(tmp_path: Path) -> None:
    _touch(tmp_path, "s1.mff/signal1.bin", "s2/LAHC1.ncs", "s2/Events.nev")
    _touch(tmp_path, "store/index.json", "store/gen/info.fif")
    found, root = find_recordings(tmp_path)
    assert _names(found, root) == ["s1.mff", "s2", "store"]
