"""The reference table of the shared data, through the command line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from eegtensor.cli import main

# Mean balanced accuracy over people: MDM and tangent space un-adapted, then
# recentred per (subject, session); made by pyriemann 0.12 on the same files.
REFERENCE = {
    "ssvep_exo": (0.619, 0.566, 0.768, 0.664),
    "eegmat": (0.735, 0.681, 0.848, 0.816),
    "bnci_iv_2b": (0.673, 0.666, 0.718, 0.713),
}
OPTIONS = {
    "ssvep_exo": "--tmin 1 --tmax 5 --on-bad warn "
    "--bands 12.5 13.5 16.5 17.5 20.5 21.5",
    "eegmat": "--tmin 0 --tmax 4 --band 4 30",
    "bnci_iv_2b": "--tmin 0.5 --tmax 3.5 --band 8 30",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE)
def test_scores_are_those_of_the_reference(
    name: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = ["benchmark", str(shared_data / name), "--no-report"]
    argv += ["--pipelines", "mdm,tangent-space", "--adapt", "none,full"]
    argv += ["--out", str(tmp_path / "out"), *OPTIONS[name].split()]
    assert main(argv) == 0
    if name == "ssvep_exo":
        assert "implausible amplitude" in capsys.readouterr().err
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    people = scores.groupby(["adapt", "pipeline", "subject"])[
        "balanced_accuracy"
    ].mean()
    means = people.groupby(["adapt", "pipeline"]).mean()
    order = [("none", "mdm"), ("none", "tangent-space")]
    order += [("full", "mdm"), ("full", "tangent-space")]
    found = [means[key] for key in order]
    assert found == pytest.approx(REFERENCE[name], abs=0.005)
    assert found[2] > found[0] and found[3] > found[1]


def test_implausible_units_need_a_word(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = ["benchmark", str(shared_data / "ssvep_exo" / "sub-01"), "--tmin", "1"]
    assert main([*argv, "--tmax", "5", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "implausible amplitude" in message and "--on-bad warn" in message
