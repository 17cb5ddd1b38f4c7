"""Analytic heads: merging is pooled training, forgetting is training without."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from eegtensor import EEGTensorError
from eegtensor.lifelong import AnalyticHead
from eegtensor.lifelong.analytic import (
    downdate,
    merge_sites,
    one_ridge,
    site_of,
    solve,
    sums_of,
    update,
)

RIDGE = 1.0


@pytest.fixture
def trials(rng):
    y = rng.integers(3, size=120)
    X = rng.standard_normal((120, 20)) + 1.5 * np.eye(20)[y]
    return X, y


def without(X, y, gone):
    return AnalyticHead().fit(X[~gone], y[~gone])


def test_it_is_scikit_learns_ridge(trials) -> None:
    X, y = trials
    peer = Ridge(alpha=2.0, fit_intercept=False).fit(X, np.eye(3)[y])
    ours = AnalyticHead(ridge=2.0, intercept=False).fit(X, y)
    np.testing.assert_allclose(ours.coef_, peer.coef_.T, rtol=0, atol=1e-12)


def test_merging_is_pooled_training_in_any_order(trials) -> None:
    X, y = trials
    parts = np.array_split(np.arange(120), 5)
    pooled = AnalyticHead().fit(X, y).coef_
    for order in (range(5), (4, 2, 0, 1, 3)):
        heads = [AnalyticHead().fit(X[parts[i]], y[parts[i]]) for i in order]
        merged = heads[0]
        for head in heads[1:]:
            merged.merge(head)
        assert np.abs(merged.coef_ - pooled).max() < 1e-12


def test_what_sites_send_is_enough(trials) -> None:
    # The weights and C alone, as published, with the surplus ridges taken away.
    X, y = trials
    parts = np.array_split(np.argsort(y, kind="stable"), 4)
    # The most different sites: classes in a row.
    sites = [site_of(sums_of(X[p], y[p], 3), RIDGE) for p in parts]
    merged = sites[0]
    for site in sites[1:]:
        merged = merge_sites(merged, site)
    pooled = solve(sums_of(X, y, 3), RIDGE)
    assert np.abs(one_ridge(merged, RIDGE) - pooled).max() < 1e-12
    # Before that the ridge is that of four sites.
    four = solve(sums_of(X, y, 3), 4 * RIDGE)
    assert np.abs(merged.weights - four).max() < 1e-12


@pytest.mark.parametrize("solver", ["sums", "recursive"])
def test_continual_is_joint(trials, solver) -> None:
    X, y = trials
    head = AnalyticHead(solver=solver).fit(X[:60], y[:60])
    for t in range(60, 120, 4):
        head.partial_fit(X[t : t + 4], y[t : t + 4])
    assert np.abs(head.coef_ - AnalyticHead().fit(X, y).coef_).max() < 1e-12
    assert head.ledger_.total.n_trials == 120


@pytest.mark.parametrize("solver", ["sums", "recursive"])
def test_forgetting_is_training_without(trials, solver) -> None:
    X, y = trials
    gone = np.arange(120) % 15 == 0
    head = AnalyticHead(solver=solver).fit(X, y)
    before = head.coef_.copy()
    head.forget(X[gone], y[gone])
    assert np.abs(head.coef_ - without(X, y, gone).coef_).max() < 1e-12
    assert np.abs(head.coef_ - before).max() > 1e-3
    # Learned again, all is as it was.
    head.partial_fit(X[gone], y[gone])
    assert np.abs(head.coef_ - before).max() < 1e-12


def test_a_thousand_comings_and_goings(trials, rng) -> None:
    X, y = trials
    head = AnalyticHead(solver="recursive").fit(X, y)
    present = np.ones(120, dtype=bool)
    for _ in range(1000):
        i = rng.integers(30)
        step = head.forget if present[i] else head.partial_fit
        step(X[[i]], y[[i]])
        present[i] = ~present[i]
    left = AnalyticHead().fit(X[present], y[present])
    assert np.abs(head.coef_ - left.coef_).max() < 1e-8


def test_digits_that_would_be_lost_are_refused(trials) -> None:
    # With hardly a ridge, the last trials of a direction cannot be taken away.
    X, y = trials
    X = X[:20]
    Y = np.eye(3)[y[:20]]
    R = np.linalg.inv(X.T @ X + 1e-13 * np.eye(20))
    assert downdate(R, R @ X.T @ Y, X[:1], Y[:1]) is None
    R = np.linalg.inv(X.T @ X + np.eye(20))
    assert downdate(R, R @ X.T @ Y, X[:1], Y[:1]) is not None


def test_updates_are_the_inverse(trials) -> None:
    X, y = trials
    Y = np.eye(3)[y]
    R = np.linalg.inv(X[:100].T @ X[:100] + np.eye(20))
    W = R @ X[:100].T @ Y[:100]
    R, W = update(R, W, X[100:], Y[100:])
    whole = np.linalg.inv(X.T @ X + np.eye(20))
    assert np.abs(R - whole).max() < 1e-13
    assert np.abs(W - whole @ X.T @ Y).max() < 1e-13


def test_people_are_forgotten_by_name(trials) -> None:
    X, y = trials
    who = np.array(["ann", "bob", "eve"])[np.arange(120) % 3]
    head = AnalyticHead(people=True).fit(X, y, subjects=who)
    head.forget(subjects="bob")
    assert np.abs(head.coef_ - without(X, y, who == "bob").coef_).max() < 1e-12
    assert set(head.ledger_.people) == {"ann", "eve"}
    with pytest.raises(EEGTensorError, match="no sums of 'bob'"):
        head.forget(subjects=["bob"])
    # Some of a person's trials.
    some = (who == "ann") & (np.arange(120) < 60)
    head.forget(X[some], y[some], subjects=who[some])
    assert np.abs(head.coef_ - without(X, y, (who == "bob") | some).coef_).max() < 1e-12
    assert head.ledger_.people["ann"].n_trials == 20


def test_classes_that_come_later_get_columns(trials) -> None:
    X, y = trials
    names = np.array(["left", "feet", "right"])[y]
    early = names != "feet"
    head = AnalyticHead().fit(X[early], names[early])
    head.partial_fit(X[~early], names[~early])
    whole = AnalyticHead().fit(X, names)
    assert head.classes_.tolist() == whole.classes_.tolist()
    assert np.abs(head.coef_ - whole.coef_).max() < 1e-12
    first = AnalyticHead().fit(X[early], names[early])
    other = AnalyticHead().partial_fit(X[~early], names[~early])
    assert np.abs(first.merge(other).coef_ - whole.coef_).max() < 1e-12


def test_random_features_merge_where_their_seed_is_one(trials) -> None:
    X, y = trials
    options = {"n_random": 64}
    head = AnalyticHead(**options).fit(X[:60], y[:60])
    head.merge(AnalyticHead(**options).fit(X[60:], y[60:]))
    whole = AnalyticHead(**options).fit(X, y)
    assert np.abs(head.coef_ - whole.coef_).max() < 1e-11
    with pytest.raises(EEGTensorError, match="differ in random_state"):
        head.merge(AnalyticHead(n_random=64, random_state=1).fit(X, y))


def test_mistakes_are_named(trials) -> None:
    X, y = trials
    head = AnalyticHead().fit(X, y)
    with pytest.raises(EEGTensorError, match="120 trials are to be forgotten"):
        head.forget(X, y)
    with pytest.raises(EEGTensorError, match="nothing to forget"):
        head.forget()
    with pytest.raises(EEGTensorError, match="ridge"):
        AnalyticHead(ridge=0.0).fit(X, y)
    with pytest.raises(EEGTensorError, match="whose trials"):
        AnalyticHead(people=True).fit(X, y)


def test_scikit_learn_takes_it() -> None:
    from sklearn.utils.estimator_checks import check_estimator

    check_estimator(AnalyticHead())
