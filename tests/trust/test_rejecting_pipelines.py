"""`make_pipeline(..., reject=...)`: every pipeline that can reject, by name."""

from __future__ import annotations

import numpy as np
import pytest

import eegtensor as et
from eegtensor import EEGTensorError
from eegtensor.trust import RejectingClassifier


@pytest.fixture(scope="module")
def people():
    trials = et.simulate_trials(
        n_subjects=4, n_sessions=1, n_trials=24, n_channels=6, snr=2.0
    )
    new = trials.metadata["subject"].to_numpy() == "04"
    return trials[~new], trials[new]


@pytest.mark.parametrize(
    "name, params",
    [
        ("mdm", {"align": "riemann"}),
        ("tangent-space", {"align": "riemann"}),
        ("csp-lda", {}),
        ("tsmnet", {"epochs": 4, "random_state": 0}),
    ],
)
def test_trials_that_are_none_are_rejected(people, name, params):
    source, target = people
    pipeline = et.make_pipeline(name, reject=0.1, **params)
    assert isinstance(pipeline.steps[-1][1], RejectingClassifier)
    pipeline.fit(source.X, source.y, subjects=source.subjects, sessions=source.sessions)
    X = np.asarray(target.X)
    names = {"subjects": target.subjects, "sessions": target.sessions}
    if getattr(pipeline, "can_adapt", False):
        pipeline.adapt(X, **names)
    loud = X.copy()
    loud[:, :2] *= np.random.default_rng(0).uniform(30, 60, (len(X), 1, 1))
    said, of_loud = pipeline.predict(X, **names), pipeline.predict(loud, **names)
    assert (of_loud == "rejected").mean() > 0.8
    assert (said == "rejected").mean() < 0.5
    kept = said != "rejected"
    plain = et.make_pipeline(name, **params).fit(
        source.X, source.y, subjects=source.subjects, sessions=source.sessions
    )
    if getattr(plain, "can_adapt", False):
        plain.adapt(X, **names)
    # Those that are not rejected are decoded as without.
    assert (said[kept] == plain.predict(X, **names)[kept]).all()


def test_mistakes():
    assert not isinstance(et.make_pipeline("mdm").steps[-1][1], RejectingClassifier)
    with pytest.raises(EEGTensorError, match="continuous targets"):
        et.make_pipeline("tangent-space", task="regression", reject=0.05)
    with pytest.raises(EEGTensorError, match="takes signals"):
        et.make_pipeline("auto", align="riemann", reject=0.05)
