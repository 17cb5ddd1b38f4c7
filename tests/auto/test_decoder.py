"""Decoders weighed on source people, refined on each new person."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from eegtensor import EEGTensorError, make_pipeline, simulate_trials
from eegtensor.auto import CANDIDATES, QUICK, AutoDecoder


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
    with pytest.raises(EEGTensorError, match="align='euclidean'"):
        AutoDecoder(("mdm",), align="euclidean").fit(source.X, source.y)
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


class Recorded:
    """In a network's place: says what was done to it."""

    def __init__(self, done):
        self.done = done

    def fit(self, X, y, **domains):
        self.classes_ = np.unique(y)
        self.done.append(("fit", tuple(np.unique(domains["subjects"]))))
        return self

    def adapt(self, X, subjects=None, sessions=None):
        self.done.append(("adapt", tuple(np.unique(subjects))))

    def partial_adapt(self, X, subjects=None, sessions=None):
        self.done.append(("partial_adapt", tuple(np.unique(subjects))))

    def predict_proba(self, X, subjects=None, sessions=None):
        p = 0.5 + 0.1 * np.sign(X[:, 0, 0])
        return np.stack([p, 1 - p], axis=1)


def test_networks_adapt_to_those_held_out_and_to_targets(people, monkeypatch) -> None:
    source, target = people
    done, asked = [], []

    def build(align, **options):
        asked.append(options)
        return Recorded(done)

    stand_in = CANDIDATES["tsmnet"]._replace(build=build)
    monkeypatch.setitem(CANDIDATES, "tsmnet", stand_in)
    options = {"candidates": ("tsmnet",), "n_folds": 3, "random_state": 7}
    pipe = make_pipeline("auto", align="riemann", **options)
    pipe.fit(source)
    assert asked == 4 * [{"unseen": "pooled", "random_state": 7}]
    known = set(np.asarray(source.subjects))
    for first, (held_out,) in zip(done[:6:2], [d[1] for d in done[1:6:2]], strict=True):
        assert first == ("fit", tuple(sorted(known - {held_out})))
    assert [what for what, _ in done] == ["fit", "adapt"] * 3 + ["fit"]
    where = {"subjects": target.subjects, "sessions": target.sessions}
    pipe.adapt(target.X, **where).partial_adapt(target.X, **where)
    new = tuple(set(np.asarray(target.subjects)))
    assert done[7:] == [("adapt", new), ("partial_adapt", new)]
    # Without an alignment nobody is adapted to.
    done.clear()
    make_pipeline("auto", candidates=("tsmnet",)).fit(source).adapt(target)
    assert {what for what, _ in done} == {"fit"}


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
    # Trial by trial decoders adapt, and experts learn nothing.
    streamed = copy.deepcopy(pipe).partial_adapt(target.X, **where)
    p = streamed.predict_proba(target.X, **where)
    streamed[-1].rounds_ = streamed[-1].rounds_[:0]
    np.testing.assert_array_equal(p, streamed.predict_proba(target.X, **where))
    pipe.adapt(target.X, **where)
    auto = pipe[-1]
    rounds, auto.rounds_ = auto.rounds_, auto.rounds_[:0]
    plain = pipe.predict_proba(target.X, **where)
    auto.rounds_ = rounds
    refined = pipe.predict_proba(target.X, **where)
    assert rounds.shape == (2, 4)
    # Means that follow the trials are not those of the batch.
    assert np.abs(p - plain).max() > 1e-3
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


def test_decoders_of_next_to_no_weight_are_not_trained(people, monkeypatch) -> None:
    monkeypatch.setattr(
        "eegtensor.auto.stacking.HeldOut.weigh",
        lambda _, columns, start: np.asarray([1.0, 0.01])[: len(columns)],
    )
    pipe = make_pipeline("auto", candidates=("mdm", "tangent-space"))
    auto = pipe.fit(people[0])[-1]
    assert auto.weights_ == {"mdm": 1.0} and set(auto.decoders_) == {"mdm"}
