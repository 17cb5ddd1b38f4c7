"""Experts count as much as they helped people held out, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from eegtensor.auto.experts import learn, own_trials, remember
from eegtensor.auto.refining import Refinement
from eegtensor.auto.stacking import HeldOut, mixed

N, PEOPLE = 40, 6


def crowd(apart: float, seed: int = 0):
    """People whose own trials lie in clusters, each person's in another direction."""
    rng = np.random.default_rng(seed)
    codes = np.tile([0, 1], N * PEOPLE // 2)
    owner = np.repeat(np.arange(PEOPLE), N)
    way = rng.standard_normal((PEOPLE, 10))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    features = rng.standard_normal((N * PEOPLE, 10))
    features += apart * (2 * codes - 1)[:, np.newaxis] * way[owner]
    # Others' decoders are right more often than not.
    z = 0.6 * np.eye(2)[codes] + 0.7 * rng.standard_normal((N * PEOPLE, 2))
    return features, codes, owner, log_softmax(z, axis=1)


@pytest.fixture(scope="module")
def taught():
    features, codes, owner, log_p = crowd(3.0)
    refinement = Refinement(2)
    held = HeldOut(codes, owner)
    return refinement, refinement.fit([features], held, log_p), held, log_p


def test_experts_help_where_people_are_clustered(taught) -> None:
    refinement, after, held, before = taught
    assert len(refinement.rounds) and (refinement.rounds[:, 1] > 0).all()
    assert held.accuracy(before).mean() < 0.8
    assert held.accuracy(after).mean() > 0.95
    features, codes, owner, log_p = crowd(3.0, seed=1)
    new = owner == 0
    refinement.learn([features[new]], log_p[new], owner[new].astype(str), owner[new])
    refined = refinement.refine([features[new]], log_p[new], owner[new].astype(str))
    assert (log_p[new].argmax(1) == codes[new]).mean() < 0.85
    assert (refined.argmax(1) == codes[new]).mean() > 0.95


def test_they_do_not_count_where_there_is_nothing_to_learn() -> None:
    features, codes, owner, log_p = crowd(0.0)
    refinement = Refinement(2)
    after = refinement.fit([features], HeldOut(codes, owner), log_p)
    assert len(refinement.rounds) == 0
    np.testing.assert_array_equal(after, log_p)
    refinement.learn([features], log_p, owner.astype(str), owner)
    np.testing.assert_array_equal(
        refinement.refine([features], log_p, owner.astype(str)), log_p
    )


def test_a_new_person_gets_what_held_out_people_got(taught) -> None:
    """The rounds by hand on a person who was in the fit, as if new."""
    refinement, after, held, log_p = taught
    features, *_ = crowd(3.0)
    rows = held.owner == 2
    memory = remember(features[rows])
    now = log_p[rows]
    for weights in refinement.rounds:
        said = own_trials(memory, learn(memory, np.exp(now)))
        now = mixed(weights, np.stack([log_p[rows], said]))
    np.testing.assert_allclose(now, after[rows], atol=1e-12)
    names = np.full(N, "new")
    refinement.learn([features[rows]], log_p[rows], names, names)
    refined = refinement.refine([features[rows]], log_p[rows], names)
    np.testing.assert_allclose(refined, after[rows], atol=1e-9)
    # Without names: the person learned last. Of others nothing is known.
    np.testing.assert_array_equal(
        refinement.refine([features[rows]], log_p[rows], None), refined
    )
    np.testing.assert_array_equal(
        refinement.refine([features[rows]], log_p[rows], np.full(N, "x")), log_p[rows]
    )


def test_sessions_add_up_and_replace_themselves(taught) -> None:
    refinement, *_ = taught
    features, _, owner, log_p = crowd(3.0, seed=2)
    rows = owner == 1
    f, lp = features[rows], log_p[rows]
    who, when = np.full(N, "p"), np.repeat(["1", "2"], N // 2)
    other = np.full(N, "q")
    refinement.learn([f], lp, other, other)
    whole = refinement.refine([f], lp, other)
    for session in ("1", "2", "2"):
        part = when == session
        refinement.learn([f[part]], lp[part], who[part], when[part])
    np.testing.assert_allclose(refinement.refine([f], lp, who), whole, atol=1e-9)


def test_few_trials_are_not_learned_from(taught) -> None:
    refinement, *_ = taught
    features, _, _, log_p = crowd(3.0, seed=3)
    few = np.full(7, "few")
    refinement.learn([features[:7]], log_p[:7], few, few)
    np.testing.assert_array_equal(
        refinement.refine([features[:7]], log_p[:7], few), log_p[:7]
    )
