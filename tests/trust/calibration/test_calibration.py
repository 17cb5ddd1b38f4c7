"""Maps of logits that were bent on purpose, and decoders calibrated on new people."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.isotonic import IsotonicRegression

from eegtensor._check import EEGTensorError, EEGTensorWarning
from eegtensor.benchmark.metrics import expected_calibration_error as ece
from eegtensor.pipeline import Pipeline
from eegtensor.pipelines import make_pipeline
from eegtensor.simulate import simulate_trials
from eegtensor.trust.calibration import (
    AAA,
    MAPS,
    CalibratedDecoder,
    DomainTemperature,
    Isotonic,
    Temperature,
    VectorScaling,
)
from eegtensor.trust.certificates import SmoothedClassifier


def logits(n=4000, K=4, seed=0, factor=3.0):
    """Classes drawn by honest probabilities; the logits given are too sure."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.standard_normal((n, K))
    y = (softmax(z, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return factor * z, y, z


def loss(z, y):
    return -log_softmax(z, axis=1)[np.arange(len(y)), y].mean()


def test_temperature_finds_what_was_done():
    z, y, _ = logits()
    found = Temperature().fit(z, y)
    best = minimize_scalar(lambda t: loss(z / t, y), bounds=(0.1, 20), method="bounded")
    assert found.temperature_ == pytest.approx(best.x, rel=1e-4)
    assert found.temperature_ == pytest.approx(3.0, rel=0.05)
    assert np.allclose(found.transform(z), z / found.temperature_)
    micro = Temperature().fit(1e6 * z, y)
    assert micro.temperature_ == pytest.approx(1e6 * found.temperature_, rel=1e-5)


def test_vector_scaling_finds_factors_and_offsets():
    _, y, honest = logits(20_000)
    factors, offsets = np.array([0.5, 2.0, 1.0, 4.0]), np.array([1.0, -2.0, 0.0, 0.5])
    bent = (honest - offsets) / factors
    found = VectorScaling().fit(bent, y)
    assert np.allclose(found.factors_, factors, rtol=0.12)
    # A common offset means nothing.
    assert np.allclose(
        found.offsets_ - found.offsets_.mean(), offsets - offsets.mean(), atol=0.15
    )
    assert loss(found.transform(bent), y) <= loss(
        Temperature().fit(bent, y).transform(bent), y
    )


def test_isotonic_is_scikit_learns_by_class():
    z, y, _ = logits(2000)
    q = np.exp(Isotonic().fit(z, y).transform(z))
    assert np.allclose(q.sum(axis=1), 1.0)
    p = softmax(z, axis=1)
    own = np.stack(
        [IsotonicRegression().fit_transform(p[:, k], y == k) for k in range(4)], axis=1
    )
    own = np.maximum(own, 1e-3)
    assert np.allclose(q, own / own.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", ["temperature", "vector", "isotonic", "domain"])
def test_maps_mend_the_error_on_other_trials(name):
    z, y, _ = logits(3000, seed=1)
    new, truth, _ = logits(3000, seed=2)
    before = ece(truth, softmax(new, axis=1))
    after = ece(truth, softmax(MAPS[name]().fit(z, y).transform(new), axis=1))
    assert before > 0.2
    assert after < 0.04


def test_temperatures_of_domains_lie_between_their_own_and_the_common():
    z, y, _ = logits(3000)
    domains = np.repeat(["a", "b", "few"], [1490, 1490, 20])
    scaled = z * np.where(domains == "a", 0.5, 1.0)[:, None]
    found = DomainTemperature().fit(scaled, y, domains)
    assert found.temperatures_["a"] == pytest.approx(1.5, rel=0.1)
    assert found.temperatures_["b"] == pytest.approx(3.0, rel=0.1)
    alone = Temperature().fit(scaled[-20:], y[-20:]).temperature_
    common = found.temperature_
    few = found.temperatures_["few"]
    # Twenty trials count as much as what they are drawn to.
    share = np.log(few / common) / np.log(alone / common)
    assert 0.1 < share < 0.9
    out = found.transform(scaled[:2], np.array(["b", "new"]))
    assert np.allclose(out[0], scaled[0] / found.temperatures_["b"])
    assert np.allclose(out[1], scaled[1] / common)


def test_aaa_keeps_every_class():
    """Check of A1: argmax identical on all trials."""
    for K in (3, 4, 10):
        z, y, _ = logits(400, K, seed=K)
        # Ties within rounding, too.
        z[:5, 1] = z[:5, 0] = z[:5].max(axis=1) + 1.0
        z[:5, 1] += 1e-13
        out = AAA().fit(z, y).transform(z)
        assert np.array_equal(out.argmax(axis=1), z.argmax(axis=1))


def margins(z):
    two = np.sort(z, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


@pytest.mark.parametrize("shape", ["linear", "sine"])
def test_aaa_turns_margins_round_within_intervals(shape):
    """Check of A1: negative correlation inside each interval for beta = 0."""
    z, y, _ = logits(2000, factor=1.0)
    found = AAA(shape=shape, beta=0.0, lr=0.02, n_iter=400).fit(z, y)
    before, after = margins(z), margins(found.transform(z))
    place = np.floor(before / found.tau_).astype(int)
    seen = 0
    for k in range(place.max() + 1):
        here = place == k
        if here.sum() > 100:
            middle = here
            if shape == "sine":
                # At the ends of an interval the wave turns back to meet the next.
                share = before / found.tau_ - place
                middle = here & (np.abs(share - 0.5) < 0.2)
            assert np.corrcoef(before[middle], after[middle])[0, 1] < 0
            seen += 1
    assert seen >= 3


def test_the_aim_of_aaa_by_its_formula():
    found = AAA(tau=4.0).fit(*logits(100)[:2])
    m = np.linspace(0.01, 11.9, 57)
    a = (np.round(m / 4.0 + 0.5) - 0.5) * 4.0
    assert np.allclose(found.target(m), a - (m - a))
    sine = AAA("sine", tau=4.0).fit(*logits(100)[:2])
    wave = m - 0.7 * 4.0 * np.sin(np.pi * (1.0 - 2.0 * (m - a) / 4.0))
    assert np.allclose(sine.target(m), np.maximum(wave, 0.0))


def test_aaa_calibrates_three_classes_or_more():
    """Check of A1: the calibration error is no worse."""
    for K in (3, 4, 10):
        z, y, _ = logits(3000, K)
        new, truth, _ = logits(3000, K, seed=5)
        out = AAA().fit(z, y).transform(new)
        assert ece(truth, softmax(out, axis=1)) <= ece(truth, softmax(new, axis=1))


def test_aaa_says_that_two_classes_contradict_each_other():
    z, y, _ = logits(500, 2)
    with pytest.warns(EEGTensorWarning, match="two classes"):
        found = AAA().fit(z, y)
    assert np.array_equal(found.transform(z).argmax(1), z.argmax(1))


def test_aaa_goes_trial_by_trial():
    z, y, _ = logits(200)
    found = AAA().fit(z, y)
    assert np.allclose(found.transform(z)[:3], found.transform(z[:3]), atol=1e-12)


@pytest.fixture(scope="module")
def people():
    t = simulate_trials(
        n_subjects=6, n_sessions=1, n_trials=40, n_classes=3, n_channels=8, snr=1.5
    )
    return t.X, t.y, t.subjects, t.subjects == np.unique(t.subjects)[-1]


@pytest.mark.parametrize("method", sorted(MAPS))
def test_calibrated_decoder(people, method):
    X, y, who, new = people
    # Hardly regularised: too sure of itself.
    decoder = make_pipeline("tangent-space", align="riemann", C=1e4)
    model = CalibratedDecoder(decoder, method).fit(X[~new], y[~new], subjects=who[~new])
    plain = clone(decoder).fit(X[~new], y[~new], subjects=who[~new])
    for each in (model, plain):
        each.adapt(X[new], subjects=who[new])
    names, codes = {"subjects": who[new]}, np.unique(y, return_inverse=True)[1][new]
    p, q = (m.predict_proba(X[new], **names) for m in (model, plain))
    assert np.allclose(p.sum(axis=1), 1.0)
    assert ece(codes, p) < ece(codes, q)
    if method in ("temperature", "domain", "aaa"):
        assert np.array_equal(
            model.predict(X[new], **names), plain.predict(X[new], **names)
        )


def test_calibrated_decoder_in_our_pipeline_and_smoothed(people):
    X, y, who, new = people
    inner = CalibratedDecoder(make_pipeline("mdm", align="riemann"), n_folds=2)
    model = Pipeline([("decoder", inner)]).fit(X[~new], y[~new], subjects=who[~new])
    assert model.can_adapt
    model.adapt(X[new], subjects=who[new])
    assert model.predict(X[new], subjects=who[new]).shape == (40,)
    with pytest.raises(EEGTensorError, match="aaa"):
        SmoothedClassifier(CalibratedDecoder(inner.estimator, "aaa")).fit(X, y)


def test_errors_say_what_to_do():
    z, y, _ = logits(50)
    for args, word in (
        ((z[:, :1], y), "n_classes"),
        ((z, y.astype(float)), "column"),
        ((z, y + 9), "column"),
        ((z, y[:-1]), "entries"),
    ):
        with pytest.raises(EEGTensorError, match=word):
            Temperature().fit(*args)
    with pytest.raises(EEGTensorError, match="columns"):
        Temperature().fit(z, y).transform(z[:, :3])
