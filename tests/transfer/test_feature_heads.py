"""Heads of feature vectors: closed forms, scikit-learn's checks, and streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.covariance import OAS, LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.estimator_checks import check_estimator

from eegtensor import EEGTensorError
from eegtensor.transfer import (
    BoostedHead,
    GaussianDiscriminant,
    LokiClassifier,
    ProbeChooser,
    SharedNaiveBayes,
    frechet_decode,
)

HEADS = [
    GaussianDiscriminant(),
    SharedNaiveBayes(),
    ProbeChooser(sizes=(6,), n_folds=2),
    BoostedHead(n_units=3, max_iter=20),
    LokiClassifier(),
]


def ids(head):
    return type(head).__name__


def drawn(n=90, d=12, k=3, seed=0, apart=1.0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    means = apart * rng.standard_normal((k, d))
    mix = rng.standard_normal((d, d)) / np.sqrt(d) + np.eye(d)
    return means[y] + rng.standard_normal((n, d)) @ mix, y


@pytest.mark.parametrize("head", HEADS, ids=ids)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(head):
    results = check_estimator(head, on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert not failed and len(results) > 30, failed


@pytest.mark.parametrize("head", HEADS, ids=ids)
@pytest.mark.parametrize("k", [2, 3])
def test_unit_of_the_features_does_not_matter(head, k):
    X, y = drawn(k=k)
    names = np.array(["left", "right", "rest"])[y]
    fitted = clone(head).fit(X, names)
    tiny = clone(head).fit(1e-6 * X, names)
    if isinstance(head, LokiClassifier):
        # Logistic regression itself asks for standardised features.
        return
    agree = tiny.predict(1e-6 * X) == fitted.predict(X)
    assert agree.mean() > 0.97 and fitted.score(X, names) > 0.6
    p = fitted.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert fitted.decision_function(X).shape == ((90,) if k == 2 else (90, 3))


@pytest.mark.parametrize("head", HEADS, ids=ids)
def test_one_class_is_refused(head):
    X, _ = drawn(10)
    with pytest.raises(EEGTensorError, match="one class only"):
        clone(head).fit(X, np.zeros(10))


# Gaussian discriminant


def test_gda_is_linear_discriminant_analysis_with_its_shrinkage():
    X, y = drawn()
    N, D = X.shape
    R = X - np.stack([X[y == c].mean(axis=0) for c in range(3)])[y]
    S = R.T @ R / (N - 1)
    P = D * np.linalg.inv((N - 1) * S + np.trace(S) * np.eye(D))
    head = GaussianDiscriminant().fit(X, y)
    np.testing.assert_allclose(head.coef_, head.means_ @ P, rtol=1e-9)
    away = X[:, None] - head.means_
    mahalanobis = -0.5 * np.einsum("nkd,de,nke->nk", away, P, away)
    got = head.decision_function(X)
    shift = mahalanobis - got
    np.testing.assert_allclose(shift - shift[:, :1], 0, atol=1e-9)
    lda = LinearDiscriminantAnalysis(solver="lsqr").fit(X, y)
    head = GaussianDiscriminant("empirical", prior="empirical").fit(X, y)
    assert (head.predict(X) == lda.predict(X)).all()
    for name, estimator in (("ledoit-wolf", LedoitWolf), ("oas", OAS)):
        P = estimator(assume_centered=True).fit(R).precision_
        head = GaussianDiscriminant(name).fit(X, y)
        np.testing.assert_allclose(head.coef_, head.means_ @ P, rtol=1e-7, atol=1e-9)


def test_gda_few_trials_beat_plain_lda():
    """N = 60, D = 30, three classes, as in the specification."""
    scores = {"ks": [], "ledoit-wolf": [], "oas": [], "lda": []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        means = 0.45 * rng.standard_normal((3, 30))
        mix = rng.standard_normal((30, 30)) / np.sqrt(30) + 0.5 * np.eye(30)
        y = np.arange(1560) % 3
        X = means[y] @ mix + 0.6 * rng.standard_normal((1560, 30)) @ mix
        for name, found in scores.items():
            head = GaussianDiscriminant(name)
            if name == "lda":
                head = LinearDiscriminantAnalysis()
            found.append(head.fit(X[:60], y[:60]).score(X[60:], y[60:]))
    mean = {name: np.mean(found) for name, found in scores.items()}
    assert mean["ks"] > mean["lda"] + 0.02, mean
    assert mean["ledoit-wolf"] > mean["lda"] + 0.02, mean


def test_gda_fused_with_a_frozen_classifier():
    X, y = drawn(120)
    base = LogisticRegression(max_iter=500).fit(X[60:], y[60:])
    frozen = FrozenEstimator(base)
    off = GaussianDiscriminant(base=frozen, alpha=0.0).fit(X[:12], y[:12])
    np.testing.assert_allclose(
        off.decision_function(X), base.decision_function(X), rtol=1e-12
    )
    own = GaussianDiscriminant().fit(X[:12], y[:12]).decision_function(X)
    both = clone(GaussianDiscriminant(base=frozen, base_scale=2.0, alpha=0.3))
    got = both.fit(X[:12], y[:12]).decision_function(X)
    np.testing.assert_allclose(got, 2 * base.decision_function(X) + 0.3 * own)
    # The weight follows what helps: noise in the new trials, or a base of noise.
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(X.shape)
    useless = FrozenEstimator(LogisticRegression().fit(noise, rng.permutation(y)))
    trust_new = GaussianDiscriminant(base=useless, alpha="auto").fit(X[:60], y[:60])
    trust_base = GaussianDiscriminant(base=frozen, alpha="auto").fit(X[:15], y[:15])
    assert trust_new.alpha_ > trust_base.alpha_
    assert trust_base.score(X[15:], y[15:]) > 0.9 * base.score(X[15:], y[15:])
    single = GaussianDiscriminant(base=frozen, alpha="auto").fit(X[:3], y[:3])
    assert single.alpha_ == 1.0


def test_gda_two_classes_with_a_base_that_gives_one_number():
    X, y = drawn(60, k=2)
    base = LogisticRegression().fit(X, y)
    head = GaussianDiscriminant(base=FrozenEstimator(base), alpha=0.0).fit(X, y)
    np.testing.assert_allclose(head.decision_function(X), base.decision_function(X))
    nb = GaussianNB().fit(X, y)
    head = GaussianDiscriminant(base=FrozenEstimator(nb), alpha=0.0).fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), nb.predict_proba(X), atol=1e-9)


def test_gda_mistakes():
    X, y = drawn(30)
    with pytest.raises(EEGTensorError, match="not fitted"):
        GaussianDiscriminant(base=LogisticRegression()).fit(X, y)
    with pytest.raises(EEGTensorError, match="knows the classes"):
        base = LogisticRegression().fit(X, y + 1)
        GaussianDiscriminant(base=base).fit(X, y)
    with pytest.raises(EEGTensorError, match="precision='lw'"):
        GaussianDiscriminant("lw").fit(X, y)


# Naive Bayes


def test_naive_bayes_is_scikit_learns_with_the_pooled_variance():
    X, y = drawn()
    y[:20] = 0
    head = SharedNaiveBayes(floor=0.0).fit(X, y)
    theirs = GaussianNB(var_smoothing=0.0).fit(X, y)
    pooled = theirs.class_prior_ @ theirs.var_
    np.testing.assert_allclose(head.variances_, pooled)
    theirs.var_ = np.tile(pooled, (3, 1))
    np.testing.assert_allclose(head.predict_proba(X), theirs.predict_proba(X))


def test_naive_bayes_streams_merges_and_forgets():
    X, y = drawn(100)
    X = X + 1e3
    whole = SharedNaiveBayes().fit(X, y)
    stream = SharedNaiveBayes()
    for part in np.array_split(np.random.default_rng(0).permutation(100), 9):
        stream.partial_fit(X[part], y[part], classes=[0, 1, 2])
    early = SharedNaiveBayes().partial_fit(X[:40], y[:40], classes=[0, 1, 2])
    late = SharedNaiveBayes().partial_fit(X[40:], y[40:], classes=[0, 1, 2])
    back = SharedNaiveBayes().fit(np.r_[X, X[:7] + 5], np.r_[y, y[:7]])
    back.forget(X[:7] + 5, y[:7])
    for other in (stream, early.merge(late), back):
        np.testing.assert_allclose(other.means_, whole.means_, rtol=1e-12)
        np.testing.assert_allclose(other.variances_, whole.variances_, rtol=1e-9)
        np.testing.assert_allclose(other.counts_, whole.counts_)
    assert early.counts_.sum() == 40
    # A class without trials yet is never decided for.
    first = SharedNaiveBayes().partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2])
    assert (first.predict(X) < 2).all() and np.isfinite(first.predict_proba(X)).all()
    with pytest.raises(EEGTensorError, match="are new"):
        first.partial_fit(X[:1], [7])
    with pytest.raises(EEGTensorError, match="forgotten"):
        early.forget(X, y)


# Chooser


def test_chooser_takes_the_better_one_and_shows_the_curve():
    X, y = drawn(40, d=60, k=2, apart=0.35)
    few = ProbeChooser().fit(X, y)
    assert few.chosen_ == max(few.scores_, key=few.scores_.get)
    assert few.curve_.sizes.tolist() == [8, 16, 32]
    # Correlated features with many trials: the assumption of naive Bayes hurts.
    rng = np.random.default_rng(0)
    y = np.arange(1000) % 2
    common = rng.standard_normal((1000, 1))
    X = common + 0.3 * rng.standard_normal((1000, 8))
    X[:, 0] += 0.6 * (y - 0.5)
    many = ProbeChooser(("naive-bayes", "logistic")).fit(X, y)
    assert many.chosen_ == "logistic"
    assert many.curve_.crossover is not None
    assert many.curve_.scores["logistic"].shape == many.curve_.sizes.shape
    direct = many.estimator_.predict(X)
    assert (many.predict(X) == direct).all()
    one = ProbeChooser().fit(X[:3], [0, 1, 1])
    assert one.chosen_ == "gda" and np.isnan(one.scores_["logistic"])
    with pytest.raises(EEGTensorError, match="candidates='svm'"):
        ProbeChooser(("svm",)).fit(X, y)


# Boosted


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("units_per_step", [1, 3])
def test_boosted_network_is_the_sum_of_its_steps(k, units_per_step):
    X, y = drawn(k=k)
    X = 5.0 + X * np.logspace(-3, 3, 12)
    head = BoostedHead(12, units_per_step, subsample=1.0, max_iter=60).fit(X, y)
    staged = list(head.staged_decision_function(X))
    assert len(staged) == 12 // units_per_step
    z = head._logits(X)
    np.testing.assert_allclose(staged[-1], z, atol=1e-6 * np.abs(z).max())
    with torch.no_grad():
        network = head.to_network()(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(network, z, atol=1e-6 * np.abs(z).max())
    # On all trials no step raises the loss, and the loss is that of the network.
    start = np.log(k)
    assert (np.diff(np.r_[start, head.losses_]) <= 1e-12).all()
    p = head.predict_proba(X)[np.arange(90), y]
    assert abs(-np.log(p).mean() - head.losses_[-1]) < 1e-9
    short = head.truncated(6)
    wanted = staged[6 // units_per_step - 1]
    np.testing.assert_allclose(short._logits(X), wanted, atol=1e-9)
    assert len(head.hidden_intercept_) == 12
    with pytest.raises(EEGTensorError, match="n_units=15"):
        head.truncated(15)


def test_boosted_half_of_the_units_are_nearly_as_good():
    X, y = drawn(600, apart=0.5, seed=1)
    head = BoostedHead(40, max_iter=60).fit(X[:300], y[:300])
    again = BoostedHead(40, max_iter=60).fit(X[:300], y[:300])
    assert np.array_equal(head.losses_, again.losses_)
    whole = head.score(X[300:], y[300:])
    assert whole > 0.7 and head.truncated(20).score(X[300:], y[300:]) > whole - 0.02


def test_boosted_step_is_newtons():
    """One step on two classes, worked out again from the published formulas."""
    X, y = drawn(k=2)
    y[:10] = 1
    head = BoostedHead(1, subsample=1.0, learning_rate=0.1).fit(X, y)
    sign = 2.0 * y - 1
    F0 = 0.5 * np.log((1 + sign.mean()) / (1 - sign.mean()))
    np.testing.assert_allclose(head.output_intercept_[0], F0)
    F1 = next(head.staged_decision_function(X))[:, 1]
    step = F1 - F0
    r = 2 * sign / (1 + np.exp(2 * sign * F0))
    # Along f the Newton step is rho f whatever the length of f.
    rho = (r * step).sum() / (step**2 * np.abs(r) * (2 - np.abs(r))).sum()
    np.testing.assert_allclose(0.1 * rho, 1.0, rtol=1e-6)


def test_boosted_step_of_three_classes_is_newtons():
    X, y = drawn()
    head = BoostedHead(1, subsample=1.0, learning_rate=0.1).fit(X, y)
    step = next(head.staged_decision_function(X))
    r = np.eye(3)[y] - 1 / 3
    rho = (r * step).sum() / (step**2 * (1 / 3) * (2 / 3)).sum()
    np.testing.assert_allclose(0.1 * rho, 1.0, rtol=1e-6)


# Loki


def test_loki_zero_one_is_the_argmax_and_a_line_the_mean():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(6), 500)
    i = np.arange(6)
    line = np.abs(i[:, None] - i)
    assert (frechet_decode(p, 1.0 - np.eye(6)) == p.argmax(axis=1)).all()
    assert (frechet_decode(p, line) == np.round(p @ i)).all()
    expected = p @ line.T**2
    each = np.arange(500)
    best = expected[each, frechet_decode(p, line)]
    assert (best <= expected[each, p.argmax(axis=1)]).all()
    assert (best < expected[each, p.argmax(axis=1)]).any()


def levels(n=400, seed=0):
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 7, n)
    return level[:, None] + 0.5 * rng.standard_normal((n, 3)), level


def test_loki_decides_for_levels_it_has_never_seen():
    X, level = levels()
    seen = np.isin(level, [0, 2, 4, 6])
    model = LokiClassifier(labels=np.arange(7)).fit(X[seen], level[seen])
    predicted = model.predict(X)
    plain = LogisticRegression(max_iter=1000).fit(X[seen], level[seen]).predict(X)
    assert set(np.unique(predicted)) >= {1, 3, 5}
    assert np.mean((predicted - level) ** 2) < np.mean((plain - level) ** 2)
    assert np.mean(predicted == level) > np.mean(plain == level)
    assert model.decision_function(X).shape == (400, 7)


def test_loki_temperature_circle_and_own_distances():
    X, level = levels()
    sharp = LogisticRegression(C=1e6, max_iter=3000)
    tuned = LokiClassifier(sharp, temperature="auto").fit(X, level)
    assert tuned.temperature_ in (0.25, 0.5, 1.0, 2.0, 4.0)
    names = np.array(["n", "e", "s", "w"])
    round_about = LokiClassifier(distances="circle", labels=names)
    turns = names[level % 4]
    model = round_about.fit(X, turns)
    # From n to those seen in the classifier's order: e, n, s, w.
    np.testing.assert_allclose(model.distances_[0], [1, 0, 2, 1])
    D = np.abs(np.arange(7)[:, None] - np.arange(7))
    own = LokiClassifier(distances=D, labels=np.arange(7)).fit(X, level)
    line = LokiClassifier().fit(X, level)
    assert (own.predict(X) == line.predict(X)).all()
    flat = LokiClassifier(distances="zero-one").fit(X, level)
    assert (flat.predict(X) == flat.estimator_.predict(X)).all()
    with pytest.raises(EEGTensorError, match=r"`labels` lacks: 6"):
        LokiClassifier(labels=np.arange(6)).fit(X, level)
    with pytest.raises(EEGTensorError, match=r"Distances of shape \(7, 7\) for 8"):
        LokiClassifier(distances=D, labels=np.arange(8)).fit(X, level)
