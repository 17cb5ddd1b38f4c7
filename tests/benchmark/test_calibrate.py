"""calibrate-k: a fitted decoder and a few labelled trials of each held-out session."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from eegtensor import EEGTensorError, simulate_trials
from eegtensor.benchmark import benchmark, parse_mode
from eegtensor.benchmark.modes import parse_modes
from eegtensor.benchmark.report_words import describe_mode
from eegtensor.cli import main
from eegtensor.pipeline import Pipeline
from eegtensor.transfer import EuclideanAlignment, TSMNetClassifier

SMALL = {
    "n_temporal_filters": 2,
    "temporal_kernel": 9,
    "n_spatial_filters": 6,
    "subspace": 3,
    "epochs": 4,
    "random_state": 0,
}
TEXT = (
    "tsmnet(n_temporal_filters=2, temporal_kernel=9, n_spatial_filters=6, "
    "subspace=3, epochs=4, random_state=0, calibration={})"
)


@pytest.fixture(scope="module")
def trials():
    return simulate_trials(
        n_subjects=3, n_sessions=2, n_trials=14, n_channels=6, sfreq=64.0,
        random_state=0,
    )  # fmt: skip


class Shifted(ClassifierMixin, BaseEstimator):
    """Nearest class mean of log variances, whose means `calibrate` replaces."""

    log: list = []  # noqa: RUF012

    def fit(self, X, y):
        self.log.append(("fit", len(X)))
        self.classes_ = np.unique(y)
        self.means_ = self._means(X, y)
        self.calibrated_ = 0
        return self

    def calibrate(self, X, y, *, subjects=None, sessions=None):
        self.log.append(("calibrate", subjects[0], sessions[0], list(y)))
        self.calibrated_ += 1
        assert self.calibrated_ == 1, "calibrated twice"
        self.means_ = self._means(X, y)
        return self

    def predict(self, X):
        F = np.log(np.var(X, axis=2))
        d = ((F[:, None] - self.means_) ** 2).sum(axis=2)
        return self.classes_[d.argmin(axis=1)]

    def _means(self, X, y):
        F = np.log(np.var(X, axis=2))
        return np.stack([F[y == c].mean(axis=0) for c in self.classes_])


@pytest.fixture
def log():
    Shifted.log.clear()
    return Shifted.log


def test_each_session_calibrates_a_copy_and_nothing_is_fitted_again(make_trials, log):
    data = make_trials(3, (8, 6))
    result = benchmark(data, {"s": Shifted()}, adapt=["none", "calibrate-2"])
    # One fit a fold serves both modes, and holds source trials alone.
    assert [call for call in log if call[0] == "fit"] == [("fit", 28)] * 3
    calls = [call for call in log if call[0] == "calibrate"]
    assert len(calls) == 6
    assert {call[1:3] for call in calls} == {
        (f"toy/s{i}", s) for i in (1, 2, 3) for s in "01"
    }
    assert all(call[3] == ["class0", "class1"] * 2 for call in calls)
    rows = result.scores[result.scores["adapt"] == "calibrate-2"]
    assert rows["n_trials"].tolist() == [4, 2] * 3
    assert (rows["n_adapt"] == 4).all() and (rows["n_source"] == 28).all()
    assert rows["adapted"].all() and (rows["seconds_adapt"] > 0).all()
    assert not rows["transductive"].any() and (rows["part"] == "first").all()
    assert (rows["sees"] == "other trials, with labels").all()
    # Of 6 trials 3 are the common set, of which one was given with its label.
    assert rows["n_trials_common"].tolist() == [4, 0] * 3
    none = result.scores[result.scores["adapt"] == "none"]
    assert not none["adapted"].any() and (none["n_trials"] == [8, 6] * 3).all()


def test_the_labels_of_scored_trials_are_not_seen(make_trials):
    data = make_trials(3, (8,), separation=0.4)
    given = np.isin(np.arange(24) % 8, range(4))
    assert set(data.y[given]) == {"class0", "class1"}
    # Only trials of one person are changed: of the others the decoder is fitted.
    mine = np.arange(24) < 8

    def said(y):
        result = benchmark(replace(data, y=y), {"s": Shifted()}, adapt="calibrate-2")
        rows = result.predictions
        return rows[rows["subject"] == "s1"]["y_pred"].tolist()

    before = said(data.y)
    swapped = np.where(data.y == "class0", "class1", "class0")
    assert said(np.where(mine & ~given, swapped, data.y)) == before
    assert said(np.where(mine & given, swapped, data.y)) != before


def test_it_is_calibrate_by_hand(trials):
    pipe = Pipeline(
        [("align", EuclideanAlignment()),
         ("network", TSMNetClassifier(calibration=4, **SMALL))]
    )  # fmt: skip
    result = benchmark(trials, {"p": pipe}, adapt=["full", "calibrate-3"])
    rows = result.predictions[result.predictions["adapt"] == "calibrate-3"]
    who, when = np.asarray(trials.subjects), np.asarray(trials.sessions)
    new = who == who[0]
    fitted = pipe.set_params(network__unseen="pooled").fit(trials[~new])
    columns = [c for c in rows.columns if c.startswith("p:")]
    names = result.scores.drop_duplicates(["subject", "session"])
    assert len(names) == 6
    for session in np.unique(when):
        index = np.flatnonzero(new & (when == session))
        y = trials.y[index]
        few = np.sort(np.concatenate([index[y == c][:3] for c in np.unique(y)]))
        rest = np.setdiff1d(index, few)
        model = copy.deepcopy(fitted).calibrate(trials[few])
        here = rows[(rows["fold"] == 0) & (rows["session"] == session)]
        np.testing.assert_allclose(
            here[columns].to_numpy(), model.predict_proba(trials[rest]), atol=1e-5
        )
    assert set(rows.groupby(["subject", "session"]).size()) == {8}


def test_a_name_with_options_calibrates(trials, tmp_path):
    options = {"adapt": ["calibrate-2", "labelled-2"], "cache": tmp_path}
    result = benchmark(trials, [TEXT.format(3)], **options)
    assert set(result.scores["adapt"]) == {"calibrate-2", "labelled-2"}
    calibrated, joined = (
        result.predictions[result.predictions["adapt"] == mode]
        for mode in ("calibrate-2", "labelled-2")
    )
    columns = [c for c in calibrated.columns if c.startswith("p:")]
    # The same trials are scored, by another decoder; a cache keeps both.
    assert calibrated["trial"].tolist() == joined["trial"].tolist()
    assert not np.allclose(calibrated[columns], joined[columns])
    again = benchmark(trials, [TEXT.format(3)], **options)
    pd.testing.assert_frame_equal(again.predictions, result.predictions)


@pytest.mark.parametrize(
    ("pipelines", "words"),
    [
        (["mdm"], "'mdm' has no `calibrate`.*tsmnet.calibration=30.*labelled-2"),
        ([TEXT.format(None)], "calibration=None.*'tsmnet.calibration=30.'"),
        ({"net": TSMNetClassifier()}, "'net' has calibration=None"),
    ],
)
def test_decoders_that_cannot_are_refused_before_anything_is_fitted(
    trials, pipelines, words, monkeypatch
):
    monkeypatch.setattr(TSMNetClassifier, "fit", lambda *a, **k: pytest.fail("fitted"))
    with pytest.raises(EEGTensorError, match=words):
        benchmark(trials, pipelines, adapt=["none", "calibrate-2"])


def test_continuous_targets_and_sessions_of_the_training_are_refused(make_trials):
    data = make_trials()
    age = data.metadata.assign(age=np.arange(len(data), dtype=float))
    with pytest.raises(EEGTensorError, match="needs classes"):
        benchmark(
            replace(data, metadata=age), {"s": Shifted()}, target="age",
            adapt="calibrate-2",
        )  # fmt: skip
    with pytest.raises(EEGTensorError, match="none is new to adapt to"):
        benchmark(
            data, {"s": Shifted()}, protocol="within-session", adapt="calibrate-1"
        )
    with pytest.raises(EEGTensorError, match="takes 4 labelled trials a class"):
        benchmark(data, {"s": Shifted()}, adapt="calibrate-4")


def test_names():
    mode = parse_mode("Calibrate-5")
    assert mode.name == "calibrate-5" and mode.per_class == 5 and mode.part == "first"
    assert mode.labelled and mode.calibrates
    assert not (mode.joins_source or mode.adapts or mode.transductive)
    joined = parse_mode("labelled-5")
    assert joined.joins_source and not joined.calibrates
    assert not parse_mode("full").joins_source
    assert mode.keeps_back == joined.keeps_back
    assert parse_mode("calibrate-5-random").part == "random"
    assert parse_mode("calibrate-5-random").name == "calibrate-5-random"
    assert len(parse_modes(["calibrate-5", "labelled-5", "calibrate-05"])) == 2
    with pytest.raises(EEGTensorError, match=r"share.*as calibrate-5"):
        parse_mode("calibrate-20%")
    with pytest.raises(EEGTensorError, match="out of range"):
        parse_mode("calibrate-0")
    with pytest.raises(EEGTensorError, match="calibrate-k"):
        parse_mode("calibrated-5")


def test_the_help_and_the_report_say_what_it_does(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "calibrate-K" in said and "tsmnet(calibration=30)" in said
    words = describe_mode("calibrate-5")
    assert "first trials (5 a class) of the session" in words
    assert "together" in describe_mode("labelled-5") and "together" not in words


class Inside(Shifted):
    """Has a decoder inside that does not calibrate, and calibrates itself."""

    def __init__(self, calibration=2, inside=None):
        self.calibration = calibration
        self.inside = inside


def test_one_part_that_calibrates_is_enough(make_trials, log):
    data = make_trials(3, (8,))
    both = Inside(inside=Inside(calibration=None))
    assert len(benchmark(data, {"b": both}, adapt="calibrate-2").scores) == 3
    none = Inside(calibration=None, inside=Inside(calibration=None))
    with pytest.raises(EEGTensorError, match="'n' has calibration=None"):
        benchmark(data, {"n": none}, adapt="calibrate-2")


def test_patterns_are_those_of_the_fitted_decoder(make_trials, log, monkeypatch):
    asked = []

    def ask(estimator, X, classes, index, *rest):
        asked.append((estimator.calibrated_, len(index)))

    monkeypatch.setattr("eegtensor.benchmark.fold.ask_for_patterns", ask)
    benchmark(make_trials(3, (8,)), {"s": Shifted()}, adapt="calibrate-2")
    # Of source trials, before anything was learned of the held-out person.
    assert asked == [(0, 16)] * 3
