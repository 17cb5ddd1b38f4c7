"""CSP and its filter bank: against pyriemann and MNE, and by what must not matter."""

from __future__ import annotations

import copy
import pickle

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pyriemann.spatialfilters import CSP as PyriemannCSP
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from eegtensor import EEGTensorError
from eegtensor.features._spatial import joint_filters
from eegtensor.features.csp import CSP
from eegtensor.features.fbcsp import FilterBankCSP
from eegtensor.features.select import best_with_partners, mutual_information
from eegtensor.geometry import covariances


def simulate(rng, n_trials=60, n_channels=6, n_times=200, n_classes=2):
    """Sources whose power depends on the class, mixed, in volts."""
    y = np.repeat([f"class{k}" for k in range(n_classes)], n_trials // n_classes)
    power = np.ones((n_classes, n_channels))
    power[np.arange(n_classes), np.arange(n_classes)] = 3.0
    code = np.unique(y, return_inverse=True)[1]
    sources = rng.standard_normal((n_trials, n_channels, n_times))
    sources *= np.sqrt(power[code])[:, :, np.newaxis]
    mixing = rng.standard_normal((n_channels, n_channels))
    order = rng.permutation(n_trials)
    return (1e-5 * mixing @ sources)[order], y[order]


def same_up_to_sign(a, b, rtol=1e-6):
    sign = np.sign((a * b).sum(axis=1, keepdims=True))
    assert_allclose(a * sign, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize(
    "metric", [("euclidean", "euclid"), ("affine-invariant", "riemann")]
)
def test_two_classes_equal_pyriemann(rng, metric):
    X, y = simulate(rng)
    C = covariances(X, estimator="oas")
    ours = CSP(6, metric=metric[0], input="covariances").fit(C, y)
    theirs = PyriemannCSP(6, metric=metric[1], log=True).fit(C, y)
    # pyriemann orders by |mu - 1/2|, we take both ends in turn: match by mu.
    mean = C[y == "class0"].mean(axis=0)
    by_ratio = [np.argsort(((f @ mean) * f).sum(1) / ((f @ C.mean(0)) * f).sum(1))
                for f in (ours.filters_, theirs.filters_)]  # fmt: skip
    same_up_to_sign(ours.filters_[by_ratio[0]], theirs.filters_[by_ratio[1]])
    same_up_to_sign(ours.patterns_[by_ratio[0]], theirs.patterns_[by_ratio[1]])
    assert_allclose(
        ours.transform(C)[:, by_ratio[0]],
        theirs.transform(C)[:, by_ratio[1]],
        rtol=1e-6,
    )


def test_two_classes_equal_mne(rng):
    X, y = simulate(rng)
    ours = CSP(4, estimator="scm").fit(X, y)
    theirs = mne.decoding.CSP(
        4, cov_est="epoch", component_order="alternate", norm_trace=False
    )
    X = X - X.mean(axis=-1, keepdims=True)
    with mne.utils.use_log_level("error"):
        theirs.fit(X, y)
        reference = np.log(((theirs.filters_[:4] @ X) ** 2).mean(axis=-1))
    features = ours.transform(X)
    matched = [
        max(abs(np.corrcoef(f, g)[0, 1]) for g in reference.T) for f in features.T
    ]
    assert_allclose(matched, 1.0, atol=1e-6)


def test_several_classes_equal_pyriemann(rng):
    X, y = simulate(rng, n_trials=90, n_classes=3)
    C = covariances(X, estimator="oas") * 1e10
    ours = CSP(3, input="covariances").fit(C, y)
    theirs = PyriemannCSP(3).fit(C, y)
    same_up_to_sign(ours.filters_, theirs.filters_, rtol=1e-3)
    assert_allclose(ours.transform(C), theirs.transform(C), rtol=1e-3)


def test_components_come_from_both_ends_in_turn(rng):
    X, y = simulate(rng)
    csp = CSP(6, estimator="scm").fit(X, y)
    C = covariances(X, estimator="scm")
    means = [C[y == name].mean(axis=0) for name in csp.classes_]
    W = csp.filters_
    assert_allclose(W @ (means[0] + means[1]) @ W.T, np.eye(6), atol=1e-9)
    assert_allclose(W @ csp.patterns_.T, np.eye(6), atol=1e-9)
    ratio = np.diag(W @ means[0] @ W.T)
    assert_array_equal(np.argsort(-ratio), [0, 2, 4, 5, 3, 1])


def test_joint_filters_are_ordered_by_information(rng):
    X, y = simulate(rng, n_trials=120, n_classes=3)
    few = np.concatenate(
        [np.flatnonzero(y != "class2"), np.flatnonzero(y == "class2")[:9]]
    )
    X, y = X[few], y[few]
    C = covariances(X, estimator="scm")
    W = CSP(6, estimator="scm").fit(X, y).filters_
    shares = np.array([np.mean(y == name) for name in np.unique(y)])
    ratios = [np.diag(W @ C[y == name].mean(axis=0) @ W.T) for name in np.unique(y)]
    assert_allclose(shares @ ratios, 1.0)
    # Grosse-Wentrup and Buss (2008), eq. 24, one class at a time.
    first = sum(p * np.log(np.sqrt(r)) for p, r in zip(shares, ratios, strict=True))
    second = sum(p * (r**2 - 1) for p, r in zip(shares, ratios, strict=True))
    information = -first - 3 / 16 * second**2
    assert (np.diff(information) < 0).all()


def test_joint_filters_mind_the_fourth_order_term(rng):
    mixing = rng.standard_normal((2, 2))
    ratios = np.array([[2.6, 0.3], [0.2, 1.35], [0.2, 1.35]])
    means = np.array([mixing * r @ mixing.T for r in ratios])
    # The first source has the larger log term, the second the larger sum.
    found = joint_filters(means, np.full(3, 1 / 3), 2)
    cosines = found.patterns @ mixing / np.linalg.norm(mixing, axis=0)
    cosines /= np.linalg.norm(found.patterns, axis=1)[:, np.newaxis]
    assert_allclose(np.abs([cosines[0, 1], cosines[1, 0]]), 1.0, rtol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("norm_trace", [False, True])
def test_unit_and_order_of_trials_do_not_matter(rng, n_classes, norm_trace):
    X, y = simulate(rng, n_classes=n_classes)
    features = CSP(norm_trace=norm_trace).fit(X, y).transform(X)
    micro = CSP(norm_trace=norm_trace).fit(1e6 * X, y).transform(1e6 * X)
    assert_allclose(micro, features, rtol=1e-5, atol=1e-6)
    order = rng.permutation(len(X))
    assert_allclose(
        CSP(norm_trace=norm_trace).fit(X[order], y[order]).transform(X),
        features,
        rtol=1e-5,
        atol=1e-6,
    )


def test_norm_trace_forgets_a_trials_gain(rng):
    X, y = simulate(rng)
    gain = np.exp(rng.standard_normal(len(X)))[:, np.newaxis, np.newaxis]
    one = CSP(norm_trace=True).fit(X, y).transform(X)
    other = CSP(norm_trace=True).fit(gain * X, y).transform(gain * X)
    assert_allclose(other, one, rtol=1e-8, atol=1e-8)
    assert_allclose(np.exp(one).sum(axis=1), 1.0)


def test_mixing_and_reference_do_not_matter(rng):
    X, y = simulate(rng)
    plain = CSP(4, estimator="scm")
    features = plain.fit_transform(X, y)
    mixed = rng.standard_normal((6, 6)) @ X
    assert_allclose(plain.fit_transform(mixed, y), features, rtol=1e-6)
    referenced = X - X.mean(axis=1, keepdims=True)
    dropped = plain.fit_transform(referenced[:, :5], y)
    assert_allclose(plain.fit_transform(referenced, y), dropped, rtol=1e-6)


@pytest.mark.parametrize("estimator", ["oas", "lwf", "scm"])
def test_average_reference_leaves_no_filter_of_rounding_noise(rng, estimator):
    X, y = simulate(rng)
    X = (X - X.mean(axis=1, keepdims=True)).astype(np.float32)
    csp = CSP(6, estimator=estimator).fit(X, y)
    assert csp.filters_.shape == (5, 6)
    assert_allclose(csp.filters_.sum(axis=1), 0, atol=1e-3 * np.abs(csp.filters_).max())


def test_weights_are_repetitions(rng):
    X, y = simulate(rng, n_trials=30, n_classes=3)
    weights = rng.integers(1, 4, len(X))
    for model in (CSP(3), CSP(2, multiclass="one-versus-rest")):
        weighted = clone(model).fit(X, y, sample_weight=weights)
        repeated = clone(model).fit(X.repeat(weights, 0), y.repeat(weights))
        assert_allclose(weighted.transform(X), repeated.transform(X), rtol=1e-5)
        assert not np.allclose(
            weighted.transform(X), clone(model).fit_transform(X, y), rtol=1e-4
        )


def test_one_versus_rest_has_filters_for_each_class(rng):
    X, y = simulate(rng, n_trials=90, n_classes=3)
    csp = CSP(2, multiclass="one-versus-rest").fit(X, y)
    alone = CSP(2).fit(X, np.where(y == "class1", "a", "rest"))
    assert csp.filters_.shape == (6, 6)
    assert_allclose(csp.filters_[2:4], alone.filters_)
    shares = np.exp(
        CSP(2, norm_trace=True, multiclass="one-versus-rest").fit_transform(X, y)
    )
    assert_allclose(shares.reshape(-1, 3, 2).sum(axis=2), 1.0)


@pytest.mark.parametrize("model", [CSP(2), FilterBankCSP(2, 2, n_selected=1)])
def test_protocol(rng, tmp_path, model):
    X, y = simulate(rng)
    before = model.get_params()
    subjects = np.repeat("ann", len(X))
    features = clone(model).fit_transform(X, y, subjects=subjects, sessions=subjects)
    fitted = clone(model).fit(X, y)
    assert fitted.get_params() == before
    assert_allclose(fitted.transform(X, subjects=subjects), features)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert_array_equal(other.transform(X), fitted.transform(X))
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert_array_equal(
        clone(model).fit(mapped, y).transform(mapped), fitted.transform(X)
    )


def test_errors_say_what_to_do(rng):
    X, y = simulate(rng)
    with pytest.raises(EEGTensorError, match="needs class labels"):
        CSP().fit(X)
    with pytest.raises(EEGTensorError, match="one class only"):
        CSP().fit(X, np.repeat("left", len(X)))
    with pytest.raises(EEGTensorError, match="continuous targets"):
        CSP().fit(X, rng.standard_normal(len(X)))
    with pytest.raises(EEGTensorError, match="y has 3 entries for 60 trials"):
        CSP().fit(X, y[:3])
    with pytest.raises(EEGTensorError, match="not a stack"):
        CSP(input="covariances").fit(X, y)
    with pytest.raises(EEGTensorError, match="n_components=1 is too small"):
        CSP(1, norm_trace=True).fit(X, y)
    with pytest.raises(EEGTensorError, match="fit saw 6"):
        CSP().fit(X, y).transform(X[:, :4])
    with pytest.raises(EEGTensorError, match="cannot be 4 bands"):
        FilterBankCSP(4).fit(X, y)
    with pytest.raises(EEGTensorError, match="estimator='sample'"):
        FilterBankCSP(2, estimator="sample").fit(X, y)
    X[7] = 1.0
    with pytest.raises(EEGTensorError, match="trials 7"):
        CSP().fit(X, y)


def parzen_information(f, codes):
    """The paper's formula, one kernel at a time."""
    priors = np.bincount(codes) / len(codes)
    joint = np.zeros((len(priors), len(f)))
    for k, prior in enumerate(priors):
        own = f[codes == k]
        h = (4 / (3 * len(own))) ** 0.2 * own.std()
        kernels = np.exp(-((f[:, None] - own) ** 2) / (2 * h**2)) / np.sqrt(2 * np.pi)
        joint[k] = prior * kernels.mean(axis=1) / h
    posterior = joint / joint.sum(axis=0)
    conditional = -(posterior * np.log2(posterior)).sum(axis=0).mean()
    return -(priors * np.log2(priors)).sum() - conditional


@pytest.mark.parametrize("n_classes", [2, 3])
def test_mutual_information_equals_the_direct_formula(rng, n_classes):
    codes = rng.integers(0, n_classes, 150)
    F = rng.standard_normal((150, 5)) + codes[:, np.newaxis] * [0, 0.3, 1, 2, 6]
    direct = [parzen_information(f, codes) for f in F.T]
    found = mutual_information(F, codes)
    assert_allclose(found, direct, atol=2e-3)
    assert_allclose(mutual_information(1e-6 * F + 3e-6, codes), found, atol=1e-6)
    assert_array_equal(mutual_information(np.ones((150, 1)), codes), [0])


def test_mutual_information_takes_weights_as_repetitions(rng):
    codes = np.arange(60) % 2
    F = rng.standard_normal((60, 2)) + codes[:, np.newaxis]
    once = mutual_information(F, codes)
    # Only the kernel width knows the number of trials.
    assert_allclose(mutual_information(F, codes, weights=np.full(60, 3.0)), once)
    half = np.where(np.arange(60) < 30, 1.0, 0.0)
    assert_allclose(
        mutual_information(F, codes, weights=half),
        mutual_information(F[:30], codes[:30]),
        atol=1e-3,
    )


def test_partners_are_kept_together():
    scores = np.array([0.1, 0.2, 0.9, 0.0, 0.3, 0.8])
    partners = np.array([1, 0, 3, 2, 4, 5])
    assert_array_equal(best_with_partners(scores, partners, 2), [2, 3, 5])


def banded(rng, n_trials=80):
    """Three bands of which only the second tells the classes."""
    quiet, y = simulate(rng, n_trials, n_classes=2)
    noise = rng.standard_normal((2, n_trials, 6, 200)) * 1e-5
    return np.concatenate([noise[0], quiet, noise[1]], axis=1), y


def test_the_telling_band_is_selected(rng):
    X, y = banded(rng)
    model = FilterBankCSP(3, 4, n_selected=2).fit(X, y)
    assert set(model.selected_[:, 1]) == {1}
    assert model.selected_[:, 2].tolist() == [0, 1]
    one = FilterBankCSP(3, 4, n_selected=1).fit(X, y)
    assert one.selected_.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert FilterBankCSP(3, 3, n_selected=9).fit(X, y).selected_.shape == (9, 3)
    lone = CSP(4, norm_trace=True).fit(X[:, 6:12], y).transform(X[:, 6:12])
    assert_allclose(model.transform(X), lone[:, :2])


def test_filter_bank_of_all_features_is_csp_side_by_side(rng):
    X, y = banded(rng)
    model = FilterBankCSP(3, 3, select="all").fit(X, y)
    parts = [
        CSP(3, norm_trace=True).fit_transform(X[:, i : i + 6], y) for i in (0, 6, 12)
    ]
    assert_allclose(model.transform(X), np.hstack(parts))


def test_filter_bank_takes_covariances(rng):
    X, y = banded(rng)
    C = covariances(X, estimator="scm")
    bands = np.stack([C[:, i : i + 6, i : i + 6] for i in (0, 6, 12)], axis=1)
    options = {"n_components": 3, "estimator": "scm"}
    wanted = FilterBankCSP(3, **options).fit_transform(X, y)
    for given in (C, bands):
        found = FilterBankCSP(3, input="covariances", **options).fit_transform(given, y)
        assert_allclose(found, wanted, rtol=1e-8)


def test_filter_bank_of_several_classes_selects_for_each(rng):
    X, y = simulate(rng, n_trials=120, n_channels=8, n_classes=4)
    model = FilterBankCSP(2, 4, n_selected=1).fit(X, y)
    assert model.filters_.shape == (4, 2, 4, 4)
    tasks = model.selected_[:, 0]
    assert_array_equal(np.unique(tasks), [0, 1, 2, 3])
    for k, name in enumerate(model.classes_):
        alone = FilterBankCSP(2, 4, n_selected=1)
        alone.fit(X, np.where(y == name, "a class", "the rest"))
        assert_array_equal(model.selected_[tasks == k, 1:], alone.selected_[:, 1:])
        assert_allclose(model.transform(X)[:, tasks == k], alone.transform(X))


def test_filter_bank_weights_reach_filters_and_selection(rng):
    X, y = banded(rng)
    first = (np.arange(80) < 50).astype(float)
    model = FilterBankCSP(3, 2, select="all").fit(X, y, sample_weight=first)
    alone = FilterBankCSP(3, 2, select="all").fit(X[:50], y[:50])
    assert_allclose(model.filters_, alone.filters_, rtol=1e-8)
    assert_allclose(model.information_, alone.information_, atol=1e-3)


def test_decodes_held_out_trials(rng):
    X, y = banded(rng, n_trials=160)
    train = np.arange(160) % 2 == 0
    features = FilterBankCSP(3).fit(X[train], y[train])
    decoder = LinearDiscriminantAnalysis().fit(features.transform(X[train]), y[train])
    assert decoder.score(features.transform(X[~train]), y[~train]) > 0.9


@pytest.mark.parametrize("model", [CSP(norm_trace=True), FilterBankCSP()])
def test_one_channel_has_no_share_of_variance(rng, model):
    """Its share is 1 in every trial: features were all zero, without a word."""
    X = rng.standard_normal((20, 1, 50))
    with pytest.raises(EEGTensorError, match="single channel"):
        model.fit(X, np.resize(["a", "b"], 20))


def test_information_ignores_what_weighs_nothing(rng):
    """A far trial of weight 0 has density 0 there, and 0 / 0 spread."""
    F, codes = rng.standard_normal((41, 1)), np.resize([0, 1], 41)
    F[0], w = 1e6, np.ones(41)
    w[0] = 0
    np.testing.assert_allclose(
        mutual_information(F, codes, weights=w), mutual_information(F[1:], codes[1:])
    )
