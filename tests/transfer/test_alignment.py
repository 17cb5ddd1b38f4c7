"""Per-domain estimators: what they do, adapt to, refuse, and share."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from pyriemann.transfer import TLScale
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from eegtensor import EEGTensorError, geometry
from eegtensor.domains import Domain
from eegtensor.features import Covariances, TangentSpace
from eegtensor.pipeline import Pipeline
from eegtensor.transfer import (
    MDM,
    BalancedRecenter,
    EuclideanAlignment,
    Recenter,
    Rescale,
    Rotate,
    SignalAlignment,
)
from eegtensor.transfer.rotate import _procrustes


def shifted(rng, *, n_people=3, n_trials=30, n=5, shift=1.0, effect=1.6, counts=None):
    """Covariances of people with two classes and a congruence of their own."""
    X, y, subjects, sessions = [], [], [], []
    gain = np.ones(n)
    gain[0] = effect
    for person in range(n_people):
        for session in "ab":
            W = np.eye(n) + shift * 0.4 * rng.standard_normal((n, n))
            labels = np.repeat([0, 1], counts or (n_trials // 2, n_trials // 2))
            S = rng.standard_normal((len(labels), n, 60))
            S[labels == 1] *= gain[:, None]
            X.append(geometry.covariances(W @ S))
            y.append(np.where(labels, "right", "left"))
            subjects += [f"p{person}"] * len(labels)
            sessions += [session] * len(labels)
    return (
        np.concatenate(X),
        np.concatenate(y),
        {"subjects": np.array(subjects), "sessions": np.array(sessions)},
    )


def only(domains, mask):
    return {k: v[mask] for k, v in domains.items()}


ESTIMATORS = [Recenter(), Recenter("log-euclidean"), Rescale(), Rotate()]


def ids(estimator):
    return repr(estimator)


def test_recentred_domains_have_the_identity_as_mean(rng) -> None:
    X, _, domains = shifted(rng)
    Z = Recenter().fit_transform(X, **domains)
    for person in ("p0", "p2"):
        for session in "ab":
            mask = (domains["subjects"] == person) & (domains["sessions"] == session)
            mean = geometry.frechet_mean(Z[mask])
            np.testing.assert_allclose(mean, np.eye(5), atol=1e-7)
    # So the mean of all of them is the identity, and a tangent space may use it.
    np.testing.assert_allclose(geometry.frechet_mean(Z), np.eye(5), atol=1e-7)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)
def test_fit_transform_is_fit_then_transform(rng, estimator) -> None:
    X, y, domains = shifted(rng)
    together = clone(estimator).fit_transform(X, y, **domains)
    apart = clone(estimator).fit(X, y, **domains).transform(X, **domains)
    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)
def test_order_and_names_of_domains_do_not_matter(rng, estimator) -> None:
    X, y, domains = shifted(rng)
    plain = clone(estimator).fit_transform(X, y, **domains)
    order = rng.permutation(len(X))
    renamed = {
        "subjects": np.char.add("z", domains["subjects"][order][::1]),
        "sessions": domains["sessions"][order],
    }
    shuffled = clone(estimator).fit_transform(X[order], y[order], **renamed)
    np.testing.assert_allclose(shuffled, plain[order], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("unit", [1e-12, 1e6])
@pytest.mark.parametrize("estimator", [Recenter(), Recenter("euclidean")], ids=ids)
def test_units_do_not_matter(rng, estimator, unit) -> None:
    X, y, domains = shifted(rng)
    plain = clone(estimator).fit_transform(X, y, **domains)
    other = clone(estimator).fit_transform(unit * X, y, **domains)
    np.testing.assert_allclose(other, plain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)
def test_adapting_equals_fitting_the_domain(rng, estimator) -> None:
    X, y, domains = shifted(rng)
    target = domains["subjects"] == "p2"
    fitted = clone(estimator).fit(X[~target], y[~target], **only(domains, ~target))
    adapted = fitted.adapt(X[target], **only(domains, target))
    Z = adapted.transform(X[target], **only(domains, target))
    if isinstance(estimator, Rotate):
        whole = geometry.distance(Z, Z.mean(0))  # labels differ; only isometry holds
        same = geometry.distance(X[target], X[target].mean(0))
        np.testing.assert_allclose(np.sort(whole).sum(), np.sort(same).sum(), rtol=0.2)
        return
    whole = clone(estimator).fit(X, y, **domains).transform(X, **domains)
    np.testing.assert_allclose(Z, whole[target], rtol=1e-6, atol=1e-9)


def test_unseen_policies(rng) -> None:
    X, _, domains = shifted(rng)
    target = domains["subjects"] == "p2"
    source, new = only(domains, ~target), only(domains, target)
    pooled = Recenter(unseen="pooled").fit(X[~target], **source)
    expected = geometry.congruence(geometry.inv_sqrtm(pooled.pooled_), X[target])
    np.testing.assert_allclose(pooled.transform(X[target], **new), expected)
    adapting = Recenter(unseen="adapt").fit(X[~target], **source)
    Z = adapting.transform(X[target], **new)
    adapted = copy.deepcopy(pooled).adapt(X[target], **new)
    np.testing.assert_allclose(Z, adapted.transform(X[target], **new))
    # predict-time statistics are of the batch alone: nothing is kept.
    assert len(adapting.domains_) == 4
    strict = Recenter(unseen="raise").fit(X[~target], **source)
    with pytest.raises(
        EEGTensorError, match="No statistics for the domains p2/a, p2/b"
    ):
        strict.transform(X[target], **new)
    with pytest.raises(EEGTensorError, match="unseen='guess'"):
        Recenter(unseen="guess").fit(X)


def test_without_domains_the_last_target_is_used(rng) -> None:
    X, _, domains = shifted(rng)
    target = domains["subjects"] == "p2"
    session_b = target & (domains["sessions"] == "b")
    model = Recenter(unseen="raise").fit(X[~target], **only(domains, ~target))
    pooled = geometry.congruence(geometry.inv_sqrtm(model.pooled_), X[target])
    np.testing.assert_allclose(model.transform(X[target]), pooled)
    model.adapt(X[session_b], **only(domains, session_b))
    assert model.last_target_ == Domain("", "p2", "b")
    np.testing.assert_allclose(
        geometry.frechet_mean(model.transform(X[session_b])), np.eye(5), atol=1e-7
    )
    model.adapt(X[target])
    assert model.last_target_ == Domain("", "target", "")


def test_single_trials_are_refused_by_adapt(rng) -> None:
    X, y, domains = shifted(rng)
    model = Recenter().fit(X, y, **domains)
    with pytest.raises(
        EEGTensorError, match="at least 2 trials of a domain; new has 1"
    ):
        model.adapt(X[:1], subjects=["new"])
    with pytest.raises(EEGTensorError, match="target has 1"):
        model.adapt(X[:1])
    greedy = Recenter(unseen="adapt").fit(X, y, **domains)
    with pytest.raises(EEGTensorError, match="unseen='adapt' needs at least 2"):
        greedy.transform(X[:1], subjects=["new"])


def test_streaming_tends_to_the_domain_mean(rng) -> None:
    X, y, domains = shifted(rng, n_trials=200)
    target = (domains["subjects"] == "p2") & (domains["sessions"] == "a")
    order = rng.permutation(np.flatnonzero(target))
    model = Recenter(prior_trials=1.0).fit(
        X[~target], y[~target], **only(domains, ~target)
    )
    mean = geometry.frechet_mean(X[target])
    before = geometry.distance(model.pooled_, mean)
    for i in order:
        model.partial_adapt(X[[i]], subjects=["p2"], sessions=["a"])
    code = model.domains_.encode([Domain("", "p2", "a")])[0]
    after = geometry.distance(model.statistics_[code], mean)
    assert after < 0.1 * before
    assert model.counts_[code] == len(order) + 1
    # The same stream in one call, and a stream that continues a batch.
    once = Recenter(prior_trials=1.0).fit(
        X[~target], y[~target], **only(domains, ~target)
    )
    once.partial_adapt(X[order], subjects="p2", sessions="a")
    np.testing.assert_allclose(once.statistics_[code], model.statistics_[code])


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)
def test_streams_run_for_every_estimator(rng, estimator) -> None:
    X, y, domains = shifted(rng)
    target = domains["subjects"] == "p2"
    model = clone(estimator).fit(X[~target], y[~target], **only(domains, ~target))
    model.partial_adapt(X[target], **only(domains, target))
    Z = model.transform(X[target], **only(domains, target))
    assert np.isfinite(Z).all() and (np.linalg.eigvalsh(Z) > 0).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)
def test_copies_are_independent_and_pickle(rng, estimator) -> None:
    X, y, domains = shifted(rng)
    target = domains["subjects"] == "p2"
    model = clone(estimator).fit(X[~target], y[~target], **only(domains, ~target))
    before = model.transform(X[target], **only(domains, target))
    shallow = copy.copy(model)
    shallow.adapt(X[target], **only(domains, target))
    np.testing.assert_array_equal(
        model.transform(X[target], **only(domains, target)), before
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.transform(X[target], **only(domains, target)), before
    )


def test_rescaled_domains_have_dispersion_one(rng) -> None:
    X, y, domains = shifted(rng)
    Z = Recenter().fit_transform(X, **domains)
    R = Rescale().fit_transform(Z, **domains)
    mask = (domains["subjects"] == "p1") & (domains["sessions"] == "a")
    assert np.isclose((geometry.logm(R[mask]) ** 2).sum((1, 2)).mean(), 1.0)
    peer = TLScale("x", final_dispersion=1.0, centered_data=True)
    labels = np.array([f"d/{v}" for v in y[mask]])
    np.testing.assert_allclose(R[mask], peer.fit_transform(Z[mask], labels), rtol=1e-6)


def test_rotation_is_undone(rng) -> None:
    X, y, domains = shifted(rng, n_people=2, shift=0.0, effect=3.0, n_trials=120)
    Z = Recenter().fit_transform(X, **domains)
    turn = np.linalg.qr(np.eye(5) + 0.25 * rng.standard_normal((5, 5)))[0]
    turn *= np.sign(np.diag(turn))
    target = domains["subjects"] == "p1"
    Z[target] = geometry.congruence(turn, Z[target])

    def apart(matrices):
        """Largest distance between the two people's class means."""
        return max(
            float(
                geometry.distance(
                    geometry.frechet_mean(matrices[target & (y == label)]),
                    geometry.frechet_mean(matrices[~target & (y == label)]),
                )
            )
            for label in ("left", "right")
        )

    labelled = Rotate().fit_transform(Z, y, **domains)
    model = Rotate().fit(Z[~target], y[~target], **only(domains, ~target))
    model.adapt(Z[target], **only(domains, target))
    unlabelled = model.transform(Z, **domains)
    assert apart(Z) > 1.0
    assert apart(labelled) < 0.15
    assert apart(unlabelled) < 0.15


def test_procrustes_finds_a_planted_rotation(rng) -> None:
    S = rng.standard_normal((3, 4, 4))
    S = S + np.swapaxes(S, 1, 2)
    turn = np.linalg.qr(np.eye(4) + 0.2 * rng.standard_normal((4, 4)))[0]
    turn *= np.sign(np.diag(turn))
    found = _procrustes(geometry.congruence(turn, S), S[np.newaxis], n_steps=5000)[0]
    np.testing.assert_allclose(np.abs(found @ turn.T), np.eye(4), atol=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "affine-invariant"])
def test_signal_alignment_whitens_every_domain_and_band(rng, metric) -> None:
    W = np.eye(4) + 0.4 * rng.standard_normal((2, 4, 4))
    X = rng.standard_normal((40, 4, 80))
    subjects = np.repeat(["a", "b"], 20)
    X = 1e-5 * W[(subjects == "b").astype(int)] @ X
    stacked = np.concatenate([X, 3 * X[:, ::-1]], axis=1)
    model = SignalAlignment(metric=metric, n_bands=2)
    Z = model.fit_transform(stacked, subjects=subjects)
    for band in (Z[:, :4], Z[:, 4:]):
        for who in "ab":
            part = band[subjects == who]
            C = part @ np.swapaxes(part, 1, 2) / 80
            mean = C.mean(0) if metric == "euclidean" else geometry.frechet_mean(C)
            np.testing.assert_allclose(mean, np.eye(4), atol=1e-6)
    if metric == "euclidean":
        named = EuclideanAlignment(n_bands=2).fit_transform(stacked, subjects=subjects)
        np.testing.assert_array_equal(named, Z)


def test_singular_domains_are_named(rng) -> None:
    X = rng.standard_normal((6, 5, 60))
    X -= X.mean(axis=1, keepdims=True)
    with pytest.raises(EEGTensorError, match="rank 4 of 5"):
        EuclideanAlignment().fit(X)
    with pytest.raises(EEGTensorError, match=r"rank deficient \(rank 4 of 5.*average"):
        Covariances("scm").fit_transform(X)
    with pytest.raises(EEGTensorError, match="too few samples"):
        Covariances("scm").fit_transform(X[..., :4])
    Recenter().fit(Covariances("oas").fit_transform(X))


def test_mdm_weights_and_bands(rng) -> None:
    X, y, domains = shifted(rng, shift=0.2)
    w = np.where(np.arange(len(X)) % 3 == 0, 2.0, 1.0)
    doubled = np.concatenate([X, X[w == 2]]), np.concatenate([y, y[w == 2]])
    weighted = MDM().fit(X, y, sample_weight=w, **domains)
    np.testing.assert_allclose(weighted.means_, MDM().fit(*doubled).means_, rtol=1e-5)
    # Domains are a warm start and change no result.
    np.testing.assert_allclose(
        MDM().fit(X, y, **domains).means_, MDM().fit(X, y).means_, rtol=1e-6
    )
    both = np.stack([X, 2.0 * X], axis=1)
    banded = MDM().fit(both, y)
    single = MDM().fit(X, y)
    np.testing.assert_allclose(banded.transform(both), single.transform(X), rtol=1e-5)
    p = single.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (single.classes_[p.argmax(1)] == single.predict(X)).all()


def inner() -> Pipeline:
    return Pipeline(
        [
            ("tangent", TangentSpace(reference="identity")),
            ("decoder", LogisticRegression()),
        ]
    )


def balanced_gain(seed: int, effect: float) -> float:
    """Balanced accuracy of balanced minus plain recentring on a 5:1 target."""
    rng = np.random.default_rng(seed)
    X, y, d = shifted(rng, n_people=4, n_trials=60, effect=effect)
    Xt, yt, dt = shifted(rng, n_people=1, effect=effect, counts=(50, 10))
    dt["subjects"] = np.char.add("t", dt["subjects"])
    scores = []
    plain = Pipeline([("align", Recenter()), *inner().steps])
    for model in (BalancedRecenter(inner()), plain):
        model.fit(X, y, **d).adapt(Xt, **dt)
        hit = model.predict(Xt, **dt) == yt
        scores.append(np.mean([hit[yt == c].mean() for c in np.unique(yt)]))
    return scores[0] - scores[1]


def test_balanced_recentring_gains_where_classes_separate() -> None:
    assert np.mean([balanced_gain(seed, effect=2.2) for seed in range(6)]) > 0.01


def test_balanced_recentring_gains_nothing_where_classes_overlap() -> None:
    # Its known limit: wrong pseudo-labels move the mean as often wrong as right.
    gains = [balanced_gain(seed, effect=1.1) for seed in range(6)]
    assert abs(np.mean(gains)) < 0.05


def test_balanced_recentring_with_the_true_share_is_the_weighted_mean(rng) -> None:
    X, y, domains = shifted(rng, n_people=2, counts=(20, 5))
    model = BalancedRecenter(inner()).fit(X, y, **domains)
    mask = (domains["subjects"] == "p1") & (domains["sessions"] == "a")
    weights = np.where(y[mask] == "left", 1 / 20, 1 / 5)
    code = model.recenter_.domains_.encode([Domain("", "p1", "a")])[0]
    np.testing.assert_allclose(
        model.recenter_.statistics_[code],
        geometry.frechet_mean(X[mask], weights=weights),
        rtol=1e-6,
    )


@pytest.mark.parametrize("estimator", [*ESTIMATORS, BalancedRecenter(MDM())], ids=ids)
def test_matrices_of_another_size_are_refused(rng, estimator) -> None:
    X, y, domains = shifted(rng, n_people=2)
    other, _, _ = shifted(rng, n_people=2, n=4)
    model = clone(estimator).fit(X, y, **domains)
    use = getattr(model, "transform", None) or model.predict
    for call in (use, model.adapt, model.partial_adapt):
        with pytest.raises(EEGTensorError, match="X has 4 channels, fit saw 5"):
            call(other)


def test_signals_of_other_channels_are_refused_but_not_other_lengths(rng) -> None:
    X = rng.standard_normal((12, 4, 50))
    model = SignalAlignment().fit(X)
    assert model.transform(X[..., :30]).shape == (12, 4, 30)
    for call in (model.transform, model.adapt, model.partial_adapt):
        with pytest.raises(EEGTensorError, match="X has 3 channels, fit saw 4"):
            call(X[:, :3])


def test_weights_that_leave_a_domain_empty_are_refused(rng) -> None:
    X, y, domains = shifted(rng, n_people=2)
    w = (domains["subjects"] == "p0").astype(float)
    for model in (Recenter(), Rescale()):
        with pytest.raises(EEGTensorError, match="zero for all trials of p1/a, p1/b"):
            model.fit(X, **domains, sample_weight=w)
        with pytest.raises(EEGTensorError, match="negative"):
            model.fit(X, **domains, sample_weight=w - 0.5)
    # Class means need no trial of every person.
    only_p0 = MDM().fit(X, y, **domains, sample_weight=w)
    np.testing.assert_allclose(
        only_p0.means_, MDM().fit(X[w > 0], y[w > 0]).means_, rtol=1e-6
    )


def test_parameters_out_of_range_are_refused(rng) -> None:
    X, _, domains = shifted(rng, n_people=2)
    with pytest.raises(EEGTensorError, match="prior_trials=-1"):
        Recenter(prior_trials=-1).fit(X)
    with pytest.raises(EEGTensorError, match="metric=None"):
        Recenter(metric=None).fit(X)
    for model in (MDM(), BalancedRecenter(MDM())):
        with pytest.raises(EEGTensorError, match="needs class labels"):
            model.fit(X, None)
    with pytest.raises(EEGTensorError, match="continuous"):
        Rotate().fit(X, rng.standard_normal(len(X)), **domains)


def test_a_single_source_trial_is_not_blown_up(rng) -> None:
    """Recentred it is the identity and rounding, which became dispersion one."""
    X, _, domains = shifted(rng, n_people=2)
    lonely = {"subjects": domains["subjects"].copy(), "sessions": domains["sessions"]}
    lonely["subjects"] = np.append(lonely["subjects"][1:], "alone")
    Z = Recenter().fit_transform(X, subjects=lonely["subjects"])
    scaled = Rescale().fit_transform(Z, subjects=lonely["subjects"])
    np.testing.assert_allclose(scaled[-1], np.eye(5), atol=1e-6)


def test_a_class_that_a_domain_lacks_does_not_turn_it(rng) -> None:
    """Held at the reference, it kept the domain from its full turn."""
    tangents = 0.6 * rng.standard_normal((4, 5, 5))
    tangents = tangents + np.swapaxes(tangents, 1, 2)
    centres = geometry.expm(tangents - tangents.mean(axis=0))
    skew = 0.3 * rng.standard_normal((5, 5))
    U = np.linalg.qr(np.eye(5) + skew - skew.T)[0]
    turned = geometry.congruence(U, centres)
    X = np.concatenate([centres, centres, turned[:3]])
    y = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2])
    people = np.repeat(["a", "b", "c"], [4, 4, 3])
    model = Rotate().fit(X, y, subjects=people)
    back = model.transform(turned[:3], subjects=["c"] * 3)
    few = Rotate().fit(X[y < 3], y[y < 3], subjects=people[y < 3])
    np.testing.assert_allclose(
        back, few.transform(turned[:3], subjects=["c"] * 3), atol=1e-6
    )
    # One class alone tells no turn from noise.
    alone = Rotate().fit(X[:9], y[:9], subjects=people[:9])
    assert np.isfinite(alone.statistics_).all()


def test_balanced_recentring_of_a_domain_that_lacks_a_class(rng) -> None:
    X, y, domains = shifted(rng, n_people=2)
    kept = ~((domains["subjects"] == "p0") & (y == "left"))
    model = BalancedRecenter(inner()).fit(X[kept], y[kept], **only(domains, kept))
    assert np.isfinite(model.recenter_.statistics_).all()
    one = domains["subjects"] == "p1"
    model.adapt(X[one & (y == "left")])
    assert set(model.predict(X[one])) <= {"left", "right"}


def test_balanced_recentring_offers_what_its_classifier_does(rng) -> None:
    X, y, domains = shifted(rng, n_people=2)
    svm = Pipeline([("t", TangentSpace(reference="identity")), ("s", SVC())])
    model = BalancedRecenter(svm).fit(X, y, **domains)
    assert not hasattr(model, "predict_proba")
    assert model.decision_function(X, **domains).shape == (len(X),)
    assert hasattr(BalancedRecenter(MDM()).fit(X, y, **domains), "predict_proba")
    with pytest.raises(EEGTensorError, match="gives no probabilities"):
        BalancedRecenter(svm, pseudo_labels="soft").fit(X, y, **domains)


def test_balanced_recentring_of_filter_banks(rng) -> None:
    X, y, domains = shifted(rng, n_people=2)
    bank = np.stack([X, X], axis=1)
    one = BalancedRecenter(MDM()).fit(X, y, **domains).adapt(X[:20])
    two = BalancedRecenter(MDM()).fit(bank, y, **domains).adapt(bank[:20])
    np.testing.assert_array_equal(two.predict(bank), one.predict(X))


@pytest.mark.parametrize("metric", ["log-euclidean", "euclidean"])
def test_streaming_from_nothing_ends_at_the_batch(rng, metric) -> None:
    X, _, _ = shifted(rng, n_people=1)
    stream = Recenter(metric, prior_trials=0.0).fit(X[:10], subjects=["s"] * 10)
    for x in X[10:]:
        stream.partial_adapt(x[np.newaxis], subjects=["t"])
    batch = Recenter(metric).fit(X[:10]).adapt(X[10:], subjects=["t"] * len(X[10:]))
    np.testing.assert_allclose(stream.statistics_[1], batch.statistics_[1], rtol=1e-7)
