"""The automatic choice: by source people only, the best on them, fitted on all."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError, make_pipeline, simulate_trials


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
    pipe = make_pipeline("auto", align=align).fit(source)
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
