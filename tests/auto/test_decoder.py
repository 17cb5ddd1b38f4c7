"""Decoders weighed on source people, refined on each new person."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from eegtensor import EEGTensorError, make_pipeline, simulate_trials
from eegtensor.auto import CANDIDATES, QUICK


@pytest.fixture(scope="module")
def people():
    trials = simulate_trials(
        n_subjects=4, n_sessions=2, n_trials=20, n_channels=6, random_state=2
    )
    target = trials.metadata["subject"].to_numpy() == "04"
    return trials[~target], trials[target]


@pytest.mark.parametrize("align", [None, "riemann"])
def test_it_is_the_candidate_that_wins_on_source_people(people, align) -> None:
    source, target = people
    quick = ("mdm", "tangent-space", "tangent-space-lda", "tangent-space-svm")
    options = {"align": align, "candidates": quick, "combine": "best"}
    pipe = make_pipeline("auto", **options).fit(source)
    auto = pipe.steps[-1][1]
    scores = {}
    for name in auto.candidates:
        by_person = []
        for person in ("01", "02", "03"):
            held = source.metadata["subject"].to_numpy() == person
            one = make_pipeline(name, align=align).fit(source[~held])
            if align:
                one.adapt(source[held])
            hit = one.predict(source[held]) == source[held].y
            recalls = [hit[source[held].y == c].mean() for c in source.classes]
            by_person.append(np.mean(recalls))
        scores[name] = np.mean(by_person)
    assert auto.scores_ == pytest.approx(scores, abs=1e-9)
    assert scores[auto.choice_] == max(scores.values())
    alone = make_pipeline(auto.choice_, align=align).fit(source).adapt(target)
    pipe.adapt(target)
    np.testing.assert_array_equal(pipe.predict(target), alone.predict(target))


def test_one_person_and_one_session_still_choose(people) -> None:
    source, target = people
    one = source[source.metadata["subject"].to_numpy() == "01"]
    auto = make_pipeline("auto", align="riemann", candidates=QUICK).fit(one)[-1]
    assert auto.weights_ and auto.choice_
    sitting = one[one.sessions == "0"]
    pipe = make_pipeline("auto", align="riemann", candidates=QUICK)
    pipe.fit(sitting.X, sitting.y)
    # Of one sitting nobody can say what a new person's experts are worth.
    assert len(pipe[-1].rounds_) == 0
    assert len(pipe.adapt(target.X).predict(target.X)) == len(target.y)


def test_bad_input(people) -> None:
    source, _ = people
    with pytest.raises(EEGTensorError, match="'lstm'"):
        make_pipeline("auto", candidates=("mdm", "lstm")).fit(source)
    with pytest.raises(EEGTensorError, match="'mean'"):
        make_pipeline("auto", candidates=("mdm",), combine="mean").fit(source)
    wide = np.random.default_rng(0).standard_normal((20, 40, 64))
    with pytest.raises(EEGTensorError, match="40 channels are too many"):
        make_pipeline("auto", candidates=("augmented-lda",)).fit(wide, [0, 1] * 10)


def test_many_channels_go_without_delayed_copies() -> None:
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((24, 40, 80))
    both = ("tangent-space-lda", "augmented-lda")
    auto = make_pipeline("auto", candidates=both).fit(wide, [0, 1] * 12)[-1]
    assert set(auto.scores_) == {"tangent-space-lda"}


def test_people_who_are_the_classes_still_give_folds(people) -> None:
    """Patients and controls: no group of people can be left out."""
    source, _ = people
    kept = np.isin(source.metadata["subject"], ["01", "02"])
    two = source[kept]
    pipe = make_pipeline("auto", candidates=QUICK)
    auto = pipe.fit(two.X, two.subjects, subjects=two.subjects)[-1]
    assert all(np.isfinite(score) for score in auto.scores_.values())


def by_hand(name, weight, temperature, source, target):
    """A member by its name, at its temperature, times its weight."""
    one = make_pipeline(name, align="riemann").fit(source).adapt(target)
    if hasattr(one, "decision_function"):
        d = one.decision_function(target)
        z = np.stack([-d, d], axis=1) / 2
    else:
        z = np.log(one.predict_proba(target))
    return weight * log_softmax(temperature * z, axis=1)


@pytest.mark.parametrize("refine", [False, True])
def test_it_is_the_weighed_sum_of_its_members(people, refine) -> None:
    source, target = people
    named = ("mdm", "tangent-space", "tangent-space-lda", "tangent-space-svm")
    pipe = make_pipeline("auto", align="riemann", candidates=named, refine=refine)
    auto = pipe.fit(source)[-1]
    assert set(auto.scores_) == set(named) >= set(auto.weights_)
    assert all(weight > 0 for weight in auto.weights_.values())
    auto.rounds_ = auto.rounds_[:0]
    p = pipe.adapt(target).predict_proba(target)
    total = sum(
        by_hand(name, weight, auto.temperatures_[name], source, target)
        for name, weight in auto.weights_.items()
    )
    np.testing.assert_allclose(p, softmax(total, axis=1), atol=1e-6)
    assert (pipe.predict(target) == auto.classes_[p.argmax(axis=1)]).all()


def test_networks_take_part() -> None:
    trials = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=12, n_channels=4, random_state=1
    )
    with pytest.MonkeyPatch.context() as patch:
        quick = CANDIDATES["tsmnet"]._replace(
            build=lambda align, **options: make_pipeline("tsmnet", epochs=1, **options)
        )
        patch.setitem(CANDIDATES, "tsmnet", quick)
        pipe = make_pipeline("auto", align="riemann", candidates=("mdm", "tsmnet"))
        auto = pipe.fit(trials).adapt(trials)[-1]
    assert set(auto.scores_) == {"mdm", "tsmnet"}
    assert np.isfinite(pipe.predict_proba(trials)).all()


def test_units_do_not_matter(people) -> None:
    source, target = people
    one = make_pipeline("auto", align="riemann", candidates=QUICK)
    one.fit(source).adapt(target)
    two = make_pipeline("auto", align="riemann", candidates=QUICK)
    two.fit(
        1e6 * source.X, source.y, subjects=source.subjects, sessions=source.sessions
    )
    where = {"subjects": target.subjects, "sessions": target.sessions}
    two.adapt(1e6 * target.X, **where)
    p = one.predict_proba(target)
    q = two.predict_proba(1e6 * target.X, **where)
    np.testing.assert_allclose(p, q, atol=1e-5)


def test_what_experts_learned_reaches_predictions(people, monkeypatch) -> None:
    source, target = people
    calls = iter([True, True])
    monkeypatch.setattr(
        "eegtensor.auto.stacking.HeldOut.clearly_better",
        lambda *_: next(calls, False),
    )
    # So that an expert counts for something, whatever it is worth here.
    monkeypatch.setattr(
        "eegtensor.auto.stacking.HeldOut.weigh",
        lambda _, columns, start, rows=None: np.full(len(columns), 0.5),
    )
    pipe = make_pipeline("auto", align="riemann", candidates=QUICK).fit(source)
    where = {"subjects": target.subjects, "sessions": target.sessions}
    before = pipe.predict_proba(target.X, **where)
    pipe.adapt(target.X, **where)
    auto = pipe[-1]
    rounds, auto.rounds_ = auto.rounds_, auto.rounds_[:0]
    plain = pipe.predict_proba(target.X, **where)
    auto.rounds_ = rounds
    refined = pipe.predict_proba(target.X, **where)
    assert rounds.shape == (2, 4)
    assert np.abs(refined - plain).max() > 0.01 < np.abs(plain - before).max()
    # A trial alone is the same trial, and trials of others are not touched.
    one = {"subjects": target.subjects[:1], "sessions": target.sessions[:1]}
    np.testing.assert_allclose(
        pipe.predict_proba(target.X[:1], **one), refined[:1], atol=1e-6
    )
    # Without names: the person and the session adapted last.
    last = np.asarray(target.sessions) == np.asarray(target.sessions)[-1]
    np.testing.assert_allclose(
        pipe.predict_proba(target.X[last]), refined[last], atol=1e-6
    )
    alone = make_pipeline("auto", align="riemann", candidates=QUICK, refine=False)
    others = {"subjects": source.subjects, "sessions": source.sessions}
    np.testing.assert_allclose(
        pipe.predict_proba(source.X, **others),
        alone.fit(source).predict_proba(source.X, **others),
        atol=1e-6,
    )
