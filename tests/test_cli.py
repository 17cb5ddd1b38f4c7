"""The command line: what it prints, writes, returns, and how it resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eegtensor import Trials, cli, simulate_trials
from eegtensor._reading import event_words
from eegtensor._version import __version__
from eegtensor.cli import main


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "store"
    simulate_trials(
        n_subjects=3, n_sessions=2, n_trials=16, n_channels=5, random_state=0
    ).save(path)
    return path


def one_error(capsys: pytest.CaptureFixture) -> str:
    """The single message on stderr, checked for its beginning."""
    err = capsys.readouterr().err.strip()
    assert err.startswith("eegtensor: error: ")
    assert err.count("eegtensor: error:") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["benchmark"], "No recordings were named"),
        (["benchmark", "x", "--tmin", "abc"], "invalid float value: 'abc'"),
        (["benchmark", "{store}"], "give --out"),
        (
            ["benchmark", "/no/such", "--tmin", "0", "--tmax", "1", "--out", "o"],
            "/no/such",
        ),
        (["benchmark", "{tmp}", "--out", "o"], "No --tmin and --tmax"),
        (["benchmark", "{store}", "--out", "{tmp}", "--pipelines", "mmd"], "'mdm'"),
        (
            ["benchmark", "{store}", "--out", "{tmp}", "--pipelines", "cca"],
            "frequencies",
        ),
        (["benchmark", "{store}", "--out", "{tmp}", "--protocol", "loso"], "loso"),
        (["benchmark", "{store}", "--out", "{tmp}", "--adapt", "some"], "some"),
        (["benchmark", "--config", "{tmp}/none.toml"], "cannot be read"),
        (["convert", "{tmp}", "{tmp}/s", "--tmin", "0", "--tmax", "1"], "What to do"),
        (["info", "/no/such.edf"], "/no/such.edf"),
    ],
)
def test_mistakes_exit_with_2_and_one_message(
    argv: list[str],
    message: str,
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    given = [word.format(store=store, tmp=tmp_path) for word in argv]
    assert main(given) == 2
    assert message in one_error(capsys)


@pytest.mark.parametrize("command", ["demo", "info", "convert", "benchmark", "doctor"])
def test_help_names_every_option(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage: eegtensor " + command in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


def test_benchmark_writes_what_it_says(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    argv = ["benchmark", str(store), "--adapt", "none,full", "--pipelines", "mdm"]
    assert main([*argv, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "transductive" in shown and "mdm" in shown
    scores = pd.read_csv(out / "scores.csv")
    assert len(scores) == 2 * 3 * 2
    config = json.loads((out / "config.json").read_text())
    assert config["command"] == "eegtensor " + " ".join([*argv, "--out", str(out)])
    assert config["seed"] == 0
    page = (out / "report.html").read_text()
    assert "<html" in page and "http-equiv" not in page.lower()[:200]
    again = tmp_path / "again"
    assert main([*argv, "--out", str(again), "--no-report"]) == 0
    other = pd.read_csv(again / "scores.csv")
    timed = [c for c in scores if c.startswith("seconds")]
    pd.testing.assert_frame_equal(scores.drop(columns=timed), other.drop(columns=timed))
    assert not (again / "report.html").exists()


def test_config_file_and_command_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'src = "{store}"\npipelines = "mdm"\nadapt = ["full"]\nno-report = true\n'
        f'out = "{tmp_path / "a"}"\nseed = 3\n'
    )
    assert main(["benchmark", "--config", str(config)]) == 0
    saved = json.loads((tmp_path / "a" / "config.json").read_text())
    assert saved["seed"] == 3
    assert (
        main(
            [
                "benchmark",
                "--config",
                str(config),
                "--adapt",
                "none",
                "--seed",
                "4",
                "--out",
                str(tmp_path / "b"),
            ]
        )
        == 0
    )
    scores = pd.read_csv(tmp_path / "b" / "scores.csv")
    assert set(scores["adapt"]) == {"none"} and set(scores["seed"]) == {4}
    config.write_text("pipelnes = []\n")
    capsys.readouterr()
    assert main(["benchmark", "--config", str(config)]) == 2
    assert "did you mean 'pipelines'" in one_error(capsys)
    config.write_text("a = \n")
    assert main(["benchmark", "--config", str(config)]) == 2
    assert "is not TOML" in one_error(capsys)


def test_convert_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trials = simulate_trials(n_subjects=2, n_sessions=1, n_trials=6, n_channels=4)
    for subject in ("01", "02"):
        part = trials[trials.metadata["subject"].to_numpy() == subject]
        epochs = part.to_epochs()
        epochs.metadata = None
        epochs.save(tmp_path / f"sub-{subject}_ses-1-epo.fif", verbose="ERROR")
    argv = ["convert", str(tmp_path), str(tmp_path / "store"), "--tmin", "0"]
    assert main([*argv, "--tmax", "1.5", "--band", "4", "30"]) == 0
    assert "digest" in capsys.readouterr().out
    loaded = Trials.load(tmp_path / "store")
    assert loaded.X.shape == (12, 4, 192)
    assert sorted(set(loaded.metadata["subject"])) == ["01", "02"]


def test_info_goes_on_after_a_bad_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trials = simulate_trials(n_subjects=1, n_sessions=1, n_trials=4, n_channels=4)
    good = tmp_path / "sub-9_ses-2-epo.fif"
    epochs = trials.to_epochs()
    epochs.metadata = None
    epochs.save(good, verbose="ERROR")
    bad = tmp_path / "broken.edf"
    bad.write_text("no EEG")
    assert main(["info", str(bad), str(good)]) == 2
    shown = capsys.readouterr()
    assert "broken.edf" in shown.err and shown.err.startswith("eegtensor: error:")
    assert "subject 9, session 2" in shown.out and "left_hand x 2" in shown.out
    assert main(["info", "--json", str(good)]) == 0
    assert json.loads(capsys.readouterr().out)["n_trials"] == 4


def test_doctor(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from eegtensor import doctor

    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown and "cores" in shown
    broken = doctor.Finding("torchaudio", "2.11", "does not load", "rm it")
    monkeypatch.setattr(doctor, "_torchaudio", lambda: broken)
    assert main(["doctor"]) == 1
    assert "problem: does not load\n    fix: rm it" in capsys.readouterr().out


def test_doctor_explains_a_torchaudio_that_cannot_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eegtensor import doctor

    real = doctor.importlib.import_module

    def import_module(name: str):
        if name == "torchaudio":
            raise OSError("libc10_cuda.so: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    finding = doctor._torchaudio()
    assert finding.problem is not None and "torchaudio" in finding.problem
    assert finding.fix is not None


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (["left", "right"], ["left", "right"]),
        (["left=1", "right=2|3"], {"left": 1, "right": [2, 3]}),
        (["rest=T0"], {"rest": "T0"}),
    ],
)
def test_events_words(words: list[str], events: object) -> None:
    assert event_words(words) == events


def test_words_keep_brackets_together() -> None:
    text = "mdm, cca(frequencies=(13, 17), sfreq=256),fb-mdm(n_bands=3)+euclidean"
    assert cli._words(text) == [
        "mdm",
        "cca(frequencies=(13, 17), sfreq=256)",
        "fb-mdm(n_bands=3)+euclidean",
    ]


def test_an_interrupted_run_resumes(tmp_path: Path) -> None:
    """Ctrl-C in the middle: exit code 130, folds kept, the same scores after."""
    trials = simulate_trials(
        n_subjects=8, n_sessions=2, n_trials=30, n_channels=12, random_state=0
    )
    trials.save(tmp_path / "store")
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "eegtensor", "benchmark", str(tmp_path / "store"),
            "--pipelines", "tangent-space+riemann-balanced,mdm", "--out", str(out),
            "--no-report"]  # fmt: skip

    def listen() -> None:
        # A shell's background jobs, this test run perhaps among them, ignore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as process:
        end = time.monotonic() + 120
        while not list((out / "cache").rglob("*.npz")) and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on from there" in err
    kept = {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.npz")}
    assert kept and not (out / "scores.csv").exists()
    assert main(argv[3:]) == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    fresh = tmp_path / "fresh"
    argv[argv.index(str(out))] = str(fresh)
    assert main(argv[3:]) == 0
    resumed = pd.read_csv(out / "scores.csv")
    whole = pd.read_csv(fresh / "scores.csv")
    np.testing.assert_array_equal(
        resumed["balanced_accuracy"], whole["balanced_accuracy"]
    )


def test_train_on_one_dataset_and_test_on_another(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = simulate_trials(
        n_subjects=2, n_sessions=1, n_trials=12, n_channels=7, random_state=5
    )
    metadata = other.metadata.assign(dataset="elsewhere")
    Trials(other.X, other.y, metadata, other.info, other.tmin).save(tmp_path / "other")
    argv = ["benchmark", str(store), "--test", str(tmp_path / "other")]
    out = tmp_path / "out"
    assert main([*argv, "--pipelines", "mdm", "--no-report", "--out", str(out)]) == 0
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["dataset"]) == {"elsewhere"}
    assert set(scores["protocol"]) == {"cross-dataset"}
    assert len(scores) == 2 * 2


def test_a_folder_that_cannot_be_is_said_before_the_work(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    for argv in (["benchmark", str(store)], ["demo"]):
        assert main([*argv, "--out", str(taken)]) == 2
        assert "taken" in one_error(capsys)


def test_config_of_one_word_and_of_other_encodings(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert event_words("left=1 right=2") == {"left": 1, "right": 2}
    assert event_words("left") == ["left"]
    path = tmp_path / "c.toml"
    path.write_bytes("out = 'größe'".encode("latin-1"))
    assert main(["benchmark", "--config", str(path)]) == 2
    assert "is not TOML" in one_error(capsys)


def test_doctor_survives_a_torch_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eegtensor import doctor

    def import_module(name: str):
        raise ImportError

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    monkeypatch.setattr(doctor, "_version", lambda name: "2.11.0")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch does not load" in doctor._torchaudio().state


def test_need_tells_absent_from_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from eegtensor import _optional

    with pytest.raises(_optional.MissingPackageError, match="is not installed"):
        _optional.need("no_such_package", "this test", extra="tests")

    def broken(name: str):
        raise ImportError

    monkeypatch.setattr(_optional.importlib, "import_module", broken)
    with pytest.raises(_optional.MissingPackageError, match="does not load"):
        _optional.need("numpy", "this test")


def test_bands_and_cards_that_do_not_apply(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "c.toml"
    path.write_text("bands = 8", encoding="utf-8")
    argv = ["benchmark", str(store), "--out", str(tmp_path / "o")]
    assert main([*argv, "--config", str(path)]) == 2
    assert "bands=8" in one_error(capsys)
    assert main([*argv, "--card", "bnci_iv_2b"]) == 2
    assert "is a store" in one_error(capsys)
