"""DomainStandardScaler: against scikit-learn, domain by domain, and trial by trial."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import butter, sosfiltfilt
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from eegtensor import EEGTensorError
from eegtensor.domains import Domain
from eegtensor.features.fbcsp import FilterBankCSP
from eegtensor.transfer.standardize import DomainStandardScaler


@pytest.fixture
def people(rng):
    """Three people, two sessions, features of very different offset and spread."""
    subjects = np.repeat(["ann", "bob", "eve"], 40)
    sessions = np.tile(np.repeat(["0", "1"], 20), 3)
    cell = np.unique(subjects + sessions, return_inverse=True)[1]
    X = rng.standard_normal((120, 4)) * rng.uniform(0.1, 5, (6, 4))[cell]
    X += rng.standard_normal((6, 4))[cell] * 10
    order = rng.permutation(120)
    return X[order], {"subjects": subjects[order], "sessions": sessions[order]}


def part(people, subject):
    X, domains = people
    own = domains["subjects"] == subject
    return X[own], {name: values[own] for name, values in domains.items()}


def test_equals_a_scaler_per_domain(people):
    X, domains = people
    Z = DomainStandardScaler().fit_transform(X, **domains)
    cells = np.char.add(domains["subjects"], domains["sessions"])
    for cell in np.unique(cells):
        own = cells == cell
        assert_allclose(Z[own], StandardScaler().fit_transform(X[own]), rtol=1e-10)


def test_pooled_is_the_variance_within_domains(people):
    X, domains = people
    scaler = DomainStandardScaler().fit(X, **domains)
    assert_allclose(scaler.pooled_mean_, X.mean(axis=0))
    assert_allclose(scaler.pooled_scale_**2, (scaler.scale_**2).mean(axis=0))
    Z = scaler.transform(X, subjects="new", sessions="0")
    assert_allclose(Z * scaler.pooled_scale_ + scaler.pooled_mean_, X)
    assert_allclose(scaler.transform(X), Z)


def test_without_domains_it_is_a_standard_scaler(people):
    X, _ = people
    wanted = StandardScaler().fit(X)
    scaler = DomainStandardScaler().fit(X)
    assert_allclose(scaler.transform(X), wanted.transform(X))
    assert_allclose(scaler.mean_[0], wanted.mean_)
    assert_allclose(scaler.scale_[0], wanted.scale_)


def test_adapt_gives_an_unseen_person_its_own_statistics(people):
    source = np.flatnonzero(people[1]["subjects"] != "eve")
    X, domains = people
    scaler = DomainStandardScaler(unseen="raise").fit(
        X[source], **{k: v[source] for k, v in domains.items()}
    )
    target, names = part(people, "eve")
    with pytest.raises(EEGTensorError, match="No statistics for the domains eve/"):
        scaler.transform(target, **names)
    before = scaler.pooled_mean_.copy()
    scaler.adapt(target, **names)
    alone = DomainStandardScaler().fit_transform(target, **names)
    assert_allclose(scaler.transform(target, **names), alone)
    assert_array_equal(scaler.pooled_mean_, before)
    assert scaler.last_target_ == Domain("", "eve", names["sessions"][-1])
    assert_allclose(
        scaler.transform(target),
        scaler.transform(target, subjects="eve", sessions=names["sessions"][-1]),
    )


def test_adapt_without_domains_is_one_target(people):
    X, domains = people
    scaler = DomainStandardScaler().fit(X, **domains)
    target, _ = part(people, "eve")
    scaler.adapt(target)
    assert scaler.last_target_ == Domain("", "target", "")
    assert_allclose(scaler.transform(target), StandardScaler().fit_transform(target))


def test_unseen_adapt_uses_the_batch_and_keeps_nothing(people):
    X, domains = people
    scaler = DomainStandardScaler(unseen="adapt").fit(X, **domains)
    target = X[:50] * 3 + 7
    names = np.repeat(["zoe", "zac"], 25)
    Z = scaler.transform(target, subjects=names)
    assert_allclose(Z[:25], StandardScaler().fit_transform(target[:25]))
    assert_allclose(Z[25:], StandardScaler().fit_transform(target[25:]))
    assert len(scaler.domains_) == 6
    with pytest.raises(EEGTensorError, match="at least 2 trials"):
        scaler.transform(target[:1], subjects=names[:1])


def test_partial_adapt_runs_to_the_statistics_of_the_batch(people):
    X, domains = people
    scaler = DomainStandardScaler(prior_trials=0).fit(X, **domains)
    target = X[:30] * 2 - 5
    scaler.partial_adapt(target, subjects="zoe")
    assert_allclose(scaler.mean_[-1], target.mean(axis=0))
    assert_allclose(scaler.scale_[-1], target.std(axis=0))
    assert scaler.count_[-1] == 30


def test_partial_adapt_starts_from_the_sources(people):
    X, domains = people
    scaler = DomainStandardScaler(prior_trials=8).fit(X, **domains)
    target = X[:12] * 2 - 5
    for x in target:
        scaler.partial_adapt(x[np.newaxis], subjects="zoe")
    # Eight trials with exactly the sources' mean and variance, then the target's.
    around = np.repeat([[-1.0], [1.0]], 4, axis=0)
    prior = scaler.pooled_mean_ + around * scaler.pooled_scale_
    joined = np.concatenate([prior, target])
    assert_allclose(scaler.mean_[-1], joined.mean(axis=0))
    assert_allclose(scaler.scale_[-1], joined.std(axis=0))


def test_order_of_trials_does_not_matter(people, rng):
    X, domains = people
    Z = DomainStandardScaler().fit_transform(X, **domains)
    order = rng.permutation(len(X))
    shuffled = {name: values[order] for name, values in domains.items()}
    again = DomainStandardScaler().fit_transform(X[order], **shuffled)
    assert_allclose(again, Z[order], rtol=1e-9, atol=1e-12)


def test_weights_are_repetitions(people, rng):
    X, domains = people
    weights = rng.integers(1, 4, len(X))
    weighted = DomainStandardScaler().fit(X, **domains, sample_weight=weights)
    repeated = DomainStandardScaler().fit(
        X.repeat(weights, 0), **{k: v.repeat(weights) for k, v in domains.items()}
    )
    assert_allclose(weighted.mean_, repeated.mean_)
    assert_allclose(weighted.scale_, repeated.scale_)


@pytest.mark.parametrize("offset", [0.0, 1e-5, 12345.678])
def test_a_constant_feature_is_not_divided_by_rounding(people, offset):
    X, domains = people
    X = X * 1e-6
    X[:, 2] = offset
    scaler = DomainStandardScaler().fit(X, **domains)
    assert_array_equal(scaler.scale_[:, 2], 1.0)
    assert_array_equal(scaler.pooled_scale_[2], 1.0)
    assert_allclose(scaler.transform(X, **domains)[:, 2], 0, atol=1e-10)
    assert (scaler.scale_[:, [0, 1, 3]] < 1e-4).all()


def test_a_feature_constant_in_one_domain_takes_the_pooled_scale(people):
    X, domains = people
    X = X * 1e-6
    own = (domains["subjects"] == "bob") & (domains["sessions"] == "1")
    X[own, 2] = 1e-6
    scaler = DomainStandardScaler().fit(X, **domains)
    code = scaler.domains_.names.index(Domain("", "bob", "1"))
    assert_array_equal(scaler.scale_[code, 2], scaler.pooled_scale_[2])


def test_protocol(people, tmp_path):
    X, domains = people
    scaler = DomainStandardScaler(unseen="adapt", prior_trials=2.5)
    assert clone(scaler).get_params() == {"unseen": "adapt", "prior_trials": 2.5}
    np.save(tmp_path / "X.npy", X)
    Z = scaler.fit_transform(np.load(tmp_path / "X.npy", mmap_mode="r"), **domains)
    for other in (pickle.loads(pickle.dumps(scaler)), copy.deepcopy(scaler)):
        assert_array_equal(other.transform(X, **domains), Z)
    copied = copy.copy(scaler).adapt(X + 1, subjects="ann", sessions="0")
    assert_array_equal(scaler.transform(X, **domains), Z)
    assert not np.allclose(copied.transform(X, **domains), Z)
    assert scaler.fit(X[:, :2]).transform(X[:, :2]).shape == (120, 2)


def test_errors_say_what_to_do(people):
    X, domains = people
    scaler = DomainStandardScaler().fit(X, **domains)
    with pytest.raises(EEGTensorError, match="at least 2 trials of a domain; eve"):
        scaler.adapt(X[:1], subjects="eve")
    with pytest.raises(EEGTensorError, match="X has 2 features, fit saw 4"):
        scaler.transform(X[:, :2], **domains)
    with pytest.raises(
        EEGTensorError, match="not .n_trials, n_features.".replace(".", r"\W")
    ):
        scaler.transform(X[..., np.newaxis], **domains)
    with pytest.raises(EEGTensorError, match="infinity in trials 5"):
        scaler.adapt(np.where(np.arange(120)[:, np.newaxis] == 5, np.nan, X))
    with pytest.raises(EEGTensorError, match="unseen='guess'"):
        DomainStandardScaler(unseen="guess").fit(X)


@pytest.mark.slow
def test_real_motor_imagery_of_unseen_people(shared_data):
    """FBCSP + DSS + LDA on five people, left out one by one; TSMNet has .717."""
    X, y, subjects, sessions = [], [], [], []
    for path in sorted((shared_data / "bnci_iv_2b").glob("*.npz")):
        file = np.load(path, allow_pickle=False)
        signals = file["X"] * float(file["scale"])
        bands = [
            sosfiltfilt(
                butter(4, [low, low + 4], "band", fs=250, output="sos"), signals
            )[..., 125:875]
            for low in range(6, 26, 4)
        ]
        X.append(np.concatenate(bands, axis=1).astype(np.float32))
        y += file["y"].tolist()
        subjects += [str(file["subject"])] * len(signals)
        sessions += [str(file["session"])] * len(signals)
    X = np.concatenate(X)
    y, subjects, sessions = np.array(y), np.array(subjects), np.array(sessions)
    scores = []
    for left in np.unique(subjects):
        source, target = subjects != left, subjects == left
        names = {"subjects": subjects[source], "sessions": sessions[source]}
        unseen = {"subjects": subjects[target], "sessions": sessions[target]}
        features = FilterBankCSP(5).fit(X[source], y[source])
        Z, new = features.transform(X[source]), features.transform(X[target])
        scaler = DomainStandardScaler().fit(Z, **names)
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        lda.fit(scaler.transform(Z, **names), y[source])
        before = lda.predict(scaler.transform(new, **unseen))
        after = lda.predict(scaler.adapt(new, **unseen).transform(new, **unseen))
        scores.append([balanced_accuracy_score(y[target], p) for p in (before, after)])
    before, after = np.mean(scores, axis=0)
    assert after > 0.70
    assert after - before > 0.04
