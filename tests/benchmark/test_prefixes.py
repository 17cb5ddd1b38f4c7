"""Trial-wise prefixes run once, and change no score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import Pipeline

import eegtensor as et
from eegtensor import EEGTensorError
from eegtensor.benchmark import prefixes


class Variances(TransformerMixin, BaseEstimator):
    trials = 0

    def __init__(self, scale=1.0, short=False):
        self.scale = scale
        self.short = short

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        Variances.trials += len(X)
        return np.log(X[: len(X) - self.short].var(axis=2)) * self.scale


class Splitting(Pipeline):
    def split_trialwise(self):
        return self.steps[0][1], Pipeline(self.steps[1:])


def _pipeline(cls=Splitting, **options):
    lda = LinearDiscriminantAnalysis()
    return cls([("variances", Variances(**options)), ("lda", lda)])


@pytest.fixture(autouse=True)
def _reset():
    Variances.trials = 0


def test_each_distinct_prefix_runs_once(make_trials, monkeypatch):
    trials = make_trials(4, (8, 8))
    monkeypatch.setattr(prefixes, "PIECE_BYTES", 3 * trials.X[0].nbytes)
    pipelines = {"a": _pipeline(), "b": _pipeline(), "c": _pipeline(scale=2.0)}
    modes = ["none", "labelled-2", "none-trialwise"]
    result = et.benchmark(trials, pipelines, adapt=modes)
    assert Variances.trials == 2 * len(trials)
    plain = et.benchmark(trials, {"a": _pipeline(Pipeline)}, adapt=modes)
    mine = result.predictions.query("pipeline == 'a'").reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, plain.predictions, check_exact=True)
    assert (result.scores["seconds_fit"] > 0).all()


def test_a_cached_run_computes_no_features(make_trials, tmp_path):
    trials = make_trials()
    et.benchmark(trials, {"a": _pipeline()}, cache=tmp_path)
    first = Variances.trials
    et.benchmark(trials, {"a": _pipeline()}, cache=tmp_path)
    assert Variances.trials == first == len(trials)


def test_seconds_share_the_prefix(make_trials):
    trials = make_trials(3, (10,))
    ready = prefixes.Prefixes(trials.X, 0).prepare(_pipeline())
    assert ready.X.shape == (30, 3) and ready.seconds > 0
    assert isinstance(ready.estimator, Pipeline)
    bare = prefixes.Prefixes(trials.X, 0).prepare(_pipeline(Pipeline))
    assert bare.X is trials.X and bare.seconds == 0


def test_a_prefix_that_loses_trials_is_refused(make_trials):
    with pytest.raises(EEGTensorError, match="returned 23 rows for 24 trials"):
        et.benchmark(make_trials(3, (8,)), {"a": _pipeline(short=True)})


@pytest.mark.parametrize("name", ["mdm", "tangent-space"])
def test_named_pipelines_equal_their_unsplit_selves(make_trials, name):
    trials = make_trials(3, (8, 8), separation=0.3)
    modes = ["none", "full"]
    named = et.benchmark(trials, [name], adapt=modes)
    for mode, align in (("none", None), ("full", "riemann")):
        model = et.make_pipeline(name, align=align)
        for subject in ("s1", "s2", "s3"):
            test = (trials.metadata["subject"] == subject).to_numpy()
            domains = {"subjects": trials.subjects, "sessions": trials.sessions}
            model.fit(
                trials.X[~test],
                trials.y[~test],
                **{k: v[~test] for k, v in domains.items()},
            )
            target = {k: v[test] for k, v in domains.items()}
            if mode == "full":
                model.adapt(trials.X[test], **target)
            expected = model.predict_proba(trials.X[test], **target)
            rows = named.predictions.query("adapt == @mode and subject == @subject")
            np.testing.assert_allclose(
                rows[["p:class0", "p:class1"]], expected, atol=1e-7
            )
