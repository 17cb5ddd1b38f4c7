"""The tutorials run, say what they promise, and leave nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "tutorials"
# What each prints (regular expressions, in this order) and draws.
PROMISED = {
    "01_why_cross_subject_fails.py": (
        [
            r"balanced accuracy 0\.\d+ within, 0\.\d+ on a new person",
            r"ROC-AUC +0\.\d+ within, 0\.\d+ on a new person",
            r"share of trials called 'left_hand'",
            r"two domains lie \d\.\d+ apart",
            r"after: +domains 0\.00 apart",
            r"aligned +full +yes",
            r"per subject gets \d+% of the gain",
            r"on the same trials: 20% gains 0\.\d+, full gains 0\.\d+",
            r"95 % interval: width 0\.\d+ over people, 0\.\d+ over trials",
            r"p_smallest",
        ],
        ["domains.png"],
    ),
    "02_reading_any_format.py": (
        [
            r"FIF +subject 01",
            r"EDF +subject 02",
            r"BrainVision +subject 03",
            r"log: channels O1, O2 are left out",
            r"log: channels renamed: .*T6-Ref -> P8",
            r"128 trials, 4 subjects, 8 domains, 26 channels",
            r"flat \(no signal\): Cz",
            r"2 recordings cannot be used",
            r"on_bad='drop', channels='interpolate': 112 trials of 28 channels, Cz in",
            r"Two recordings claim subject 07, session 2",
            r"digest [0-9a-f]{32}",
        ],
        ["power.png"],
    ),
    "03_domains.py": (
        [
            r"first: simulated/01/0  last: another lab/01/1",
            r"bob, eve become \[ 1 -1\]",
            r"subjects is missing",
            r"unseen='pooled': session means lie",
            r"unseen='adapt': session means lie \[0\. 0\.\]",
            r"No statistics for the domains simulated/06/0",
            r"adapt needs at least 2 trials",
            r"unseen='adapt' needs at least 2 trials",
            r"prior_trials=5: ",
            r"online +no",
            r"2 classes have become 10",
        ],
        ["stream.png"],
    ),
    "04_alignment_in_a_pipeline.py": (
        [
            r"tangent-space .*csp-lda",
            r"euclidean +full",
            r"\+ rotate +full",
            r"accuracy by scikit-learn (0\.\d+), by our benchmark \1",
            r"classes apart +plain 0\.\d+, balanced 0\.\d+",
            r"classes overlap +plain",
            r"weighted +mean probability of the true class",
            r"riemann +full +yes +6 +0\.\d+",
            r"none 0\.\d+ < gains 0\.\d+ < recentre 0\.\d+",
        ],
        ["aligners.png"],
    ),
    "05_tsmnet_and_label_shift.py": (
        [
            r"distance of session means to I: \d+\.\d before, \de-\d+ after",
            r"V\^2 or uV\^2 differ by \de-\d+",
            r"person 06: 0\.\d+ un-adapted, 0\.\d+ refitted",
            r"simulated/06/1: refit",
            r"online: \d\.\d+ of the trials",
            r"4:1, recentred +0\.\d+",
            r"the shift costs 0\.\d+, of which information brings back 0\.\d+",
            r"refit: fewer than 2 trials per class",
            r"strongest at C",
            r"tsmnet +full +yes +4",
        ],
        ["patterns.png"],
    ),
    "06_tensor_features_and_lost_data.py": (
        [
            r"power: \(320, 16, 12, 8\)",
            r"match of components between halves of the trials: 0\.\d+",
            r"split_half",
            r"chosen by halves that agree: \d",
            r"TuckerFeatures: 72 features, new person 0\.\d+",
            r"HODA: 12 features, new person 0\.9",
            r"scattered +\d+ ",
            r"channel +3840 +spline",
            r"all else: error 0\.\d+, \d\d % inside",
        ],
        ["components.png", "restored.png"],
    ),
    "07_tokens.py": (
        [
            r"band-rvq: 104 bit/s/channel, NRMSE 0\.\d+",
            r"learned: 10\d bit/s/channel, NRMSE 0\.\d+",
            r"tokens \(8, 80, 81\)",
            r"NRMSE (0\.\d\d)\d at 200 Hz, \1\d at 250 Hz",
            r"power_db_gamma +\d+\.\d+ +\d\.\d+",
            r"256000 bytes of 16-bit samples, \d{4} compressed",
            r"\d+ bit/s/channel in the file, 10\d promised",
            r"of 81 slots are ever sent",
            r"a masked token costs \d\.\d+, by guess \d\.\d+",
            r"new person: 0\.\d+ of 40 trials right",
        ],
        ["codes.png", "rate_distortion.png", "reconstruction.png", "usage.png"],
    ),
    "08_attack_calibrate_reject_forget.py": (
        [
            r"new person: 0\.\d+",
            r"0\.05 +0\.\d+ +0\.05 +\d\.\d+ +26\.\d+",
            r"noise as large as the largest attack: 0\.\d+",
            r"tangent-space +0\.\d+ +0\.\d+ +0\.05",
            r"calibration error 0\.\d+, by a temperature 0\.\d+",
            r"rejected: \d+% of clean trials, \d+% of popped",
            r"predict says: .*rejected",
            r"Forgetting simulated/02: 60 trials, sums \(exact\)",
            r"AUC: before 0\.\d+",
            r"largest difference from training without: \d\.\de-1\d",
            r"report: ",
        ],
        ["attack.png"],
    ),
    "11_choosing_a_training_method.py": (
        [
            r"objective: cross-entropy, .*comp-sum",
            r"f-sam: Method\(kind='perturbation'",
            r"refused: Two perturbations of weights",
            r"plain +new person 0\.\d+, 1\.0 x the time",
            r"f-sam +new person 0\.\d+, \d\.\d x the time",
            r"cross-entropy +new person 0\.\d+, fooled by 0\.\d+",
            r"comp-sum\(tau=2\.0\) +new person 0\.\d+, fooled by 0\.\d+",
            r"f-sam +full +yes",
        ],
        ["methods.png"],
    ),
}
# More than ten seconds.
SLOW = {
    "04_alignment_in_a_pipeline.py",
    "05_tsmnet_and_label_shift.py",
    "06_tensor_features_and_lost_data.py",
    "07_tokens.py",
}


def run(
    script: Path, place: Path
) -> tuple[subprocess.CompletedProcess[str], Path, Path]:
    """Run a script; return what it said, its working folder and its temporary one."""
    work, temporary = place / "work", place / "temporary"
    work.mkdir()
    temporary.mkdir()
    environment = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "error::UserWarning:__main__",
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done, work, temporary


def snapshot() -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file beside the tutorials."""
    return {
        str(p.relative_to(FOLDER)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(FOLDER.rglob("*"))
        if p.is_file()
    }


def missing_words(text: str, patterns: list[str]) -> list[str]:
    """Return the patterns that do not occur in the text, one after the other."""
    lacking = []
    for pattern in patterns:
        found = re.search(pattern, text)
        if found is None:
            lacking.append(pattern)
        else:
            text = text[found.end() :]
    return lacking


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in sorted(PROMISED)
    ],
)
def test_tutorial(name: str, tmp_path: Path) -> None:
    before = snapshot()
    done, work, temporary = run(FOLDER / name, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    patterns, pictures = PROMISED[name]
    assert not missing_words(done.stdout, patterns), done.stdout
    assert not list(work.iterdir())
    assert snapshot() == before
    found = {p.name: p.stat().st_size for p in temporary.rglob("*.png")}
    assert set(found) == set(pictures) and min(found.values()) > 5000


def test_every_tutorial_is_tested_and_in_the_readme() -> None:
    there = {p.name for p in FOLDER.glob("*.py")}
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", text)
    assert there == set(PROMISED)
    assert {target for _, target in linked} == there
    assert all(words == target for words, target in linked)


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_percent_format(name: str) -> None:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# %% [markdown]" and lines[1].startswith("# # ")
    text = False
    for number, line in enumerate(lines, start=1):
        if line.startswith("# %%"):
            assert line in ("# %%", "# %% [markdown]"), f"{name}:{number}: {line}"
            text = line.endswith("[markdown]")
        elif text:
            assert not line or line.startswith("#"), f"{name}:{number}: {line}"
    source = "\n".join(lines)
    assert "plt.show" not in source and "http" not in source
    assert source.count("\nassert ") + source.count("    assert ") >= 8


def test_a_false_claim_fails(tmp_path: Path) -> None:
    script = tmp_path / "false.py"
    script.write_text("print('better')\nassert 0.5 > 0.6\n", encoding="utf-8")
    done, _, _ = run(script, tmp_path)
    assert done.returncode != 0 and "AssertionError" in done.stderr
    assert missing_words(done.stdout, ["better", "better"]) == ["better"]
