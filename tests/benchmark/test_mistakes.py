"""What a benchmark refuses: arguments, trials and answers that cannot be scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from eegtensor import EEGTensorError, EEGTensorWarning, Trials
from eegtensor.benchmark import benchmark


def log_variance(X):
    return np.log(np.var(X, axis=2))


def linear():
    return make_pipeline(FunctionTransformer(log_variance), LogisticRegression())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipelines": {}}, "no pipelines"),
        ({"pipelines": {"x": object()}}, "has no fit, predict"),
        ({"pipelines": {"x": LogisticRegression}}, "is a class"),
        ({"adapt": []}, "adapt is empty"),
        ({"protocol": "within-session", "adapt": "full"}, "none is new to adapt to"),
        ({"on_error": "ignore"}, "on_error"),
        ({"random_state": "seed"}, "random_state is a str"),
        ({"random_state": -1}, "random_state=-1"),
        ({"protocol": "within-session", "random_state": 2**32}, "give a seed from 0"),
        ({"protocol": "within-session", "n_folds": 1}, "n_folds=1"),
        ({"protocol": None}, "protocol='None' is not known"),
        ({"n_jobs": None}, "n_jobs=None"),
        ({"adapt": None}, "adapt=None is not known"),
        ({"adapt": 0.2}, "adapt=0.2 is not known"),
        ({"pipelines": LogisticRegression()}, "pipelines is a LogisticRegression"),
        ({"pipelines": linear()}, "pipelines is a Pipeline"),
        ({"target": "subject"}, "'subject' holds no numbers"),
    ],
)
def test_mistakes_are_explained(make_trials, change, message):
    options = {"pipelines": {"lr": linear()}} | change
    with pytest.raises(EEGTensorError, match=message):
        benchmark(make_trials(), **options)


def test_unlabelled_trials_are_refused(make_trials):
    trials = make_trials()
    bare = Trials(trials.X, None, trials.metadata, trials.info)
    with pytest.raises(EEGTensorError, match="no labels to score against"):
        benchmark(bare, {"lr": linear()})
    with pytest.raises(EEGTensorError, match="All trials are of class 'class0'"):
        benchmark(trials[trials.y == "class0"], {"lr": linear()})


class Answers(ClassifierMixin, BaseEstimator):
    """Logistic regression that answers in an unusual form."""

    def __init__(self, form="plain"):
        self.form = form

    def fit(self, X, y):
        self.model_ = LogisticRegression().fit(log_variance(X), y)
        self.classes_ = self.model_.classes_
        if self.form == "codes":
            self.classes_ = np.arange(2)
        if self.form == "reversed":
            self.classes_ = self.classes_[::-1]
        return self

    def predict(self, X):
        y = self.model_.predict(log_variance(X))
        return y[:, np.newaxis] if self.form == "column" else y

    def decision_function(self, X):
        sign = -1 if self.form == "reversed" else 1
        return sign * self.model_.decision_function(log_variance(X))


@pytest.mark.parametrize("form", ["column", "reversed"])
def test_unusual_answers_are_scored_as_the_plain_one(make_trials, form):
    result = benchmark(
        make_trials(separation=0.4), {f: Answers(f) for f in ("plain", form)}
    )
    scores = result.scores.set_index("pipeline")[["accuracy", "roc_auc"]]
    assert scores.loc["plain", "roc_auc"].mean() > 0.6
    np.testing.assert_array_equal(scores.loc[form], scores.loc["plain"])


def test_classes_that_are_no_labels_are_refused(make_trials):
    with pytest.raises(EEGTensorError, match="classes_ holds 0, 1 where"):
        benchmark(make_trials(), {"a": Answers("codes")})


class Speechless(BaseEstimator):
    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.where(np.arange(len(X)) == 1, np.nan, 0.0)


def test_predictions_that_are_not_finite_are_refused(make_trials):
    trials = make_trials()
    trials.metadata["age"] = np.arange(len(trials)) * 1.0
    with pytest.raises(EEGTensorError, match="NaN or infinity for 1 trials"):
        benchmark(trials, {"s": Speechless()}, target="age")


def test_classes_and_continuous_targets_are_not_joined(make_trials):
    target = make_trials(2, dataset="B")
    target = replace(target, y=np.arange(len(target)) * 1.0)
    with pytest.raises(EEGTensorError, match="the other continuous targets"):
        benchmark(make_trials(dataset="A"), {"lr": linear()}, test=target)


def test_a_bad_trial_costs_only_the_folds_that_hold_it(make_trials):
    trials = make_trials(3, (8, 8))
    trials.X[3] = np.nan
    options = {"protocol": "leave-one-session-out"}
    with pytest.raises(EEGTensorError, match="1 of 48 trials"):
        benchmark(trials, ["mdm"], **options)
    with pytest.warns(EEGTensorWarning, match="'mdm' failed on fold 0"):
        result = benchmark(trials, ["mdm"], on_error="warn", **options)
    assert set(result.scores["subject"]) == {"s2", "s3"}
