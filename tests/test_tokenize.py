"""`eegtensor tokenize`: what it writes and says, and files that cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.cli import main
from eegtensor.tokens import (
    EEGTokenizer,
    distortion,
    load_tokens,
    save_tokens,
    tokenize_files,
)
from eegtensor.training.files import read_state, write_state

NAMES = ("Fz", "Cz", "Pz")


def signal(seed: int, seconds: int = 30, sfreq: float = 200.0) -> NDArray:
    """Return channels of a falling spectrum, in volts."""
    n = int(seconds * sfreq)
    noise = np.random.default_rng(seed).standard_normal((len(NAMES), n))
    f = np.fft.rfftfreq(n, 1 / sfreq)
    x = np.fft.irfft(np.fft.rfft(noise) / np.maximum(f, 1), n)
    return np.asarray(2e-5 * x / x.std(axis=1, keepdims=True))


def write(path: Path, x: NDArray, sfreq: float = 200.0) -> Path:
    path.parent.mkdir(exist_ok=True)
    info = mne.create_info([*NAMES, "STI"], sfreq, ["eeg"] * len(x) + ["stim"])
    data = np.concatenate([x, np.zeros((1, x.shape[1]))])
    raw = mne.io.RawArray(data, info, verbose="ERROR")
    raw.save(path, overwrite=True, verbose="ERROR")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("recordings")
    write(place / "a" / "one_raw.fif", signal(0))
    # The same name elsewhere, and another rate.
    write(place / "b" / "one_raw.fif", signal(1, sfreq=250.0), 250.0)
    return place


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "tokens"
    argv = ["tokenize", str(folder), "--bits", "24", "--out", str(out)]
    assert main(argv) == 0
    return out


def test_writes_tokens_a_table_and_pictures(made: Path, folder: Path) -> None:
    table = pd.read_csv(made / "tokens.csv")
    assert list(table["channels"]) == [3, 3] and list(table["seconds"]) == [30, 30]
    assert table["tokens_file"].nunique() == 2
    assert (table["bits_per_second"] <= 24).all() and table["nrmse"].between(0, 1).all()
    tokenizer = EEGTokenizer.load(made / "tokenizer.safetensors")
    for row in table.to_dict("records"):
        tokens = load_tokens(made / row["tokens_file"])
        raw = mne.io.read_raw_fif(row["file"], preload=True, verbose="ERROR")
        raw.pick("eeg").filter(0.5, None, verbose="ERROR")
        fresh = tokenizer.encode(raw)
        assert tokens.ch_names == NAMES and tokens.sfreq == raw.info["sfreq"]
        assert np.array_equal(tokens.ids, fresh.ids) and tokens.ids.dtype == np.int32
        assert (tokens.ids >= 0).sum() == row["tokens"]
        y = tokenizer.decode(tokens)
        if tokens.sfreq == 200:
            # The table leaves the ends out, and what lies above 44.5 Hz.
            rough = distortion([raw.get_data()], [y])
            assert row["nrmse"] == pytest.approx(rough.nrmse, rel=0.1)
        picture = made / row["tokens_file"].replace(".tokens.safetensors", ".png")
        assert picture.stat().st_size > 10_000


def test_says_what_it_did(
    made: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    # Once, though it is named twice.
    twice = [str(folder / "a"), str(folder / "a" / "one_raw.fif")]
    argv = ["tokenize", *twice, "--out", str(tmp_path / "again")]
    model = ["--tokenizer", str(made / "tokenizer.safetensors")]
    assert main([*argv, *model]) == 0
    shown = capsys.readouterr().out
    assert "fitted on these files" not in shown and "band-rvq" in shown
    assert "3 channels, 30 s" in shown and "gamma" in shown
    both = [pd.read_csv(p / "tokens.csv") for p in (made, tmp_path / "again")]
    pd.testing.assert_frame_equal(both[0][:1], both[1])
    assert main([*argv, *model, "--bits", "13"]) == 2
    assert "leave one side out" in capsys.readouterr().err


def test_one_damaged_file_does_not_lose_the_others(
    made: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad = tmp_path / "broken.edf"
    bad.write_text("no EEG")
    nan = signal(2)
    nan[1, 5] = np.nan
    lost = write(tmp_path / "lost_raw.fif", nan)
    short = write(tmp_path / "short_raw.fif", signal(3, seconds=3))
    files = [bad, folder / "a" / "one_raw.fif", lost, tmp_path / "none.fif", short]
    argv = ["tokenize", *map(str, files), "--bits", "24", "--out", str(tmp_path / "o")]
    assert main(argv) == 1
    said = capsys.readouterr()
    for path in (bad, lost, tmp_path / "none.fif", short):
        assert str(path) in said.err
    assert said.err.count("eegtensor: error:") == 4 and "Completer" in said.err
    assert said.err.count("What to do") == 4
    assert len(pd.read_csv(tmp_path / "o" / "tokens.csv")) == 1
    assert len(list((tmp_path / "o").glob("*.tokens.safetensors"))) == 1


def test_help_names_the_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["tokenize", "--help"])
    assert end.value.code == 0
    assert "usage: eegtensor tokenize" in capsys.readouterr().out


def test_nothing_to_tokenise(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = tmp_path / "broken.edf"
    bad.write_text("no EEG")
    assert main(["tokenize", str(bad), "--out", str(tmp_path / "o")]) == 2
    assert "broken.edf" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert main(["tokenize", str(bad), "--out", str(bad)]) == 2
    assert "is a file" in capsys.readouterr().err


def test_of_other_channels_with_a_spatial_tokenizer(tmp_path: Path) -> None:
    first = write(tmp_path / "first_raw.fif", signal(0))
    tokenizer = EEGTokenizer(bits_per_second=12, spatial=True, n_states=0).fit(first)
    raw = mne.io.read_raw_fif(first, preload=True, verbose="ERROR").drop_channels("Cz")
    raw.save(tmp_path / "second_raw.fif", verbose="ERROR")
    files = [tmp_path / "second_raw.fif", first]
    again = tokenize_files(files, tmp_path / "p", tokenizer=tokenizer)
    assert list(again.failed) == [str(files[0])]
    assert "spatial" in again.failed[str(files[0])] and len(again.table) == 1
    assert not list((tmp_path / "p").glob("second*"))


def test_tokens_in_files(tmp_path: Path) -> None:
    x = signal(0)
    tokenizer = EEGTokenizer(bits_per_second=13, n_states=0).fit(x, sfreq=200.0)
    tokens = tokenizer.encode(np.stack([x, x[:, ::-1]]), ch_names=NAMES)
    # As kinds have them that know what codes cost.
    tokens = replace(tokens, bits=np.full(tokens.ids.shape[:-1], 7.5), step=0.3)
    path = tmp_path / "folder" / "t.safetensors"
    save_tokens(tokens, path)
    back = load_tokens(path)
    for name in ("ids", "scale", "alphabet", "bits"):
        assert np.array_equal(getattr(back, name), getattr(tokens, name)), name
    for name in ("sfreq", "ch_names", "n_times", "step", "bits_per_second"):
        assert getattr(back, name) == getattr(tokens, name), name
    assert np.array_equal(tokenizer.decode(back), tokenizer.decode(tokens))


def test_changed_files_of_tokens_are_refused(made: Path, tmp_path: Path) -> None:
    path = next(made.glob("*.tokens.safetensors"))
    content = read_state(path, "eegtensor.tokens.1", what="file", fix="")
    ids = content["state"]["ids"]
    changed = tmp_path / "changed.safetensors"
    content["state"]["ids"] = ids ^ (np.arange(ids.size).reshape(ids.shape) == 7)
    write_state(changed, content, "eegtensor.tokens.1")
    with pytest.raises(EEGTensorError, match="was changed"):
        load_tokens(changed)
    content["state"] = {k: v for k, v in content["state"].items() if k != "scale"}
    write_state(changed, content, "eegtensor.tokens.1")
    with pytest.raises(EEGTensorError, match=r"missing \['scale'\]"):
        load_tokens(changed)
    changed.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(EEGTensorError, match="no whole"):
        load_tokens(changed)
    with pytest.raises(EEGTensorError, match="of format"):
        load_tokens(made / "tokenizer.safetensors")
