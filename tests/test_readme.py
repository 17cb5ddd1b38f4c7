"""The README's snippets run, its commands exist, its files are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from eegtensor import Trials, benchmark, cli, make_pipeline, simulate_trials

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def write_recordings(folder: Path) -> None:
    """Continuous FIF files of two simulated people, events as annotations."""
    import mne
    import numpy as np

    trials = simulate_trials(
        n_subjects=2, n_sessions=1, n_trials=6, n_channels=4, duration=4.0
    )
    for subject in ("01", "02"):
        part = trials[trials.metadata["subject"].to_numpy() == subject]
        raw = mne.io.RawArray(np.hstack(part.X), part.info, verbose="ERROR")
        onsets = np.arange(len(part)) * 4.0
        codes = ["1" if label == part.classes[0] else "2" for label in part.y]
        raw.set_annotations(mne.Annotations(onsets, 0.0, codes))
        place = folder / f"sub-{subject}" / "ses-1"
        place.mkdir(parents=True)
        raw.save(place / f"sub-{subject}_ses-1_raw.fif", verbose="ERROR")


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recordings(tmp_path / "recordings")
    scope: dict = {}
    exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), scope)
    assert isinstance(scope["trials"], Trials)
    if "report.html" in SNIPPETS[number]:
        assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_first_example_has_six_lines_and_says_what_it_prints() -> None:
    lines = [line for line in SNIPPETS[0].splitlines() if line.strip()]
    assert len(lines) <= 6
    trials = simulate_trials(n_subjects=6, n_sessions=2, random_state=0)
    names = ["mdm", "tangent-space"]
    first = str(benchmark(trials, names, adapt=["none", "full"]))
    again = str(benchmark(trials, names, adapt=["none", "full"]))
    assert first == again
    numbers = re.findall(r"\d\.\d{3}", first)
    shown = re.findall(r"```text\n(.*?)```", README, re.DOTALL)[0]
    # Two hundredths: another machine's rounding may move a trial.
    for ours, readme in zip(numbers, re.findall(r"\d\.\d{3}", shown), strict=True):
        assert abs(float(ours) - float(readme)) < 0.02


def test_commands_parse() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("eegtensor ")]
    assert len(commands) >= 3
    for words in commands:
        options = cli._build_parser().parse_args(words[1:])
        assert callable(options.run)


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if not link.startswith("http")]
    assert {"CHANGELOG.md", "tutorials/README.md"} <= set(local)
    missing = [link for link in local if not (ROOT / link).exists()]
    assert not missing


def test_named_estimators_exist() -> None:
    from eegtensor import transfer

    for name in ("Recenter", "Rescale", "Rotate", "EuclideanAlignment"):
        assert name in README and hasattr(transfer, name)
    assert make_pipeline("tangent-space", align="riemann").can_adapt
