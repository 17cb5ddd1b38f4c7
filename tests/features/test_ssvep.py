"""CCA and TRCA for SSVEP: against closed forms, slow formulas and real recordings."""

from __future__ import annotations

import copy
import pickle

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import subspace_angles
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.cross_decomposition import CCA as SklearnCCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

from eegtensor import EEGTensorError
from eegtensor.features._ssvep import filter_bank_weights, softmax_scale
from eegtensor.features.ssvep import (
    CCA,
    CCAFeatures,
    canonical_correlations,
    reference_bases,
    rest_threshold,
)
from eegtensor.features.trca import TRCA, task_related

FREQUENCIES = (13.0, 17.0, 21.0)
SFREQ = 128.0


def flicker(rng, n_trials=48, amplitude=0.7, phase_locked=False, rest=False):
    """Responses at the stimulus and its first harmonic on 4 channels, in volts."""
    names = ["13 Hz", "17 Hz", "21 Hz"] + ["rest"] * rest
    y = np.array(names)[np.arange(n_trials) % len(names)]
    times = np.arange(256) / SFREQ
    X = rng.standard_normal((n_trials, 4, 256))
    for x, name in zip(X, y, strict=True):
        if name == "rest":
            continue
        phase = 0.4 if phase_locked else rng.uniform(0, 2 * np.pi)
        angle = 2 * np.pi * float(name.split()[0]) * times + phase
        wave = np.sin(angle) + 0.5 * np.sin(2 * angle + 1)
        x += amplitude * np.array([1, 0.5, -0.3, 0.1])[:, np.newaxis] * wave
    return 1e-5 * X, y


def waves(frequency, n_harmonics, n_times=256):
    angle = 2 * np.pi * frequency * np.arange(n_times) / SFREQ
    harmonics = np.arange(1, n_harmonics + 1)[:, np.newaxis] * angle
    return np.concatenate([np.sin(harmonics), np.cos(harmonics)]).T


def test_correlations_equal_the_angle_between_subspaces(rng):
    X = flicker(rng, 6)[0][..., :117]
    found = canonical_correlations(X, reference_bases(FREQUENCIES, SFREQ, 2, 117))
    for i, x in enumerate(X):
        for k, frequency in enumerate(FREQUENCIES):
            Y = waves(frequency, 2, 117)
            angles = subspace_angles(
                (x - x.mean(1, keepdims=True)).T, Y - Y.mean(axis=0)
            )
            assert_allclose(found[i, k], np.cos(angles.min()), rtol=1e-9)


def test_correlations_equal_scikit_learn(rng):
    X, _ = flicker(rng, 4)
    found = canonical_correlations(X, reference_bases((13.0,), SFREQ, 2, 256))
    for x, r in zip(X, found[:, 0], strict=True):
        model = SklearnCCA(1, tol=1e-12, max_iter=10000)
        a, b = model.fit_transform(1e5 * x.T, waves(13.0, 2))
        assert_allclose(r, np.corrcoef(a[:, 0], b[:, 0])[0, 1], rtol=1e-5)


def test_dependent_channels_add_nothing(rng):
    X, _ = flicker(rng, 6)
    bases = reference_bases(FREQUENCIES, SFREQ, 3, 256)
    wanted = canonical_correlations(X, bases)
    doubled = np.concatenate([X, X.mean(axis=1, keepdims=True), 0 * X[:, :1]], axis=1)
    for unit in (1.0, 1e-3, 1e6, 1e12):
        found = canonical_correlations(unit * doubled, bases)
        assert_allclose(found, wanted, rtol=1e-9)
    mixed = rng.standard_normal((4, 4)) @ X
    assert_allclose(canonical_correlations(mixed, bases), wanted, rtol=1e-8)
    assert_array_equal(canonical_correlations(0 * X, bases), 0)


def test_harmonics_above_nyquist_are_left_out():
    sizes = [b.shape[1] for b in reference_bases((13.0, 30.0, 50.0), SFREQ, 3, 256)]
    assert sizes == [6, 4, 2]


def test_cca_decodes_any_phase_and_any_unit(rng):
    X, y = flicker(rng)
    model = CCA(FREQUENCIES, SFREQ, 2).fit(X, y)
    assert model.score(X, y, subjects="ann") > 0.9
    micro = CCA(FREQUENCIES, SFREQ, 2).fit(1e6 * X, y)
    assert_array_equal(micro.predict(1e6 * X), model.predict(X))
    assert_allclose(micro.predict_proba(1e6 * X), model.predict_proba(X), rtol=1e-6)
    order = rng.permutation(len(X))
    again = CCA(FREQUENCIES, SFREQ, 2).fit(X[order], y[order])
    assert_allclose(again.predict_proba(X), model.predict_proba(X), rtol=1e-6)
    features = CCAFeatures(FREQUENCIES, SFREQ, 2).fit_transform(X)
    assert_allclose(model.decision_function(X), features)


def test_classes_are_sorted_whatever_the_order_of_frequencies(rng):
    X, y = flicker(rng, rest=True, amplitude=1.0)
    one = CCA((None, *FREQUENCIES), SFREQ, 2).fit(X, y)
    other = CCA((21.0, 0, 13.0, 17.0), SFREQ, 2).fit(X, y)
    assert_array_equal(other.classes_, ["13 Hz", "17 Hz", "21 Hz", "rest"])
    assert_array_equal(other.frequencies_, [13, 17, 21, 0])
    assert_allclose(one.predict_proba(X), other.predict_proba(X))
    codes = {"13 Hz": "c", "17 Hz": "a", "21 Hz": "b", "rest": "d"}
    coded = np.array([codes[name] for name in y])
    named = CCA((13.0, 17.0, 21.0, None), SFREQ, 2, class_names=("c", "a", "b", "d"))
    named.fit(X, coded)
    translated = [codes[name] for name in one.predict(X)]
    assert_array_equal(named.predict(X), translated)


def test_rest_threshold_has_the_best_balanced_accuracy(rng):
    X, y = flicker(rng, 80, amplitude=0.35, rest=True)
    model = CCA((*FREQUENCIES, None), SFREQ, 2).fit(X, y)
    best = CCAFeatures(FREQUENCIES, SFREQ, 2).fit_transform(X).max(axis=1)
    rest = y == "rest"
    grid = np.linspace(best.min(), best.max(), 5001)
    scores = [((best[rest] < t).mean() + (best[~rest] >= t).mean()) / 2 for t in grid]
    cut = model.threshold_
    found = ((best[rest] < cut).mean() + (best[~rest] >= cut).mean()) / 2
    assert found == max(scores)
    assert_array_equal(model.predict(X) == "rest", best < cut)


def test_rest_threshold_never_cuts_between_equal_scores():
    best = np.array([0.1, 0.3, 0.3, 0.3, 0.5])
    rest = np.array([True, True, True, False, False])
    # Cutting above .3 finds all rest, below it all stimulation: 3/4 and 2/3.
    assert rest_threshold(best, rest, None) == 0.4
    assert rest_threshold(best, rest, [1, 0.1, 0.1, 1, 1]) == 0.2


def test_untrained_cca_needs_names_only(rng):
    X, y = flicker(rng)
    names = ("13 Hz", "17 Hz", "21 Hz")
    model = CCA(FREQUENCIES, SFREQ, 2, class_names=names).fit(X)
    trained = CCA(FREQUENCIES, SFREQ, 2).fit(X, y)
    assert_array_equal(model.predict(X), trained.predict(X))
    assert model.scale_ == 1.0


def test_two_classes_have_one_decision_value(rng):
    X, y = flicker(rng)
    keep = y != "21 Hz"
    model = CCA((13.0, 17.0), SFREQ).fit(X[keep], y[keep])
    decision = model.decision_function(X[keep])
    assert decision.shape == (keep.sum(),)
    assert_array_equal(
        model.classes_[(decision > 0).astype(int)], model.predict(X[keep])
    )


def test_filter_bank_cca_weighs_squared_correlations(rng):
    X, y = flicker(rng)
    stacked = np.concatenate([X, rng.standard_normal(X.shape)], axis=1)
    model = CCA(FREQUENCIES, SFREQ, 2, n_bands=2).fit(stacked, y)
    r = CCAFeatures(FREQUENCIES, SFREQ, 2, n_bands=2).fit_transform(stacked)
    a = np.array([1.25, 2**-1.25 + 0.25])
    wanted = (a[0] * r[:, :3] ** 2 + a[1] * r[:, 3:] ** 2) / a.sum()
    assert_allclose(model.decision_function(stacked), wanted)
    assert_allclose(filter_bank_weights(2), a / a.sum())


def test_probability_scale_is_the_most_likely(rng):
    codes = np.arange(12) % 3
    scores = 0.1 * rng.standard_normal((12, 3))
    scores[np.arange(12), codes] += 0.1
    weights = rng.uniform(0.5, 2, 12)
    own = np.bincount(codes, weights)[codes]
    targets = np.tile(1 / (own + 3), (3, 1)).T
    targets[np.arange(12), codes] = (own + 1) / (own + 3)

    def likelihood(scale):
        return (weights[:, None] * targets * log_softmax(scale * scores, axis=1)).sum()

    found = softmax_scale(scores, codes, weights)
    grid = [likelihood(found * factor) for factor in (0.9, 0.99, 1.0, 1.01, 1.1)]
    assert np.argmax(grid) == 2
    separable = np.eye(3)[codes]
    assert softmax_scale(separable, codes, None) < 20


def test_probabilities_are_calibrated_on_new_trials(rng):
    X, y = flicker(rng, 600, amplitude=0.25)
    model = CCA(FREQUENCIES, SFREQ, 2).fit(X[:300], y[:300])
    p = model.predict_proba(X[300:])
    assert_allclose(p.sum(axis=1), 1)
    right = model.predict(X[300:]) == y[300:]
    assert 0.5 < right.mean() < 0.95
    assert abs(p.max(axis=1).mean() - right.mean()) < 0.05


def test_task_related_filters_maximise_the_direct_ratio(rng):
    trials = rng.standard_normal((7, 5, 60)) + rng.standard_normal((5, 60))
    trials -= trials.mean(axis=-1, keepdims=True)
    S = sum(
        a @ b.T
        for i, a in enumerate(trials)
        for j, b in enumerate(trials)
        if i != j
    )  # fmt: skip
    joined = np.concatenate(list(trials), axis=1)
    values, vectors = np.linalg.eig(np.linalg.solve(joined @ joined.T, S))
    order = np.argsort(-values.real)
    found = task_related(trials, 2)
    for w, v in zip(found, vectors[:, order[:2]].real.T, strict=True):
        assert_allclose(abs(w @ v), np.linalg.norm(w) * np.linalg.norm(v), rtol=1e-9)


@pytest.mark.parametrize("ensemble", [True, False])
def test_trca_equals_a_slow_direct_formula(rng, ensemble):
    X, y = flicker(rng, 24, phase_locked=True)
    X = np.concatenate([X, 0.5 * X + 1e-5 * rng.standard_normal(X.shape)], axis=1)
    model = TRCA(1, ensemble, n_bands=2).fit(X, y)
    new, _ = flicker(rng, 6, phase_locked=True)
    new = np.concatenate([new, new], axis=1)
    weights = np.array([1.25, 2**-1.25 + 0.25])
    wanted = np.zeros((6, 3))
    for b in range(2):
        band = slice(4 * b, 4 * b + 4)
        own = [X[y == name, band] - X[y == name, band].mean(-1, keepdims=True)
               for name in model.classes_]  # fmt: skip
        W = np.concatenate([task_related(trials, 1) for trials in own])
        for i, x in enumerate(new[:, band]):
            for k, trials in enumerate(own):
                filters = W if ensemble else W[k : k + 1]
                a, t = filters @ x, filters @ trials.mean(axis=0)
                a = a - a.mean(axis=1, keepdims=True)
                wanted[i, k] += weights[b] * np.corrcoef(a.ravel(), t.ravel())[0, 1]
    assert_allclose(model.decision_function(new), wanted / weights.sum(), rtol=1e-8)


@pytest.mark.parametrize("ensemble", [True, False])
def test_trca_decodes_phase_locked_trials(rng, ensemble):
    X, y = flicker(rng, 60, amplitude=0.3, phase_locked=True)
    model = TRCA(ensemble=ensemble).fit(X[:30], y[:30])
    assert model.score(X[30:], y[30:]) > 0.9
    micro = TRCA(ensemble=ensemble).fit(1e6 * X[:30], y[:30])
    assert_allclose(micro.predict_proba(1e6 * X), model.predict_proba(X), rtol=1e-6)
    order = rng.permutation(30)
    again = TRCA(ensemble=ensemble).fit(X[:30][order], y[:30][order])
    assert_allclose(again.decision_function(X), model.decision_function(X), rtol=1e-7)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e9])
def test_dependent_channels_change_no_trca(rng, unit):
    X, y = flicker(rng, 60, amplitude=0.3, phase_locked=True)
    wanted = TRCA(2).fit(X, y).decision_function(X)
    doubled = unit * np.concatenate([X, X[:, :2] - X[:, 2:]], axis=1)
    found = TRCA(2).fit(doubled, y).decision_function(doubled)
    assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


def test_trca_probabilities_are_calibrated_on_new_trials(rng):
    X, y = flicker(rng, 900, amplitude=0.1, phase_locked=True)
    train, test = slice(300), slice(300, None)
    model = TRCA().fit(X[train], y[train])
    codes = np.searchsorted(model.classes_, y)
    confidence = model.predict_proba(X[test]).max(axis=1).mean()
    assert 0.5 < model.score(X[test], y[test]) < 0.8
    assert abs(confidence - model.score(X[test], y[test])) < 0.06
    # A trial that is part of its own average correlates with it by construction.
    seen = softmax_scale(model._correlations(X[train]), codes[train], None)
    scores = model.decision_function(X[test])
    losses = [
        -log_softmax(scale * scores, axis=1)[np.arange(600), codes[test]].mean()
        for scale in (model.scale_, seen)
    ]
    assert losses[0] < losses[1] - 0.03


@pytest.mark.parametrize(
    "model", [CCA(FREQUENCIES, SFREQ), TRCA(), CCAFeatures(FREQUENCIES, SFREQ)]
)
def test_protocol(rng, tmp_path, model):
    X, y = flicker(rng, phase_locked=True)
    X = X.astype(np.float32)
    people = np.repeat("ann", len(X))
    fitted = clone(model).fit(X, y, subjects=people, sessions=people)
    assert fitted.get_params() == model.get_params()
    method = "transform" if hasattr(model, "transform") else "predict_proba"
    wanted = getattr(fitted, method)(X, subjects=people, sessions=people)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for other in (
        pickle.loads(pickle.dumps(fitted)),
        copy.deepcopy(fitted),
        clone(model).fit(mapped, list(y)),
    ):
        assert_array_equal(getattr(other, method)(mapped), wanted)


def test_one_channel_may_have_two_axes(rng):
    X, y = flicker(rng, amplitude=2.0)
    model = CCA(FREQUENCIES, SFREQ, 2).fit(X[:, 0], y)
    assert model.score(X[:, 0], y) > 0.9


def test_errors_say_what_to_do(rng):
    X, y = flicker(rng)
    with pytest.raises(EEGTensorError, match="frequencies is empty"):
        CCA().fit(X, y)
    with pytest.raises(EEGTensorError, match=r"frequencies 70\.0 with sfreq=128"):
        CCAFeatures((13.0, 70.0), SFREQ).fit(X)
    with pytest.raises(EEGTensorError, match="Which class is 13 Hz"):
        CCA(FREQUENCIES, SFREQ).fit(X, np.char.add("stimulus ", y.astype("<U1")))
    with pytest.raises(EEGTensorError, match="give class_names"):
        CCA(FREQUENCIES, SFREQ, class_names=("a", "b")).fit(X, y)
    with pytest.raises(EEGTensorError, match="2 rest classes"):
        CCA((13.0, None, 0.0), SFREQ).fit(X, y)
    with pytest.raises(EEGTensorError, match="of no rest"):
        CCA((*FREQUENCIES, None), SFREQ, 3, ("13 Hz", "17 Hz", "21 Hz", "r")).fit(X, y)
    with pytest.raises(EEGTensorError, match="CCA needs class labels"):
        CCA(FREQUENCIES, SFREQ).fit(X)
    with pytest.raises(EEGTensorError, match="X has 3 channels, fit saw 4"):
        CCA(FREQUENCIES, SFREQ).fit(X, y).predict(X[:, :3])
    with pytest.raises(EEGTensorError, match="which '13 Hz' have a single trial"):
        TRCA().fit(X[1:6], y[1:6])
    with pytest.raises(EEGTensorError, match="the same window"):
        TRCA().fit(X, y).predict(X[..., :100])
    with pytest.raises(EEGTensorError, match="exceeds the rank 4"):
        TRCA(5).fit(X, y)


@pytest.mark.slow
def test_real_ssvep_of_unseen_people(shared_data):
    """Eight people, left out one by one; .25 is chance, MDM recentred has .768."""
    X, y, person = [], [], []
    names = {1: "rest", 2: "13 Hz", 3: "21 Hz", 4: "17 Hz"}
    for path in sorted((shared_data / "ssvep_exo").glob("*/*/*_raw.fif")):
        raw = mne.io.read_raw(path, preload=True, verbose="error")
        events = mne.read_events(str(path).replace("_raw.fif", "-eve.fif"))
        bands = []
        for low in (12, 25, 38):
            high = 60 if low == 38 else 45
            iir = {"order": 4, "ftype": "butter"}
            filtered = raw.copy().filter(
                low, high, picks="all", method="iir", iir_params=iir, verbose="error"
            )
            starts = events[:, 0] - raw.first_samp + 256
            data = filtered.get_data(picks=range(8))
            bands.append(np.stack([data[:, s : s + 1024] for s in starts]))
        X.append(np.concatenate(bands, axis=1))
        y += [names[code] for code in events[:, 2]]
        person += [path.parts[-3]] * len(events)
    X, y, person = np.concatenate(X), np.array(y), np.array(person)
    scores, by_features = [], []
    features = CCAFeatures(FREQUENCIES, 256.0, 2, n_bands=3).fit_transform(X)
    for left in np.unique(person):
        test = person == left
        model = CCA((*FREQUENCIES, None), 256.0, 2, n_bands=3).fit(X[~test], y[~test])
        scores.append(balanced_accuracy_score(y[test], model.predict(X[test])))
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        lda.fit(features[~test], y[~test])
        predicted = lda.predict(features[test])
        by_features.append(balanced_accuracy_score(y[test], predicted))
    assert np.mean(scores) > 0.77
    assert np.mean(by_features) > 0.77


def test_windows_too_short_for_their_channels_are_refused(rng):
    """Subspaces met by dimension alone: every correlation was 1."""
    with pytest.raises(EEGTensorError, match="28 samples are too few"):
        CCAFeatures((8.0, 12.0), 64.0).fit_transform(rng.standard_normal((5, 28, 28)))
