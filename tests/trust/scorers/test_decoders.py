"""Evidence of every kind of decoder, ensembles, and decoders that reject."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline as sk_pipeline
from sklearn.preprocessing import FunctionTransformer

from eegtensor._check import EEGTensorError
from eegtensor.pipeline import Pipeline
from eegtensor.pipelines import make_pipeline
from eegtensor.simulate import simulate_trials
from eegtensor.transfer import TSMNetClassifier
from eegtensor.trust.rejecting import RejectingClassifier
from eegtensor.trust.scorers import ModeEnsemble, auroc, evidence


@pytest.fixture(scope="module")
def people():
    t = simulate_trials(n_subjects=6, n_sessions=1, n_trials=30, n_channels=6, snr=2.0)
    return t.X, t.y, t.subjects, t.subjects == np.unique(t.subjects)[-1]


def variances(X):
    return np.log(X.var(axis=2))


@pytest.mark.parametrize(
    "name", ["tangent-space", "mdm", "csp-lda", "tangent-space-svm", "tsmnet"]
)
def test_evidence_of_pipelines(people, name):
    X, y, who, new = people
    options = {"epochs": 1} if name == "tsmnet" else {"align": "riemann"}
    model = make_pipeline(name, **options).fit(X[~new], y[~new], subjects=who[~new])
    model.adapt(X[new], subjects=who[new])
    before = model.predict(X[new], subjects=who[new])
    e = evidence(model, X[new], subjects=who[new])
    assert e.logits.shape == (30, 2)
    assert len(e.features) == 30
    assert e.need("covariances").shape[0] == 30
    said = model.classes_ if hasattr(model, "classes_") else np.unique(y)
    assert np.array_equal(said[e.logits.argmax(1)], before)
    # Volts or microvolts: alignment and networks do not know the unit.
    if name != "csp-lda":
        half = e.pick(np.arange(30) < 7)
        assert len(half) == 7
        assert np.array_equal(half.features, e.features[:7])


def test_features_of_a_network_make_its_logits(people):
    X, y, who, new = people
    model = TSMNetClassifier(epochs=1, unseen="adapt")
    model.fit(X[~new], y[~new], subjects=who[~new])
    # Statistics of the batch itself: of a copy of the network.
    e = evidence(model, X[new], subjects=who[new], gradients=True)
    head = model.network_.head
    w, b = (p.detach().numpy() for p in (head.weight, head.bias))
    assert np.allclose(e.features @ w.T + b, e.logits, atol=1e-8)
    assert e.network is not model.network_
    z = model.decision_function(X[new], subjects=who[new])
    assert np.allclose(e.logits[:, 1] - e.logits[:, 0], z)
    assert not head._forward_hooks


def test_a_plain_pipeline_of_scikit_learn(people):
    X, y, *_ = people
    model = sk_pipeline(FunctionTransformer(variances), LogisticRegression()).fit(X, y)
    e = evidence(model, X)
    assert np.allclose(e.features, variances(X))
    assert np.allclose(e.logits[:, 1] - e.logits[:, 0], model.decision_function(X))


def noisy_logits(seed, n=300):
    from eegtensor.trust.scorers import Evidence

    rng = np.random.default_rng(7)
    y = rng.integers(4, size=n)
    clean = 3.0 * np.eye(4)[y]
    own = np.random.default_rng(seed).standard_normal((n, 4))
    novel = 2.0 * np.random.default_rng(100 + seed).standard_normal((n, 4))
    return Evidence(clean + own, clean + own), Evidence(novel, novel), y


@pytest.mark.parametrize("spec", ["msp", "energy", "cop", "knn(normalise=False)"])
def test_ensemble(spec):
    """Check of A13: one decoder is its own score; the spread over seeds falls."""
    made = [noisy_logits(s) for s in range(15)]
    y = made[0][2]
    from eegtensor.trust.scorers import make_scorer

    one = ModeEnsemble(spec).fit([made[0][0]], y)
    plain = make_scorer(spec).fit(made[0][0], y).score_samples(made[0][1])
    assert np.allclose(one.score_samples([made[0][1]]), plain, atol=1e-9)

    if spec in ("msp", "energy"):
        three = ModeEnsemble(spec).fit([a for a, _, _ in made[:3]], y)
        mean = np.mean([b.logits for _, b, _ in made[:3]], axis=0)
        expected = make_scorer(spec).fit(mean).score_samples(mean)
        found = three.score_samples([b for _, b, _ in made[:3]])
        assert np.allclose(found, expected, atol=1e-12)

    def quality(group):
        both = ModeEnsemble(spec).fit([a for a, _, _ in group], y)
        return auroc(
            both.score_samples([a for a, _, _ in group]),
            both.score_samples([b for _, b, _ in group]),
        )

    single = [quality([m]) for m in made]
    groups = [quality(made[k : k + 5]) for k in (0, 5, 10)]
    assert np.std(groups) < np.std(single)
    each = ModeEnsemble(spec).fit([a for a, _, _ in made], y)
    assert each.score_each([b for _, b, _ in made]).shape == (15, 300)
    with pytest.raises(EEGTensorError, match="decoders"):
        each.score_samples([made[0][1]])


def loud(X):
    return X * np.where(np.arange(X.shape[1]) == 2, 8.0, 1.0)[None, :, None]


@pytest.mark.parametrize("scorer", ["kpca", "potato", "gradients"])
def test_rejecting(people, scorer):
    X, y, who, new = people
    model = RejectingClassifier(
        make_pipeline("tangent-space", align="riemann"), scorer, reject=0.1
    )
    model.fit(X[~new], y[~new], subjects=who[~new])
    assert len(model.held_out_scores_) == (~new).sum()
    assert np.mean(model.held_out_scores_ < model.threshold_) == pytest.approx(
        0.1, abs=0.02
    )
    model.adapt(X[new], subjects=who[new])
    names = {"subjects": who[new]}
    kept = model.accepts(X[new], **names)
    assert kept.mean() > 0.6
    said = model.predict(X[new], **names)
    assert np.array_equal(said == "rejected", ~kept)
    plain = model.estimator_.predict(X[new], **names)
    assert np.array_equal(said[kept], plain[kept])
    if scorer != "gradients":
        assert not model.accepts(loud(X[new]), **names).any()
    p = model.predict_proba(X[new], **names)
    assert np.allclose(p.sum(axis=1), 1.0)


def test_rejecting_network_in_our_pipeline(people):
    X, y, who, new = people
    inner = RejectingClassifier(TSMNetClassifier(epochs=2), reject=0.2, n_folds=2)
    model = Pipeline([("decoder", inner)])
    model.fit(X[~new], y[~new], subjects=who[~new])
    assert model.can_adapt
    model.adapt(X[new], subjects=who[new])
    said = model.predict(X[new], subjects=who[new])
    assert set(said) <= {*y, "rejected"}
    assert model.predict_proba(X[new], subjects=who[new]).shape == (30, 2)


@pytest.mark.slow
def test_the_share_rejected_of_new_people_is_the_one_asked_for(people):
    """Mean over every person left out in turn, for scores that bend to training."""
    X, y, who, _ = people
    for spec in ("kpca", "knn"):
        shares = []
        for name in np.unique(who):
            new = who == name
            pipe = make_pipeline("tangent-space", align="riemann")
            model = RejectingClassifier(pipe, spec, reject=0.1)
            model.fit(X[~new], y[~new], subjects=who[~new])
            model.adapt(X[new], subjects=who[new])
            shares.append(1.0 - model.accepts(X[new], subjects=who[new]).mean())
        assert 0.02 < np.mean(shares) < 0.22, (spec, shares)


def test_rejecting_nothing_is_the_decoder(people):
    X, y, who, _ = people
    decoder = sk_pipeline(FunctionTransformer(variances), LogisticRegression())
    model = RejectingClassifier(decoder, reject=0.0).fit(X, y, subjects=who)
    assert np.array_equal(model.predict(X), clone(decoder).fit(X, y).predict(X))
    masked = RejectingClassifier(decoder, reject=0.5, label=None).fit(X[::2], y[::2])
    plain = clone(decoder).fit(X[::2], y[::2])
    assert np.array_equal(masked.predict(X[1::2]), plain.predict(X[1::2]))
    assert 0.2 < masked.accepts(X[1::2]).mean() < 0.8
    assert clone(masked).get_params()["label"] is None


def test_labels_of_rejected_trials_fit_the_classes(people):
    X, y, *_ = people
    decoder = sk_pipeline(FunctionTransformer(variances), LogisticRegression())
    codes = np.unique(y, return_inverse=True)[1]
    with pytest.raises(EEGTensorError, match="label='rejected'"):
        RejectingClassifier(decoder).fit(X, codes)
    said = RejectingClassifier(decoder, reject=0.3, label=-1).fit(X, codes).predict(X)
    assert set(said) == {-1, 0, 1}
    with pytest.raises(EEGTensorError, match="label="):
        RejectingClassifier(decoder, label=str(y[0])).fit(X, y)
    with pytest.raises(EEGTensorError, match="share"):
        RejectingClassifier(decoder, reject=1.0).fit(X, y)
