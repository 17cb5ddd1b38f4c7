"""What the runner passes to estimators, and what it makes of their answers."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import eegtensor
from eegtensor import EEGTensorError, EEGTensorWarning
from eegtensor.benchmark import (
    Results,
    benchmark,
    execute,
    make_folds,
    parse_mode,
    split_session,
)
from eegtensor.domains import Domain

FIRST = (
    "dataset protocol adapt pipeline subject session n_trials balanced_accuracy "
    "accuracy roc_auc kappa ece seconds_fit seconds_predict transductive"
).split()
ALL_MODES = [
    "none",
    "none-trialwise",
    "online",
    "20%",
    "50%",
    "full",
    "20%-random",
    "labelled-2",
    "labelled-50%",
]
TIMES = ["seconds_fit", "seconds_predict", "seconds_adapt"]


def log_variance(X):
    return np.log(np.var(X, axis=2))


def linear():
    return make_pipeline(FunctionTransformer(log_variance), LogisticRegression())


class Recorder(ClassifierMixin, BaseEstimator):
    """Nearest class mean of log variances, recentred by `adapt`; keeps its calls."""

    log: list = []  # noqa: RUF012

    def __init__(self, random_state=None, unseen="raise"):
        self.random_state = random_state
        self.unseen = unseen

    def fit(self, X, y, *, subjects=None, sessions=None):
        assert not hasattr(self, "classes_"), "fitted twice"
        self.log.append(("fit", self, X, y, subjects, sessions))
        self.classes_ = np.unique(y)
        F = log_variance(X)
        self.center_ = F.mean(axis=0)
        self.means_ = np.stack([F[y == c].mean(axis=0) for c in self.classes_])
        self.shift_ = {}
        self.seen_ = {}
        return self

    def adapt(self, X, *, subjects=None, sessions=None):
        self.log.append(("adapt", self, X, None, subjects, sessions))
        if len(X) < 2:
            raise EEGTensorError("one trial has no mean")
        key = _one(subjects, sessions)
        self.shift_[key] = self.center_ - log_variance(X).mean(axis=0)
        return self

    def partial_adapt(self, X, *, subjects=None, sessions=None):
        self.log.append(("partial_adapt", self, X, None, subjects, sessions))
        key = _one(subjects, sessions)
        self.seen_.setdefault(key, []).append(log_variance(X)[0])
        self.shift_[key] = self.center_ - np.mean(self.seen_[key], axis=0)
        return self

    def predict_proba(self, X, *, subjects=None, sessions=None):
        self.log.append(("predict", self, X, None, subjects, sessions))
        F = log_variance(X) + self.shift_.get(_one(subjects, sessions), 0.0)
        d = ((F[:, None] - self.means_) ** 2).sum(axis=2)
        p = np.exp(-d)
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X, *, subjects=None, sessions=None):
        p = self.predict_proba(X, subjects=subjects, sessions=sessions)
        return self.classes_[p.argmax(axis=1)]


def _one(subjects, sessions):
    (key,) = set(zip(subjects, sessions, strict=True))
    return key


@pytest.fixture(autouse=True)
def _fresh_log():
    Recorder.log.clear()


def _calls(method):
    return [call for call in Recorder.log if call[0] == method]


def test_the_package_is_the_function(make_trials):
    trials = make_trials()
    result = eegtensor.benchmark(trials, {"lr": linear()})
    assert isinstance(result, Results)
    assert eegtensor.benchmark.benchmark is benchmark
    assert result.scores.columns[: len(FIRST)].tolist() == FIRST
    assert len(result.scores) == 6 and len(result.predictions) == len(trials)


def test_scores_are_scikit_learns_on_the_same_folds(make_trials):
    trials = make_trials(3, (10, 12), separation=0.4)
    result = benchmark(trials, {"lr": linear()})
    for row in result.scores.itertuples():
        test = (trials.metadata["subject"] == row.subject).to_numpy()
        model = linear().fit(trials.X[~test], trials.y[~test])
        here = test & (trials.sessions == row.session)
        y, p = trials.y[here], model.predict_proba(trials.X[here])[:, 1]
        y_pred = model.predict(trials.X[here])
        assert row.accuracy == pytest.approx(sk.accuracy_score(y, y_pred))
        assert row.roc_auc == pytest.approx(sk.roc_auc_score(y, p))
        assert row.kappa == pytest.approx(sk.cohen_kappa_score(y, y_pred))
        assert row.balanced_accuracy == pytest.approx(
            sk.balanced_accuracy_score(y, y_pred)
        )
        assert row.n_trials == here.sum() and row.n_source == (~test).sum()


def test_estimators_are_cloned_seeded_and_pooled(make_trials):
    given = Recorder()
    benchmark(make_trials(), {"r": given}, adapt=["none", "full"])
    fits = _calls("fit")
    assert len(fits) == 3, "modes that share the source share the fit"
    assert all(call[1] is not given for call in fits)
    assert not hasattr(given, "classes_") and given.unseen == "raise"
    assert all(call[1].unseen == "pooled" for call in fits)
    seeds = [call[1].random_state for call in fits]
    assert len(set(seeds)) == 3 and all(isinstance(s, int) for s in seeds)
    Recorder.log.clear()
    benchmark(make_trials(), {"r": given}, adapt="none")
    assert [call[1].random_state for call in _calls("fit")] == seeds


def test_domains_reach_fit_adapt_and_predict(make_trials):
    trials = make_trials(3, (8, 6))
    benchmark(trials, {"r": Recorder()}, adapt="50%")
    fit = _calls("fit")[0]
    assert set(fit[4]) == {"toy/s2", "toy/s3"} and set(fit[5]) == {"0", "1"}
    adapts = _calls("adapt")
    keys = [_one(call[4], call[5]) for call in adapts]
    assert keys == [(f"toy/s{s}", str(k)) for s in (1, 2, 3) for k in (0, 1)]
    assert [len(call[2]) for call in adapts] == [4, 3] * 3
    np.testing.assert_array_equal(adapts[1][2], trials.X[8:11])


def _poisoned(trials, held_out, given):
    """Return labels with all of a fold's target swapped but those that are given.

    Which trials come first of their class depends on labels by definition, so
    in a session with given trials only the later ones are swapped.
    """
    sitting = [
        f"{s} {k}" for s, k in zip(trials.subjects, trials.sessions, strict=True)
    ]
    last = {sitting[i]: i for i in sorted(given)}
    swap = [i for i in held_out if i > last.get(sitting[i], -1)]
    y = trials.y.copy()
    y[swap] = np.where(y[swap] == "class0", "class1", "class0")
    assert len(swap) >= len(last) and (y != trials.y).sum() == len(swap)
    return y


@pytest.mark.parametrize(
    "protocol", ["leave-one-subject-out", "leave-one-session-out", "2-subjects-out"]
)
@pytest.mark.parametrize("mode", ALL_MODES)
def test_target_labels_reach_nothing_but_calibration(make_trials, protocol, mode):
    """A fold's predictions stay when labels of its target change."""
    trials = make_trials(4, (9, 9), separation=0.5)

    def predict(data):
        result = benchmark(data, {"r": Recorder()}, adapt=mode, protocol=protocol)
        rows = result.predictions.set_index(["fold", "trial"])
        return result.config["n_folds"], rows[["p:class0", "y_pred"]]

    n_folds, before = predict(trials)
    folds = make_folds(trials, protocol)
    assert n_folds == len(folds)
    for fold in folds:
        scored = before.loc[fold.index].index
        given = set(fold.test) - set(scored) if "labelled" in mode else set()
        assert bool(given) == ("labelled" in mode)
        y = _poisoned(trials, fold.test, given)
        _, after = predict(replace(trials, y=y))
        pd.testing.assert_frame_equal(
            after.loc[fold.index], before.loc[fold.index], check_exact=True
        )


def test_calibration_labels_do_matter(make_trials):
    trials = make_trials(3, (9,), separation=0.3)
    y = trials.y.copy()
    y[[0, 1, 2, 3]] = y[[1, 0, 3, 2]]
    before, after = (
        benchmark(replace(trials, y=labels), {"r": Recorder()}, adapt="labelled-2")
        for labels in (trials.y, y)
    )
    assert not before.predictions["p:class0"].equals(after.predictions["p:class0"])


def test_labelled_trials_join_the_source(make_trials):
    trials = make_trials(3, (8, 6))
    result = benchmark(trials, {"r": Recorder()}, adapt="labelled-2")
    fit = _calls("fit")[0]
    assert len(fit[2]) == 28 + 8
    assert list(fit[4][-8:]) == ["toy/s1"] * 8
    assert list(fit[5][-8:]) == ["0"] * 4 + ["1"] * 4
    np.testing.assert_array_equal(fit[3][-8:], trials.y[[0, 1, 2, 3, 8, 9, 10, 11]])
    assert (result.scores["n_source"] == 36).all()
    assert not _calls("adapt")


def test_shuffled_labels_score_at_chance(make_trials):
    trials = make_trials(8, (40,), separation=2.0)
    y = np.random.default_rng(3).permutation(trials.y)
    real = benchmark(trials, {"lr": linear()}).table()["balanced_accuracy"].iloc[0]
    chance = benchmark(replace(trials, y=y), {"lr": linear()})
    assert real > 0.9
    # 320 trials: the standard error is about .028.
    assert abs(chance.table()["balanced_accuracy"].iloc[0] - 0.5) < 0.085


def test_modes_say_what_they_saw(make_trials):
    result = benchmark(make_trials(3, (8,)), {"r": Recorder()}, adapt=ALL_MODES)
    rows = result.scores.drop_duplicates("adapt").set_index("adapt")
    assert rows.index[rows["transductive"]].tolist() == ["full"]
    assert result.table().loc[("r", "full"), "transductive"] == "yes"
    assert result.table().loc[("r", "50%"), "transductive"] == "no"
    assert rows["n_trials"].to_dict() == {
        "none": 8,
        "none-trialwise": 8,
        "online": 8,
        "20%": 7,
        "50%": 4,
        "full": 8,
        "20%-random": 7,
        "labelled-2": 4,
        "labelled-50%": 4,
    }
    assert rows.loc["20%", "part"] == "first"
    assert rows.loc["20%-random", "part"] == "random"
    # One trial was given under 20 %: `adapt` refuses it, `partial_adapt` takes it.
    assert rows["adapted"].to_dict() == dict.fromkeys(ALL_MODES, True) | {
        "none": False,
        "none-trialwise": False,
    }


def test_modes_leave_no_trace_in_one_another(make_trials):
    trials = make_trials(3, (8, 8), separation=0.3)
    together = benchmark(trials, {"r": Recorder()}, adapt=["full", "online", "none"])
    for mode in ("full", "online", "none"):
        alone = benchmark(trials, {"r": Recorder()}, adapt=mode).predictions
        mine = together.predictions.query("adapt == @mode").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, alone, check_exact=True)


def test_predictions_hold_the_scored_trials_of_a_random_part(make_trials):
    trials = make_trials(3, (12,))
    result = benchmark(trials, {"r": Recorder()}, adapt="50%-random", random_state=4)
    mode = parse_mode("50%-random")
    for subject, rows in result.predictions.groupby("subject"):
        index = np.flatnonzero(trials.metadata["subject"] == subject)
        part = split_session(mode, index, Domain("toy", subject, "0"), seed=4)
        assert rows["trial"].tolist() == part.scored.tolist()
        assert rows["y_true"].tolist() == trials.y[part.scored].tolist()
        row = result.scores.query("subject == @subject").iloc[0]
        assert row["accuracy"] == (rows["y_true"] == rows["y_pred"]).mean()
        assert row["transductive_common"] == bool(set(part.adapt) & set(part.common))


def test_estimators_without_adapt_say_so(make_trials, caplog):
    with caplog.at_level(logging.INFO, "eegtensor"):
        result = benchmark(make_trials(), {"lr": linear()}, adapt=["none", "full"])
    assert not result.scores["adapted"].any()
    said = [r for r in caplog.messages if "cannot adapt" in r]
    assert len(said) == 1 and "'lr'" in said[0]
    wide = result.per_person()
    pd.testing.assert_series_equal(
        wide["lr", "none"], wide["lr", "full"], check_names=False
    )


def test_common_set_scores_every_mode_on_the_same_trials(make_trials):
    trials = make_trials(3, (9,), separation=0.4)
    result = benchmark(trials, {"r": Recorder()}, adapt=ALL_MODES)
    for row in result.scores.itertuples():
        mine = result.predictions.query(
            "adapt == @row.adapt and subject == @row.subject and common"
        )
        if row.adapt == "20%-random":
            assert row.n_trials_common == 5
            continue
        first = int(np.flatnonzero(trials.metadata["subject"] == row.subject)[0])
        assert mine["trial"].tolist() == list(range(first + 4, first + 9))
        assert row.accuracy_common == (mine["y_true"] == mine["y_pred"]).mean()
    none = result.scores.query("adapt == 'none'")
    trialwise = result.scores.query("adapt == 'none-trialwise'")
    assert none["ece_common"].tolist() == pytest.approx(
        trialwise["ece_common"].tolist()
    )


def test_common_set_whose_labels_were_used_is_not_scored(make_trials):
    trials = make_trials(3, (8,))
    y = trials.y.copy()
    y[:8] = ["class0"] * 4 + ["class1"] * 4
    result = benchmark(replace(trials, y=y), {"lr": linear()}, adapt="labelled-2")
    spoilt = result.scores["subject"] == "s1"
    assert result.scores.loc[spoilt, "accuracy_common"].isna().all()
    assert result.scores.loc[~spoilt, "accuracy_common"].notna().all()


def test_one_class_parts_are_flagged(make_trials, caplog):
    trials = make_trials(3, (10,))
    y = trials.y.copy()
    y[:10] = ["class0"] * 5 + ["class1"] * 5
    with caplog.at_level(logging.INFO, "eegtensor"):
        result = benchmark(replace(trials, y=y), {"r": Recorder()}, adapt=["50%"])
    flagged = result.scores.set_index("subject")["one_class_part"]
    assert flagged.to_dict() == {"s1": True, "s2": False, "s3": False}
    assert sum("one class only" in message for message in caplog.messages) == 1


def test_a_session_of_one_trial_is_named(make_trials):
    trials = make_trials(3, (6, 1))
    with pytest.warns(EEGTensorWarning, match="toy/s1/1, toy/s2/1, toy/s3/1"):
        result = benchmark(trials, {"r": Recorder()}, adapt="20%")
    alone = result.scores.query("session == '1'")
    assert (alone["n_trials"] == 1).all() and not alone["adapted"].any()


def test_trialwise_modes_predict_one_trial_at_a_time(make_trials):
    trials = make_trials(3, (6,))
    result = benchmark(
        trials, {"r": Recorder()}, adapt=["none", "none-trialwise", "online"]
    )
    p = {mode: rows for mode, rows in result.predictions.groupby("adapt", sort=False)}
    np.testing.assert_allclose(p["none"]["p:class0"], p["none-trialwise"]["p:class0"])
    assert not np.allclose(p["none"]["p:class0"], p["online"]["p:class0"])
    steps = [c for c in Recorder.log if c[0] == "partial_adapt"]
    assert [len(c[2]) for c in steps] == [1] * len(trials)
    np.testing.assert_array_equal(np.concatenate([c[2] for c in steps]), trials.X)
    names = [call[0] for call in Recorder.log]
    after = [Recorder.log[i + 1] for i, n in enumerate(names) if n == "partial_adapt"]
    for step, prediction in zip(steps, after, strict=True):
        assert prediction[0] == "predict"
        np.testing.assert_array_equal(step[2], prediction[2])


def test_continuous_targets(make_trials):
    from sklearn.linear_model import Ridge

    trials = make_trials(4, (15,))
    trials.metadata["age"] = log_variance(trials.X) @ [1.0, 2.0, 0.0]
    model = make_pipeline(FunctionTransformer(log_variance), Ridge(1e-3))
    result = benchmark(trials, {"ridge": model}, target="age", adapt=["none", "50%"])
    assert (result.scores["r2"] > 0.99).all() and result.scores["accuracy"].isna().all()
    row = result.scores.iloc[0]
    mine = result.predictions.query("subject == 's1' and adapt == 'none'")
    assert row["mae"] == pytest.approx(np.abs(mine["y_true"] - mine["y_pred"]).mean())
    assert result.table().loc[("ridge", "none"), "r2"] > 0.99
    with pytest.raises(EEGTensorError, match="continuous"):
        benchmark(trials, {"ridge": model}, target="age", adapt="labelled-2")
    with pytest.raises(EEGTensorError, match="No metadata column 'weight'"):
        benchmark(trials, {"ridge": model}, target="weight")


def test_train_on_one_dataset_and_test_on_another(make_trials):
    source = make_trials(3, dataset="A", ch_names=("C3", "Cz", "C4"))
    target = make_trials(2, dataset="B", ch_names=("C4", "Oz", "C3"), seed=1)
    result = benchmark(source, {"r": Recorder()}, test=target, adapt=["none", "full"])
    assert set(result.scores["dataset"]) == {"B"}
    assert set(result.scores["protocol"]) == {"cross-dataset"}
    assert result.config["ch_names"] == ["C3", "C4"]
    (fit,) = _calls("fit")
    np.testing.assert_array_equal(fit[2], source.X[:, [0, 2]])
    assert set(fit[4]) == {"A/s1", "A/s2", "A/s3"}
    np.testing.assert_array_equal(_calls("adapt")[0][2], target.X[:8][:, [2, 0]])
    with pytest.raises(EEGTensorError, match="both of dataset 'A'"):
        benchmark(source, {"r": Recorder()}, test=source)
    with pytest.raises(EEGTensorError, match="No channel is in both"):
        apart = make_trials(2, dataset="B", ch_names=("O1", "Oz", "O2"))
        benchmark(source, {"r": Recorder()}, test=apart)


def test_epochs_are_trials(make_trials):
    trials = make_trials()
    a = benchmark(trials, {"lr": linear()})
    b = benchmark(trials.to_epochs(), {"lr": linear()})
    pd.testing.assert_series_equal(a.predictions["y_pred"], b.predictions["y_pred"])


def test_processes_change_nothing(make_trials, monkeypatch):
    monkeypatch.setattr(execute, "PARALLEL_FROM_SECONDS", 0.0)
    trials = make_trials(3, (8,), separation=0.4)
    pipelines = {"a": linear(), "b": Recorder()}
    one, two = (
        benchmark(trials, pipelines, adapt=["none", "labelled-2"], n_jobs=n)
        for n in (1, 2)
    )
    pd.testing.assert_frame_equal(one.predictions, two.predictions, check_exact=True)
    pd.testing.assert_frame_equal(
        one.scores.drop(columns=TIMES), two.scores.drop(columns=TIMES), check_exact=True
    )
    # The recorder's log lives in this process: parallel folds must not be in it.
    assert len(_calls("fit")) == 6 + 2


class Broken(LogisticRegression):
    def fit(self, X, y):
        if len(X) == 14:
            raise RuntimeError("the matrix is singular")
        return super().fit(log_variance(X), y)

    def predict(self, X):
        return super().predict(log_variance(X))

    def predict_proba(self, X):
        return super().predict_proba(log_variance(X))


def test_a_failing_fold_is_named(make_trials, monkeypatch):
    trials = make_trials(3, (8,))
    part = trials[np.arange(22)]
    message = r"'bad' failed on fold 0 \(subject toy/s1 held out, adapt='none'\): Runt"
    with pytest.raises(EEGTensorError, match=message) as caught:
        benchmark(part, {"bad": Broken()})
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.warns(EEGTensorWarning, match="2 of 3 folds failed"):
        result = benchmark(part, {"bad": Broken()}, on_error="warn")
    assert result.scores["subject"].tolist() == ["s3"]
    assert len(result.config["failed"]) == 2
    monkeypatch.setattr(execute, "PARALLEL_FROM_SECONDS", 0.0)
    part = make_trials(3, (8,))[np.arange(2, 24)]
    with pytest.raises(EEGTensorError, match=r"'bad' failed on fold [12] "):
        benchmark(part, {"bad": Broken()}, n_jobs=2)


class Uncopyable(Recorder):
    def __deepcopy__(self, memo):
        raise TypeError("holds a handle")


def test_what_cannot_be_copied_is_fitted_again(make_trials):
    trials = make_trials(3, (8,), separation=0.4)
    plain = benchmark(trials, {"r": Recorder()}, adapt=["none", "full"])
    again = benchmark(trials, {"r": Uncopyable()}, adapt=["none", "full"])
    pd.testing.assert_frame_equal(plain.predictions, again.predictions)
