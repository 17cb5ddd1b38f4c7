"""Files that are whole, whatever happens while they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training.files import read_state, write_state, written_whole


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "notes.txt"
    with written_whole(path) as scratch:
        scratch.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as scratch:
        scratch.write_text("new, half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_states_come_back_and_outlive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_state(path, {"a": torch.arange(3), "b": [1.5, None]}, "test 1")
    content = read_state(path, "test 1", what="test", fix="none")
    write_state(path, {"a": torch.zeros(300)}, "test 1")
    assert content["b"] == [1.5, None] and content["a"].tolist() == [0, 1, 2]
    for wrong, words in ((path, "format 'test 1', not"), (tmp_path / "x", "no whole")):
        with pytest.raises(EEGTensorError, match=words):
            read_state(wrong, "test 2", what="test", fix="none")
