"""The automatic choice: by source people only, the best on them, fitted on all."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError, make_pipeline, simulate_trials
from eegtensor._weighing import Weighing


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
    source, _ = people
    one = source[source.metadata["subject"].to_numpy() == "01"]
    assert make_pipeline("auto").fit(one).steps[-1][1].choice_
    sitting = one[one.sessions == "0"]
    assert make_pipeline("auto").fit(sitting.X, sitting.y).steps[-1][1].choice_


def test_unknown_candidates(people) -> None:
    source, _ = people
    with pytest.raises(EEGTensorError, match="'lstm'"):
        make_pipeline("auto", candidates=("mdm", "lstm")).fit(source)


def test_people_who_are_the_classes_still_give_folds(people) -> None:
    """Patients and controls: no group of people can be left out."""
    source, _ = people
    kept = np.isin(source.metadata["subject"], ["01", "02"])
    two = source[kept]
    decoder = make_pipeline("auto").fit(two.X, two.subjects, subjects=two.subjects)[-1]
    assert all(np.isfinite(score) for score in decoder.scores_.values())


def test_the_mean_is_of_candidates_that_are_not_clearly_worse(people) -> None:
    source, target = people
    pipe = make_pipeline("auto", align="riemann").fit(source).adapt(target)
    auto = pipe[-1]
    assert auto.choice_ in auto.members_ and len(auto.members_) > 1
    assert set(auto.scores_) == set(auto.candidates) >= set(auto.members_)
    # By hand: every member by its name, at its temperature.
    total = 0.0
    for name in auto.members_:
        if name.startswith("spectral"):
            continue
        one = make_pipeline(name, align="riemann").fit(source).adapt(target)
        if hasattr(one, "decision_function"):
            d = one.decision_function(target)
            z = np.stack([-d, d], axis=1) / 2
        else:
            z = np.log(one.predict_proba(target))
        z = z * auto.temperatures_[name]
        total = total + z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    only = tuple(m for m in auto.members_ if not m.startswith("spectral"))
    again = make_pipeline("auto", align="riemann", candidates=only)
    again.fit(source).adapt(target)
    assert again[-1].members_ == only
    p = again.predict_proba(target)
    wanted = np.exp(total / len(only))
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, wanted, atol=1e-9)
    assert (again.predict(target) == again[-1].classes_[p.argmax(axis=1)]).all()


def test_a_candidate_at_chance_is_left_out(people) -> None:
    rng = np.random.default_rng(0)
    codes, owner = np.tile([0, 1], 60), np.repeat(np.arange(6), 20)
    good = np.stack([1.0 - codes, codes], axis=1) + 0.1 * rng.random((120, 2))
    everything = [(np.arange(120), np.arange(120))]
    weigh = Weighing(codes, owner, everything)
    weigh.add("good", [good])
    weigh.add("near", [np.where(rng.random((120, 1)) < 0.02, -good, good)])
    weigh.add("chance", [rng.random((120, 2))])
    assert weigh.members("good") == ("good", "near")
    assert weigh.scores["good"] == pytest.approx(np.ones(6))
    # Sure of itself where it is right: a high factor; none where it knows nothing.
    assert weigh.temperature("good") > 5 * weigh.temperature("chance")


def test_units_do_not_matter_and_seeds_are_none(people) -> None:
    source, target = people
    one = make_pipeline("auto", align="riemann").fit(source).adapt(target)
    X = 1e6 * source.X
    two = make_pipeline("auto", align="riemann")
    two.fit(X, source.y, subjects=source.subjects, sessions=source.sessions)
    two.adapt(1e6 * target.X, subjects=target.subjects, sessions=target.sessions)
    p = one.predict_proba(target)
    q = two.predict_proba(
        1e6 * target.X, subjects=target.subjects, sessions=target.sessions
    )
    np.testing.assert_allclose(p, q, atol=1e-6)
