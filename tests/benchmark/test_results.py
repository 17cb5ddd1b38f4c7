"""Tables, comparisons, and results on disk."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from eegtensor import EEGTensorError
from eegtensor.benchmark import Results, bootstrap_interval, sign_flip_test


def _scores(table: dict, *, subjects: str = "abcde", sessions: int = 1) -> pd.DataFrame:
    """Return a frame of scores from {(pipeline, adapt): value or values}."""
    rows = []
    for (pipeline, adapt), values in table.items():
        for i, subject in enumerate(subjects):
            for session in range(sessions):
                rows.append(
                    {
                        "dataset": "toy",
                        "protocol": "leave-one-subject-out",
                        "adapt": adapt,
                        "pipeline": pipeline,
                        "subject": subject,
                        "session": str(session),
                        "n_trials": 8 if adapt == "20%" else 10,
                        "balanced_accuracy": values[i],
                        "roc_auc": 0.5 + values[i] / 2,
                        "ece": 1 - values[i],
                        "transductive": adapt == "full",
                        "balanced_accuracy_common": values[i] - 0.1,
                    }
                )
    return pd.DataFrame(rows)


def _results(scores: pd.DataFrame) -> Results:
    config = {
        "protocol": "leave-one-subject-out",
        "classes": ["left", "right"],
        "seed": 0,
    }
    predictions = pd.DataFrame({"subject": ["a"], "y_true": ["NA"], "y_pred": ["left"]})
    return Results(scores, predictions, config)


A = np.array([0.6, 0.7, 0.8, 0.65, 0.9])
B = A - np.array([0.05, 0.1, 0.02, 0.08, 0.01])


def test_table_averages_people_not_rows():
    scores = _scores({("mdm", "none"): A}, sessions=1)
    extra = pd.concat([scores.iloc[[0]]] * 9).assign(balanced_accuracy=0.6, session="x")
    table = _results(pd.concat([scores, extra])).table()
    row = table.loc[("mdm", "none")]
    assert row["balanced_accuracy"] == pytest.approx(A.mean())
    low, high = bootstrap_interval(A, seed=0)
    assert (row["balanced_accuracy_low"], row["balanced_accuracy_high"]) == (low, high)
    assert row["n_people"] == 5 and row["balanced_accuracy_chance"] == 0.5
    assert row["transductive"] == "no"


def test_same_subject_of_two_datasets_is_two_people():
    scores = _scores({("mdm", "none"): A})
    both = pd.concat([scores, scores.assign(dataset="other")])
    result = _results(both)
    assert result.table()["n_people"].iloc[0] == len(result.per_person()) == 10


def test_table_says_transductive_and_prints():
    result = _results(_scores({("mdm", "none"): B, ("mdm", "full"): A}))
    assert result.table()["transductive"].tolist() == ["no", "yes"]
    text = str(result)
    assert str(result.table()) in text and "..." not in text
    assert text.splitlines()[1].split()[:4] == [
        "pipeline",
        "adapt",
        "transductive",
        "n_people",
    ]
    assert "chance 0.5" in text and "transductive" in text
    assert f"{A.mean():.3f} [" in text and "yes" in text
    assert "best balanced_accuracy 0.730: mdm (full)" in repr(result)
    assert result.table("ece").loc[("mdm", "full"), "ece"] == pytest.approx(
        1 - A.mean()
    )
    with pytest.raises(EEGTensorError, match="not among the scores"):
        result.table("subject")


def test_comparison_by_hand():
    result = _results(_scores({("a", "none"): A, ("b", "none"): B}))
    (row,) = result.compare().to_dict("records")
    assert (row["better"], row["other"]) == ("a (none)", "b (none)")
    assert row["difference"] == pytest.approx((A - B).mean())
    assert row["p"] == row["p_corrected"] == row["p_smallest"] == 0.0625
    assert row["n_people"] == 5 and row["scored_on"] == "all"
    assert row["low"] < row["difference"] < row["high"]


def test_lower_is_better_for_calibration_error():
    result = _results(_scores({("b", "none"): B, ("a", "none"): A}))
    (row,) = result.compare("ece").to_dict("records")
    assert row["better"] == "a (none)"
    assert row["difference"] == pytest.approx(-(A - B).mean())


def test_modes_with_other_trials_meet_on_the_common_set():
    table = {("a", "none"): A, ("a", "20%"): B, ("b", "20%"): B[::-1]}
    scores = _scores(table)
    moved = scores["adapt"] == "20%"
    scores.loc[moved, "balanced_accuracy_common"] += 0.3
    frame = _results(scores).compare().set_index(["better", "other"])
    assert frame.loc[("a (20%)", "a (none)"), "scored_on"] == "common"
    assert frame.loc[("a (20%)", "a (none)"), "difference"] == pytest.approx(
        0.3 - (A - B).mean()
    )
    assert frame["scored_on"].tolist().count("all") == 1
    deltas = np.stack([A - 0.1 - (B + 0.2), A - 0.1 - (B[::-1] + 0.2), B - B[::-1]], 1)
    expected = sign_flip_test(deltas).p_corrected
    assert sorted(frame["p_corrected"]) == pytest.approx(sorted(expected))


def test_one_method_cannot_be_compared():
    with pytest.raises(EEGTensorError, match="nothing to compare"):
        _results(_scores({("a", "none"): A})).compare()


def test_save_and_load(make_trials, tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    from eegtensor.benchmark import benchmark

    trials = make_trials(3, (6,), dataset="")
    trials.metadata["subject"] = trials.metadata["subject"].replace(
        {"s1": "NA", "s2": "007"}
    )
    model = make_pipeline(
        FunctionTransformer(lambda X: X.var(axis=2)), LogisticRegression()
    )
    result = benchmark(trials, {"lr": model}, adapt=["none", "50%"], command="eeg x")
    result.save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"scores.csv", "predictions.csv", "config.json"} <= names
    loaded = Results.load(tmp_path / "out")
    pd.testing.assert_frame_equal(loaded.scores, result.scores, check_exact=True)
    pd.testing.assert_frame_equal(loaded.predictions, result.predictions)
    assert loaded.config == result.config and loaded.trials is None
    assert result.trials is not None
    pd.testing.assert_frame_equal(loaded.table(), result.table())
    if "scores.parquet" in names:
        frame = pd.read_parquet(tmp_path / "out" / "scores.parquet")
        pd.testing.assert_frame_equal(frame, result.scores)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["command"] == "eeg x"
    assert {"python", "eegtensor", "numpy", "torch"} <= set(config["versions"])
    assert config["data_digest"] == trials.digest


def test_absent_and_damaged_results_are_explained(tmp_path):
    with pytest.raises(EEGTensorError, match="holds no saved results"):
        Results.load(tmp_path / "nothing")
    result = _results(_scores({("a", "none"): A}))
    result.save(tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{")
    with pytest.raises(EEGTensorError, match="damaged"):
        Results.load(tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(EEGTensorError, match="is a file"):
        result.save(tmp_path / "file")


def test_equal_numbers_of_trials_are_not_the_same_trials():
    scores = _scores({("mdm", "20%"): A, ("mdm", "20%-random"): B})
    scores["n_trials"] = 8
    result = _results(scores)
    assert result.compare()["scored_on"].tolist() == ["common"]
    common = result.compare("balanced_accuracy_common")
    assert common["scored_on"].tolist() == ["common"]
    assert result.compare("roc_auc")["scored_on"].tolist() == ["different"]
    labelled = scores.replace({"adapt": {"20%-random": "labelled-20%"}})
    assert _results(labelled).compare()["scored_on"].tolist() == ["all"]


def test_a_session_that_one_lacks_is_left_out_of_the_comparison():
    scores = _scores({("mdm", "none"): A, ("csp", "none"): B}, sessions=2)
    easy = scores["session"] == "1"
    scores.loc[easy, "balanced_accuracy"] += 0.1
    full = _results(scores).compare()
    lost = (scores["pipeline"] == "csp") & (scores["subject"] == "a") & ~easy
    part = _results(scores[~lost]).compare()
    assert part["difference"].iloc[0] == pytest.approx(full["difference"].iloc[0])
    assert part["better"].tolist() == ["mdm (none)"]


def test_the_common_set_is_flagged_by_what_was_seen_of_it():
    scores = _scores({("mdm", "none"): B, ("mdm", "80%"): A})
    scores["transductive_common"] = scores["adapt"] == "80%"
    result = _results(scores)
    assert result.table()["transductive"].tolist() == ["no", "no"]
    common = result.table("balanced_accuracy_common")
    assert common["transductive"].tolist() == ["no", "yes"]


def test_people_without_a_score_are_not_counted():
    scores = _scores({("mdm", "none"): A})
    scores.loc[1, "balanced_accuracy"] = np.nan
    assert _results(scores).table()["n_people"].tolist() == [4]
    with pytest.raises(EEGTensorError, match="metrics is empty"):
        _results(scores).table([])


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    result = _results(_scores({("mdm", "none"): A}))
    with pytest.raises(EEGTensorError, match="cannot be written"):
        result.save(tmp_path / "file" / "results")
    with pytest.raises(EEGTensorError, match="cannot be made"):
        result.report(tmp_path / "file" / "report.html")


def test_old_parquet_does_not_outlive_its_csv(tmp_path, monkeypatch):
    (tmp_path / "scores.parquet").write_bytes(b"of an earlier run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _results(_scores({("mdm", "none"): A})).save(tmp_path)
    assert not (tmp_path / "scores.parquet").exists()
