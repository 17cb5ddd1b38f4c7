"""Scores against closed forms, and on a toy with an unseen class and loud trials."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from sklearn.base import clone
from sklearn.decomposition import PCA, KernelPCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel

from eegtensor._check import EEGTensorError
from eegtensor.trust.scorers import (
    KNN,
    SCORERS,
    CoP,
    CoRP,
    Energy,
    Evidence,
    MaximumProbability,
    NystroemKPCA,
    RiemannianPotato,
    auroc,
    fpr_at_tpr,
    make_scorer,
    over_people,
)


def toy(seed=0, n=150, d=24):
    """Four classes in 24 features; one is left out, and there are loud trials."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    means, mix = 3.0 * basis[:4], basis[4:12]
    # The class left out looks like the first one, with something new beside it.
    means[3] = 0.8 * means[0] + 2.0 * basis[3]

    def draw(k, n):
        h = means[k] + 0.7 * rng.standard_normal((n, 8)) @ mix
        h = h + 0.15 * rng.standard_normal((n, d))
        return h * np.exp(0.4 * rng.standard_normal((n, 1)))

    X = np.concatenate([draw(k, n) for k in range(3)])
    y = np.repeat(np.arange(3), n)
    head = LogisticRegression(max_iter=500).fit(X, y)

    def seen(h):
        return Evidence(logits=head.decision_function(h), features=h)

    test = np.concatenate([draw(k, 100) for k in range(3)])
    return {
        "train": seen(X),
        "y": y,
        "familiar": seen(test),
        "class": seen(draw(3, 300)),
        "loud": seen(test * rng.uniform(8.0, 20.0, (len(test), 1))),
    }


@pytest.fixture(scope="module")
def data():
    return toy()


def both(spec, data, kind):
    scorer = make_scorer(spec).fit(data["train"], data["y"])
    scores = [scorer.score_samples(data[name]) for name in ("familiar", kind)]
    return auroc(*scores), fpr_at_tpr(*scores)


def test_msp_and_energy_are_their_formulas(data):
    z = data["train"].logits
    msp = MaximumProbability().fit(z).score_samples(z)
    assert np.allclose(msp, log_softmax(z, axis=1).max(axis=1), atol=1e-12)
    energy = Energy(temperature=2.0).fit(z).score_samples(z)
    assert np.allclose(energy, 2.0 * logsumexp(z / 2.0, axis=1), atol=1e-12)


def test_energy_of_log_probabilities_is_refused(data):
    z = log_softmax(data["train"].logits, axis=1)
    with pytest.raises(EEGTensorError, match="msp"):
        Energy().fit(z)


def test_knn_is_the_kth_distance(data):
    rows, new = data["train"].features, data["class"].features
    score = KNN(k=3, normalise=False).fit(rows).score_samples(new)
    d = np.sort(np.linalg.norm(new[:, None] - rows[None], axis=2), axis=1)[:, 2]
    assert np.allclose(score, -d, atol=1e-9)
    louder = KNN(k=3).fit(rows).score_samples(7.0 * new)
    assert np.allclose(louder, KNN(k=3).fit(rows).score_samples(new), atol=1e-12)


def test_cop_beats_msp_and_plain_pca_on_an_unseen_class(data):
    """Check of A32."""
    pca = PCA(n_components=0.9).fit(data["train"].features)

    def error(e):
        h = e.features
        return -np.linalg.norm(h - pca.inverse_transform(pca.transform(h)), axis=1)

    plain = fpr_at_tpr(error(data["familiar"]), error(data["class"]))
    _, msp = both("msp", data, "class")
    _, cop = both("cop(norm_weight=0.0)", data, "class")
    assert cop < min(msp, plain), (cop, msp, plain)


def test_cop_explaining_all_rebuilds_all(data):
    h = data["train"].features
    scorer = CoP(explained=1.0, norm_weight=0.0).fit(h)
    assert np.abs(scorer.score_samples(data["class"])).max() < 1e-7


def test_cop_is_the_error_of_pca_on_unit_vectors(data):
    h, new = data["train"].features, data["class"].features
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    v = new / np.linalg.norm(new, axis=1, keepdims=True)
    pca = PCA(n_components=0.9, svd_solver="full").fit(unit)
    error = np.linalg.norm(v - pca.inverse_transform(pca.transform(v)), axis=1)
    score = CoP(norm_weight=0.0).fit(h).score_samples(new)
    assert np.allclose(score, -error, atol=1e-9)


def test_cop_does_not_depend_on_the_order_of_features_nor_their_unit(data):
    h, new = data["train"].features, data["class"].features
    order = np.random.default_rng(0).permutation(h.shape[1])
    plain = CoP().fit(h).score_samples(new)
    turned = CoP().fit(1e-6 * h[:, order]).score_samples(1e-6 * new[:, order])
    assert np.allclose(plain, turned, atol=1e-7)


def test_few_trials_of_many_features_have_the_same_subspace():
    rng = np.random.default_rng(0)
    h = rng.standard_normal((12, 200)) + 2.0
    pca = PCA(n_components=0.9, svd_solver="full")
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    rebuilt = pca.inverse_transform(pca.fit_transform(unit))
    error = np.linalg.norm(unit - rebuilt, axis=1)
    score = CoP(norm_weight=0.0).fit(h).score_samples(h)
    assert np.allclose(score, -error, atol=1e-9)


def test_the_length_catches_loud_trials(data):
    """Finding of A32: artefacts of gain lie in the length that cosines leave out."""
    for name in ("cop", "corp", "kpca"):
        blind, _ = both(f"{name}(norm_weight=0.0)", data, "loud")
        fused, _ = both(name, data, "loud")
        assert fused > 0.95 > blind, name


def test_errors_are_counted_in_those_of_trials_not_fitted(rng):
    """All trials as landmarks rebuild themselves: their own errors are no scale."""
    train, familiar = rng.standard_normal((90, 60)), rng.standard_normal((200, 60))
    for name in ("cop", "corp", "kpca"):
        # The length aside.
        scorer = make_scorer(f"{name}(norm_weight=1e-9)").fit(train)
        new = scorer.score_samples(familiar)
        assert abs(np.median(new)) < 1.0, name
        assert 0.5 < 1.4826 * np.median(np.abs(new - np.median(new))) < 2.0, name


def test_corp_is_near_exact_kernel_pca(data):
    h, new = data["train"].features, data["class"].features
    exact = NystroemKPCA(n_landmarks=10**6, gamma=1.0, norm_weight=0.0).fit(h)
    drawn = CoRP(gamma=1.0, norm_weight=0.0, n_components=8_000).fit(h)
    both = [s.score_samples(new) for s in (exact, drawn)]
    assert np.abs(both[0] - both[1]).max() < 0.05


def exact_error(rows, new, gamma, share):
    """Reconstruction error of kernel PCA in the feature space, by its Gram matrices."""
    n = len(rows)
    K, k = rbf_kernel(rows, gamma=gamma), rbf_kernel(new, rows, gamma=gamma)
    total = KernelPCA(kernel="precomputed", eigen_solver="dense").fit(K)
    held = np.cumsum(total.eigenvalues_) / total.eigenvalues_.sum()
    q = int(np.searchsorted(held, share)) + 1
    part = total.transform(k)[:, :q]
    centred = 1.0 - 2.0 * k.mean(axis=1) + K.sum() / n**2
    return np.sqrt(np.maximum(centred - (part**2).sum(axis=1), 0.0))


def unit_rows(h):
    return h / np.linalg.norm(h, axis=1, keepdims=True)


@pytest.mark.parametrize("gamma", [0.15, 1.5, 5.0])
def test_all_landmarks_are_exact_kernel_pca_on_held_out_trials(data, gamma):
    """Acceptance of section 6 of the additions, to 1e-10."""
    h, new = data["train"].features[::3], data["class"].features
    score = NystroemKPCA(gamma=gamma, norm_weight=0.0).fit(h).score_samples(new)
    error = exact_error(unit_rows(h), unit_rows(new), gamma, 0.9)
    # In squares, which is what both compute: a root halves the digits near zero.
    assert np.abs(score**2 - error**2).max() < 1e-10


def test_the_release_is_exact_on_training_trials_alone(data):
    h, new = data["train"].features[::3], data["class"].features
    scorer = NystroemKPCA(gamma=1.5, norm_weight=0.0, off_span=False).fit(h)
    seen = exact_error(unit_rows(h), unit_rows(h), 1.5, 0.9)
    assert np.abs(scorer.score_samples(h) ** 2 - seen**2).max() < 1e-10
    other = exact_error(unit_rows(h), unit_rows(new), 1.5, 0.9)
    assert np.abs(scorer.score_samples(new) + other).max() > 0.3


def clusters(seed=0):
    rng = np.random.default_rng(seed)
    centres = 3.0 * np.linalg.qr(rng.standard_normal((12, 12)))[0][:4]

    def draw(ks, n):
        return np.concatenate(
            [c + 0.5 * rng.standard_normal((n, 12)) for c in centres[ks]]
        )

    return draw([0, 1, 2], 150), draw([0, 1, 2], 100), draw([3], 200)


@pytest.mark.parametrize(
    ("gamma", "M"), [(0.5, 64), (1.5, 128), (5.0, 450), (5.0, 128)]
)
def test_unseen_cluster_with_and_without_what_is_off_the_span(gamma, M):
    """Toy of section 6: both parts at least .99 whatever the kernel's width."""
    train, familiar, novel = clusters()
    found = {}
    for off in (True, False):
        scorer = NystroemKPCA(
            n_landmarks=M,
            landmarks="random",
            gamma=gamma,
            norm_weight=0.0,
            off_span=off,
        ).fit(train)
        found[off] = auroc(*(scorer.score_samples(x) for x in (familiar, novel)))
    assert found[True] >= 0.99
    if gamma == 5.0:
        assert found[False] < 0.8


def test_landmarks_permuted_or_repeated_give_the_same_scores(data):
    h, new = data["train"].features, data["class"].features
    order = np.random.default_rng(0).permutation(len(h))
    plain = NystroemKPCA(gamma=1.0).fit(h).score_samples(new)
    turned = NystroemKPCA(gamma=1.0).fit(h[order]).score_samples(new)
    assert np.abs(plain - turned).max() < 1e-6
    options = {"n_landmarks": 900, "gamma": 1.0, "norm_weight": 0.0}
    once, twice = (
        NystroemKPCA(**options).fit(rows).score_samples(new)
        for rows in (h, np.concatenate([h, h]))
    )
    assert np.abs(twice - once).max() < 1e-6


def test_a_trial_at_infinity_in_a_new_direction_is_not_familiar(data):
    h = data["train"].features
    h = np.concatenate([h, np.zeros((len(h), 1))], axis=1)
    far = np.zeros((1, h.shape[1]))
    for name in ("cop", "corp", "kpca", "kpca(gamma=5.0)", "kpca(norm_weight=0.0)"):
        scorer = make_scorer(name).fit(h)
        middle = np.median(scorer.score_samples(h))
        for size in (1e2, 1e6, 1e12):
            far[0, -1] = size
            assert scorer.score_samples(far)[0] < middle, (name, size)


def test_landmarks_of_low_energy_are_those(data):
    scorer = NystroemKPCA(n_landmarks=20).fit(data["train"])
    lowest = np.argsort(logsumexp(data["train"].logits, axis=1))[:20]
    expected = unit_rows(data["train"].features)[lowest]
    assert np.allclose(np.sort(scorer.landmarks_, axis=0), np.sort(expected, axis=0))


def test_the_potato_is_pyriemanns_and_takes_trials_or_matrices(rng):
    from pyriemann.artifact_detection import Potato

    from eegtensor.geometry import covariances

    X = 1e-5 * rng.standard_normal((40, 4, 200))
    C = covariances(X)
    expected = -Potato().fit(C).transform(C).ravel()
    assert np.allclose(RiemannianPotato().fit(X).score_samples(X), expected)
    assert np.allclose(RiemannianPotato().fit(C).score_samples(C), expected)
    loud = X * np.where(np.arange(40) < 5, 5.0, 1.0)[:, None, None]
    score = RiemannianPotato().fit(X).score_samples(loud)
    assert score[:5].max() < score[5:].min()


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_every_score_is_a_plain_estimator(name, data):
    scorer = make_scorer(name)
    assert clone(scorer).get_params() == scorer.get_params()
    assert all(
        isinstance(v, (str, int, float, bool, type(None)))
        for v in scorer.get_params().values()
    )
    with pytest.raises(Exception, match="fit"):
        scorer.score_samples(data["train"])


@pytest.mark.parametrize("name", ["msp", "energy", "knn", "cop", "corp", "kpca"])
def test_scores_are_the_same_twice_and_trial_by_trial(name, data):
    one, two = (make_scorer(name).fit(data["train"], data["y"]) for _ in range(2))
    together = one.score_samples(data["class"])
    assert np.array_equal(together, two.score_samples(data["class"]))
    single = one.score_samples(data["class"].pick(np.array([7])))
    assert np.allclose(single, together[7], atol=1e-9)


def test_errors_say_what_to_do(data):
    with pytest.raises(EEGTensorError, match="did you mean 'kpca'"):
        make_scorer("kpcaa")
    with pytest.raises(EEGTensorError, match="no option"):
        make_scorer("knn(neighbours=3)")
    with pytest.raises(EEGTensorError, match="evidence"):
        make_scorer("cop").fit(Evidence(logits=data["train"].logits))
    with pytest.raises(EEGTensorError, match="share"):
        CoP(explained=1.5).fit(data["train"])
    bad = data["train"].features.copy()
    bad[3, 2] = np.nan
    with pytest.raises(EEGTensorError, match="NaN"):
        CoP().fit(bad)


def test_measures_are_those_of_scikit_learn_and_of_the_definition(rng):
    a, b = np.round(rng.normal(1.0, 1.0, 200), 1), np.round(rng.standard_normal(300), 1)
    truth = np.r_[np.ones(200), np.zeros(300)]
    assert auroc(a, b) == pytest.approx(roc_auc_score(truth, np.r_[a, b]), abs=1e-12)
    # The least share of novel trials kept, over thresholds that keep 95 % or more.
    thresholds = [t for t in np.unique(a) if np.mean(a >= t) >= 0.95]
    assert fpr_at_tpr(a, b) == pytest.approx(np.mean(b >= max(thresholds)))
    assert fpr_at_tpr(a, a, tpr=1.0) == 1.0


def test_intervals_draw_people(rng):
    people = np.repeat(np.arange(12), 20)
    shift = rng.standard_normal(12)[people]
    a, b = shift + 1.0 + rng.standard_normal(240), shift + rng.standard_normal(240)
    wide = over_people(auroc, a, b, people=people, novel_people=people, n_resamples=200)
    lonely = np.arange(240)
    narrow = over_people(
        auroc, a, b, people=lonely, novel_people=lonely, n_resamples=200
    )
    assert wide.low < wide.value < wide.high
    assert wide.value == narrow.value == auroc(a, b)
    assert np.isnan(
        over_people(auroc, a, b, people=0 * people, novel_people=0 * people).low
    )
