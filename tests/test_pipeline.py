"""The pipeline: domains to every step, adaptation, trials as input, names."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneGroupOut,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline as sklearn_make_pipeline
from sklearn.preprocessing import StandardScaler

from eegtensor import EEGTensorError, simulate_trials
from eegtensor.auto import QUICK
from eegtensor.features import Covariances, TangentSpace
from eegtensor.pipeline import Pipeline
from eegtensor.pipelines import PIPELINES, make_pipeline, parse_pipeline
from eegtensor.transfer import Recenter, Rotate

TENSORS = ("tucker-lr", "hoda-lda", "tangent-tensor")


@pytest.fixture(scope="module")
def trials():
    return simulate_trials(
        n_subjects=3, n_sessions=2, n_trials=24, n_channels=6, random_state=1
    )


def split(trials):
    target = trials.metadata["subject"].to_numpy() == "03"
    return trials[~target], trials[target]


def arrays(trials):
    return (
        trials.X,
        trials.y,
        {"subjects": trials.subjects, "sessions": trials.sessions},
    )


def names() -> list[str]:
    return [
        n for n, spec in PIPELINES.items() if spec.paradigm in ("any", "oscillatory")
    ]


def quick(name: str) -> dict[str, Any]:
    """Networks take their time, which these tests are not about.

    Power needs the rate of the simulated trials.
    """
    known = {"epochs": 2, "candidates": QUICK}
    if name in TENSORS:
        known["sfreq"] = 128
    return {k: v for k, v in known.items() if k in PIPELINES[name].parameters}


@pytest.mark.parametrize(
    ("name", "align"),
    [
        (name, align)
        for name in names()
        for align in (None, "riemann")
        if align in PIPELINES[name].alignments
    ],
)
def test_every_pipeline_learns_adapts_and_travels(trials, name, align) -> None:
    source, target = split(trials)
    pipe = make_pipeline(name, align=align, **quick(name))
    X, y, domains = arrays(source)
    pipe.fit(X, y, **domains)
    Xt, _, domains_t = arrays(target)
    before = pipe.predict(Xt, **domains_t)
    pipe.adapt(Xt, **domains_t)
    after = pipe.predict(Xt, **domains_t)
    assert set(after) <= set(y)
    if pipe.can_adapt:
        assert align or PIPELINES[name].adapts is None
    else:
        np.testing.assert_array_equal(before, after)
    for twin in (pickle.loads(pickle.dumps(pipe)), copy.deepcopy(pipe)):
        np.testing.assert_array_equal(twin.predict(Xt, **domains_t), after)
    assert clone(pipe).get_params().keys() == pipe.get_params().keys()
    # Poisoned target labels cannot matter: adapt takes none.
    assert "y" not in pipe.adapt.__code__.co_varnames[:3]


@pytest.mark.parametrize("name", names())
def test_parameters_are_plain_values(name) -> None:
    align = "riemann" if "riemann" in PIPELINES[name].alignments else None
    pipe = make_pipeline(name, align=align, **quick(name))
    for key, value in pipe.get_params().items():
        if key.split("__")[-1] in ("steps", "memory") or hasattr(value, "get_params"):
            continue
        assert isinstance(value, (str, int, float, bool, tuple, type(None))), key


def test_trials_bring_their_labels_and_domains(trials) -> None:
    source, target = split(trials)
    X, y, domains = arrays(source)
    Xt, _, domains_t = arrays(target)
    by_hand = make_pipeline("tangent-space", align="riemann").fit(X, y, **domains)
    by_hand.adapt(Xt, **domains_t)
    short = make_pipeline("tangent-space", align="riemann").fit(source).adapt(target)
    expected = by_hand.predict_proba(Xt, **domains_t)
    np.testing.assert_array_equal(short.predict_proba(target), expected)
    epochs = make_pipeline("tangent-space", align="riemann").fit(source.to_epochs())
    epochs.adapt(target.to_epochs())
    np.testing.assert_allclose(
        epochs.predict_proba(target.to_epochs()), expected, atol=1e-6
    )
    assert short.score(target) == np.mean(short.predict(target) == target.y)


def test_domains_reach_fit_and_predict_and_help(trials) -> None:
    source, target = split(trials)
    aligned = make_pipeline("mdm", align="riemann").fit(source).adapt(target)
    plain = make_pipeline("mdm").fit(source)
    assert aligned.score(target) > plain.score(target)
    merged = make_pipeline("mdm", align="riemann").fit(source)
    merged.adapt(target.X)
    per_session = aligned.predict_proba(target)
    assert not np.allclose(merged.predict_proba(target.X), per_session)


def test_a_plain_scikit_learn_pipeline_gives_the_same(trials) -> None:
    source, target = split(trials)
    X, y, domains = arrays(source)
    plain = sklearn_make_pipeline(
        Covariances(), TangentSpace(), StandardScaler(), LogisticRegression(C=0.1)
    ).fit(X, y)
    ours = make_pipeline("tangent-space").fit(X, y, **domains)
    np.testing.assert_allclose(
        ours.predict_proba(target), plain.predict_proba(target.X), atol=1e-5
    )


def test_scikit_learn_routes_the_domains_unasked(trials) -> None:
    import sklearn

    source, _ = split(trials)
    X, y, domains = arrays(source)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = sklearn_make_pipeline(
            Covariances(), Recenter(), TangentSpace(reference="identity")
        ).fit(X, y, **domains)
        Z = routed.transform(X, **domains)
    ours = Pipeline(
        [
            ("c", Covariances()),
            ("r", Recenter()),
            ("t", TangentSpace(reference="identity")),
        ]
    ).fit(X, y, **domains)
    np.testing.assert_allclose(Z, ours.transform(X, **domains), atol=1e-9)


def test_moabb_target_trials_in_fit(trials) -> None:
    source, target = split(trials)
    X, y, domains = arrays(source)
    session = target[target.sessions == target.sessions[0]]
    unlabelled = make_pipeline("mdm", align="riemann").fit(
        X, y, **domains, X_target_unlabeled=session.X
    )
    by_hand = make_pipeline("mdm", align="riemann").fit(X, y, **domains)
    by_hand.adapt(session.X)
    np.testing.assert_array_equal(
        unlabelled.predict_proba(session.X), by_hand.predict_proba(session.X)
    )
    labelled = make_pipeline("mdm", align="riemann").fit(
        X, y, **domains, X_target_labeled=session.X, y_target_labeled=session.y
    )
    assert labelled.score(session.X, session.y) >= by_hand.score(session.X, session.y)
    with pytest.raises(EEGTensorError, match="without y_target_labeled"):
        make_pipeline("mdm").fit(X, y, X_target_labeled=session.X)
    request = make_pipeline("mdm").get_metadata_routing()
    given = {"subjects", "sessions", "X_target_unlabeled"}
    assert set(request.consumes("fit", given)) == given


def test_sample_weights_reach_the_steps(trials) -> None:
    source, target = split(trials)
    w = np.where(source.metadata["subject"] == "01", 1.0, 1e-9)
    alone = source[source.metadata["subject"].to_numpy() == "01"]
    for name in ("mdm", "tangent-space"):
        weighted = make_pipeline(name).fit(
            source.X, source.y, subjects=source.subjects, sample_weight=w
        )
        single = make_pipeline(name).fit(alone.X, alone.y)
        np.testing.assert_allclose(
            weighted.predict_proba(target.X),
            single.predict_proba(target.X),
            atol=2e-3,
        )


def test_split_trialwise(trials) -> None:
    source, target = split(trials)
    pipe = make_pipeline("tangent-space", align="riemann")
    prefix, rest = pipe.split_trialwise()
    assert [n for n, _ in prefix.steps] == ["covariances"]
    whole = make_pipeline("tangent-space", align="riemann").fit(source).predict(target)
    X, y, domains = arrays(source)
    rest.fit(prefix.fit_transform(X), y, **domains)
    np.testing.assert_array_equal(
        rest.predict(
            prefix.transform(target.X),
            subjects=target.subjects,
            sessions=target.sessions,
        ),
        whole,
    )
    euclidean = make_pipeline("mdm", align="euclidean")
    assert euclidean.split_trialwise()[0] is None


def test_regression_through_the_same_pipelines(trials) -> None:
    source, target = split(trials)
    power = np.log(np.var(source.X[:, 0], axis=1))
    for name in ("tangent-space", "tangent-space-svm"):
        pipe = make_pipeline(name, task="regression").fit(
            source.X, power, subjects=source.subjects
        )
        truth = np.log(np.var(target.X[:, 0], axis=1))
        assert np.corrcoef(pipe.predict(target.X), truth)[0, 1] > 0.7
    with pytest.raises(EEGTensorError, match="continuous targets"):
        make_pipeline("mdm").fit(source.X, power)
    with pytest.raises(EEGTensorError, match="task='regression' is not known"):
        make_pipeline("tangent-space-lda", task="regression")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_pipeline("tangent-spcae"), "did you mean 'tangent-space'"),
        (lambda: make_pipeline("mdm", align="magic"), "align='magic'"),
        (lambda: make_pipeline("mdm", C=1), "has no parameter 'C'"),
        (lambda: make_pipeline("mdm").fit(3), "Got a int where trials"),
        (
            lambda: make_pipeline("mdm").fit(np.zeros((2, 3, 4)), ["a"]),
            "y has 1 entries for 2",
        ),
        (
            lambda: make_pipeline("mdm").fit(
                np.random.default_rng(0).random((2, 3, 9)), ["a", "a"]
            ),
            "one class only",
        ),
    ],
)
def test_errors_say_what_to_do(call, message) -> None:
    with pytest.raises(EEGTensorError, match=message):
        call()


def test_a_cache_that_would_not_be_used_is_refused(trials, tmp_path) -> None:
    pipe = make_pipeline("mdm").set_params(memory=str(tmp_path))
    with pytest.raises(EEGTensorError, match="would not be used"):
        pipe.fit(trials)


def test_methods_that_the_last_step_lacks_are_absent() -> None:
    assert not hasattr(make_pipeline("tangent-space-svm"), "predict_proba")
    assert hasattr(make_pipeline("tangent-space-svm"), "decision_function")
    assert hasattr(make_pipeline("mdm"), "predict_proba")


def test_trials_go_through_scikit_learn_s_cross_validation(trials) -> None:
    """Trials as X carry their domains into every fold, also for named scorers."""
    groups = trials.subjects
    pipe = make_pipeline("tangent-space", align="riemann", unseen="adapt")
    by_name = cross_val_score(
        pipe, trials, trials.y, groups=groups, cv=LeaveOneGroupOut(),
        scoring="balanced_accuracy",
    )  # fmt: skip
    by_hand = []
    for person in np.unique(groups):
        held = groups == person
        fitted = clone(pipe).fit(trials[~held])
        hit = fitted.predict(trials[held]) == trials[held].y
        by_hand.append(
            np.mean([hit[trials[held].y == c].mean() for c in trials.classes])
        )
    np.testing.assert_allclose(by_name, by_hand)
    search = GridSearchCV(pipe, {"decoder__C": [0.01, 1.0]}, cv=GroupKFold(3))
    search.fit(trials, trials.y, groups=groups)
    assert search.predict(trials[:4]).shape == (4,)


def test_labelled_target_trials_keep_their_labels(trials) -> None:
    """Adapting to them put pseudo-labels in place, and refused a single trial."""
    source, target = split(trials)
    X, y, domains = arrays(source)
    kept = np.flatnonzero(target.sessions == target.sessions[0])[[0, 1, -1]]
    few = target[kept]
    C = Pipeline([("c", Covariances())])
    pipe = Pipeline([("c", Covariances()), ("r", Recenter()), ("b", Rotate())])
    pipe.fit(X, y, **domains, X_target_labeled=few.X, y_target_labeled=few.y)
    Z = C.fit_transform(X)
    Z = np.concatenate([Z, C.transform(few.X)])
    joined = {
        "subjects": np.append(domains["subjects"], ["target"] * 3),
        "sessions": np.append(domains["sessions"], [""] * 3),
    }
    Z = Recenter().fit_transform(Z, **joined)
    by_hand = Rotate().fit(Z, np.append(y, few.y), **joined)
    np.testing.assert_allclose(pipe.transform(few.X), by_hand.transform(Z[-3:]))
    make_pipeline("mdm", align="riemann").fit(
        X, y, **domains, X_target_labeled=few.X[:1], y_target_labeled=few.y[:1]
    )


@pytest.mark.parametrize("name", ["mdm", "tangent-space", "auto", "csp-lda"])
def test_labels_that_no_classifier_can_use(trials, name) -> None:
    X = trials.X[:20]
    for y, message in (
        (None, "needs class labels"),
        (np.arange(20) / 7, "continuous targets"),
        (["a"] * 20, "one class only"),
    ):
        with pytest.raises(EEGTensorError, match=message):
            make_pipeline(name).fit(X, y)
    with pytest.raises(EEGTensorError, match="subjects is 3"):
        make_pipeline(name).fit(X, np.resize(["a", "b"], 20), subjects=3)


def test_integer_targets_are_targets(trials) -> None:
    X, y = trials.X[:30], np.arange(30)
    pipe = make_pipeline("tangent-space", task="regression").fit(X, y)
    np.testing.assert_allclose(
        pipe.predict(X),
        make_pipeline("tangent-space", task="regression")
        .fit(X, y.astype(float))
        .predict(X),
    )
    with pytest.raises(EEGTensorError, match="class_weight means nothing to task"):
        make_pipeline("tangent-space", task="regression", class_weight="balanced")


def test_labels_that_look_like_numbers_stay_labels(trials) -> None:
    X, y = trials.X[:40], np.resize(["1", "10"], 40)
    for name in PIPELINES:
        if PIPELINES[name].paradigm == "ssvep":
            continue
        said = make_pipeline(name, **quick(name)).fit(X, y).predict(X)
        assert set(said) <= {"1", "10"}


def test_power_needs_the_rate() -> None:
    for name in TENSORS:
        with pytest.raises(EEGTensorError, match=rf"write {name}\(sfreq=128\)"):
            make_pipeline(name)
        pipe = make_pipeline(name, sfreq=200.0, n_freqs=5, n_cycles=6.0)
        holder = pipe["features"].tensor if name == "tangent-tensor" else pipe
        front = holder["power"]
        assert (front.sfreq, front.n_freqs, front.n_cycles) == (200.0, 5, 6.0)


def test_every_alignment_of_the_table_can_be_fitted(trials, tmp_path) -> None:
    """On a read-only memory map, as trials of a store are."""
    np.save(tmp_path / "X.npy", trials.X[:48])
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    domains = {"subjects": trials.subjects[:48], "sessions": trials.sessions[:48]}
    labels = np.resize(["8 Hz", "12 Hz"], 48)
    for name, spec in PIPELINES.items():
        tones = {"frequencies": (8.0, 12.0), "sfreq": trials.sfreq}
        params = tones if "frequencies" in spec.parameters else quick(name)
        for align in spec.alignments:
            pipe = make_pipeline(name, align=align, **params)
            pipe.fit(X, labels, **domains).adapt(X[:20])
            assert pipe.predict(X).shape == (48,)


def test_pipeline_texts_that_are_not_one_call() -> None:
    for text in ("mdm(n_bands=1)(bands='x')", "mdm(3)", "mdm(a={[]: 1})"):
        with pytest.raises(EEGTensorError, match="names no pipeline"):
            parse_pipeline(text)


def test_a_transformer_at_the_end_has_no_score() -> None:
    assert not hasattr(Pipeline([("c", Covariances())]), "score")
