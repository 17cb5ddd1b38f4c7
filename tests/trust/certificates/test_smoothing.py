"""Radii against closed forms of linear decoders; attacks against what was certified."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest, laplace, norm
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline as sk_pipeline
from sklearn.preprocessing import FunctionTransformer

from eegtensor._check import EEGTensorError
from eegtensor.simulate import simulate_trials
from eegtensor.trust.certificates import (
    SmoothedClassifier,
    SmoothingNoise,
    Votes,
    certify,
    certify_dual,
    dual_radius,
    filled,
    gaussian_radius,
    halves,
    lower_confidence,
)

ONE = np.ones((1, 1, 1))


def linear(w, b=0.0):
    return lambda X: ((X.reshape(len(X), -1) @ w.ravel() + b) > 0).astype(int)


def test_the_bound_is_clopper_and_pearsons():
    for k, n in ((0, 10), (7, 10), (10, 10), (990, 1000)):
        low = lower_confidence(k, n, 0.05)
        exact = binomtest(k, n, alternative="greater").proportion_ci(0.95, "exact").low
        assert low == pytest.approx(exact, abs=1e-10)


def test_the_bound_holds_as_often_as_it_says():
    n, alpha = 50, 0.05
    for p in (0.3, 0.6, 0.95):
        k = np.arange(n + 1)
        wrong = binom.pmf(k, n, p)[lower_confidence(k, n, alpha) > p].sum()
        assert wrong <= alpha


def test_radius_of_a_linear_decoder():
    """Check of A16: below the distance to the boundary, within 3 % at n = 1e5."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((2, 8))
    x = rng.standard_normal((2, 8))
    x *= 0.6951 * np.linalg.norm(w) / (x * w).sum()
    found = certify(
        linear(w),
        x[None],
        scale=ONE,
        noise=SmoothingNoise("l2", 0.5, 16),
        n_classes=2,
        votes=Votes(100, 100_000, batch_size=20_000),
    )
    assert found.codes[0] == 1
    assert 0.97 * 0.6951 < found.radius[0] <= 0.6951
    power = np.sum((x - x.mean(axis=1, keepdims=True)) ** 2)
    assert found.snr_db[0] == pytest.approx(10 * np.log10(power / found.radius[0] ** 2))
    assert found.linf[0] == pytest.approx(found.radius[0] / 4.0)


def test_a_trial_on_the_boundary_abstains():
    w = np.array([[1.0, -1.0]])
    found = certify(
        linear(w),
        np.zeros((5, 1, 2)),
        scale=ONE,
        noise=SmoothingNoise("l2", 1.0, 2),
        n_classes=2,
        votes=Votes(100, 1000),
    )
    assert found.abstained.all()
    assert not found.radius.any()
    assert found.accuracy(np.ones(5, int)) == 0.0


def test_scale_is_the_unit_of_noise_and_radius():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((3, 5)), rng.standard_normal((1, 3, 5))
    scale = np.array([1e-5, 3e-6, 2e-5])[None, :, None]
    options = {"noise": SmoothingNoise("l2", 0.5, 15), "n_classes": 2}
    options["votes"] = Votes(50, 2000)
    plain = certify(linear(w), x, scale=ONE, **options)
    volts = certify(linear(w / scale[0]), x * scale, scale=scale, **options)
    assert np.array_equal(plain.codes, volts.codes)
    assert np.allclose(plain.radius, volts.radius)
    assert np.allclose(plain.snr_db, volts.snr_db)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_radii_are_wrong_no_more_often_than_alpha(alpha):
    """1000 strongest attacks just inside the radius, binomial test at 1 %.

    Of a linear decoder the smoothed class flips exactly beyond the distance to the
    boundary: the strongest displacement goes straight there.
    """
    rng = np.random.default_rng(0)
    w = rng.standard_normal((1, 10))
    x = rng.standard_normal((1000, 1, 10))
    margin = x.reshape(1000, -1) @ w.ravel() / np.linalg.norm(w)
    found = certify(
        linear(w),
        x,
        scale=ONE,
        noise=SmoothingNoise("l2", 0.5, 10),
        n_classes=2,
        votes=Votes(50, 300, alpha, 300),
    )
    toward = -np.sign(margin)[:, None, None] * w / np.linalg.norm(w)
    moved = x + found.radius[:, None, None] * toward
    flipped = linear(w)(moved) != (margin > 0)
    # The class itself may have been chosen wrong, which the bound counts, too.
    broken = ~found.abstained & (flipped | (found.codes != (margin > 0)))
    test = binomtest(int(broken.sum()), 1000, alpha, alternative="greater")
    assert test.pvalue > 0.01
    # The check can fail: radii a tenth larger break far more often.
    over = x + 1.1 * (found.radius + 0.05)[:, None, None] * toward
    assert ((linear(w)(over) != (margin > 0)) & ~found.abstained).mean() > 2 * alpha


def test_sum_rule_of_two_halves():
    """Counter-example of section 6: margins 3 and 1, flipped at 2.831."""
    p = norm.cdf([3.0, 1.0])
    sound = float(dual_radius(p[0], p[1], 1.0))
    assert sound == pytest.approx(4.0 / np.sqrt(2.0))
    released = np.hypot(*gaussian_radius(p, 1.0))
    assert released == pytest.approx(3.162, abs=1e-3)

    def votes(d_left, d_right):
        return norm.cdf(3.0 - d_left) + norm.cdf(1.0 - d_right)

    angle = np.linspace(0.0, np.pi / 2, 2001)
    circle = np.cos(angle), np.sin(angle)
    assert votes(*(0.999 * sound * c for c in circle)).min() > 1.0
    assert votes(*(1.001 * sound * c for c in circle)).min() < 1.0
    assert votes(*(2.831 * c for c in circle)).min() < 1.0


def test_equal_halves_have_root_two_times_the_radius():
    assert float(dual_radius(0.9, 0.9, 0.5)) == pytest.approx(
        np.sqrt(2.0) * gaussian_radius(0.9, 0.5)
    )
    # One half may be wrong where the other is surer, and votes that all agree or
    # all differ certify nothing on their own.
    assert float(dual_radius(0.99, 0.4, 1.0)) > 0
    assert float(dual_radius(0.0, 0.9, 1.0)) == -np.inf
    assert float(dual_radius(1.0, 0.0, 1.0)) == -np.inf


@pytest.mark.parametrize("split", ["samples", "checkerboard"])
def test_a_half_sees_its_own_values_alone(split, rng):
    masks = halves(3, 9, split)
    assert (masks[0] ^ masks[1]).all()
    x = rng.standard_normal((3, 9))
    for mask in masks:
        other = np.where(mask, x, 1e6)
        assert np.array_equal(filled(x, mask), filled(other, mask))
    slow = np.cos(np.linspace(0.0, 1.0, 200))[None] * np.ones((3, 1))
    for mask in halves(3, 200, split):
        assert np.abs(filled(slow, mask) - slow)[:, 1:-1].max() < 1e-4


def test_dual_radii_hold_against_the_strongest_displacement():
    rng = np.random.default_rng(1)
    masks = halves(1, 12)
    w = rng.standard_normal((2, 1, 12))
    # Linear in the half's values: weights on filled ones go to their neighbours.
    own = [np.zeros((1, 12)) for _ in range(2)]
    for k in range(2):
        for t in range(12):
            unit = np.zeros((1, 12))
            unit[0, t] = 1.0
            own[k][0, t] = (filled(unit, masks[k]) * w[k]).sum()
        assert not own[k][~masks[k]].any()
    bias, sigma, n = (2.0, 0.8), 0.5, 4000
    lengths = [np.linalg.norm(v) for v in own]
    found = certify_dual(
        tuple(linear(w[k], bias[k]) for k in range(2)),
        np.zeros((20, 1, 12)),
        scale=ONE,
        sigma=sigma,
        n_classes=2,
        votes=Votes(100, n, batch_size=n),
    )
    margins = [bias[k] / lengths[k] for k in range(2)]
    true = sum(margins) / np.sqrt(2.0)
    assert (found.codes == 1).all()
    assert (found.radius <= true).all()
    assert (found.radius > 0.85 * true).all()


def test_functional_bound_of_gaussian_noise():
    """Check of 003-30: k = 0 is Phi(Phi^-1(p) - r / sigma)."""
    # A k next to 0 goes by the integrals: never above, and hardly below.
    for d in (10, 50, 10_000):
        noise = SmoothingNoise("l2", 0.5, d, 1e-12)
        for p in (0.6, 0.9, 0.999):
            for r in (0.05, 0.3, 1.0):
                exact = norm.cdf(norm.ppf(p) - r / 0.5)
                assert exact - 1e-4 < noise.lower_bound(p, r) <= exact
                plain = SmoothingNoise("l2", 0.5, d).lower_bound(p, r)
                assert plain == pytest.approx(exact, abs=1e-12)
        assert noise.radius(0.9) == pytest.approx(gaussian_radius(0.9, 0.5), rel=1e-3)


def test_functional_bound_of_laplace_noise():
    """k = 0: 1 - (1 - p) exp(r / b), radius -b log(2 (1 - p)) (Teng et al. 2020)."""
    noise = SmoothingNoise("l1", 0.5, 400)
    for p in (0.7, 0.9, 0.99):
        exact = -0.5 * np.log(2.0 * (1.0 - p))
        assert noise.radius(p) == pytest.approx(exact, rel=1e-3)
        level = 1.0 - (1.0 - p) * np.exp(exact)
        assert level - 1e-4 < noise.lower_bound(p, 0.5 * exact) <= level


@pytest.mark.parametrize("which", ["l2", "l1"])
@pytest.mark.parametrize("k", [0.0, 5.0, 30.0])
def test_bounds_fall_with_the_radius_from_p(which, k):
    noise = SmoothingNoise(which, 0.5, 64, k)
    for p in (0.5, 0.8):
        bounds = [noise.lower_bound(p, r) for r in (0.0, 1e-6, 0.1, 0.3, 0.6, 1.2)]
        assert bounds[0] == p
        assert bounds[1] == pytest.approx(p, abs=1e-4)
        assert (np.diff(bounds) <= 1e-9).all()
    assert noise.radius(0.5) == 0.0


def log_density(z, noise):
    size = {"l1": 1, "l2": 2, "linf": np.inf}[noise.norm]
    own = np.linalg.norm(z, ord=size, axis=-1)
    if noise.norm == "l1":
        return -noise.k * np.log(own) - own / noise.sigma
    square = (z**2).sum(axis=-1) / (2.0 * noise.sigma**2)
    return -noise.k * np.log(own) - square


@pytest.mark.parametrize(
    ("which", "d", "k"), [("l2", 10, 3.0), ("l1", 10, 3.0), ("linf", 10, 3.0)]
)
def test_no_displacement_goes_below_the_bound(which, d, k):
    """The dual at random displacements of the norm, by draws, against the worst one."""
    noise, rng = SmoothingNoise(which, 0.5, d, k), np.random.default_rng(0)
    z = noise.draw(40_000, rng)
    r, p = 0.25, 0.8
    bound = noise.lower_bound(p, r)
    order = {"l1": 1, "l2": 2, "linf": np.inf}[which]
    values = []
    for _ in range(30):
        delta = rng.standard_normal(d) * rng.integers(0, 2, d)
        delta[rng.integers(d)] += 0.1
        delta *= r / np.linalg.norm(delta, ord=order)
        ratio = np.exp(log_density(z - delta, noise) - log_density(z, noise))
        level = np.quantile(ratio, p)
        values.append(level * p - np.maximum(level - ratio, 0.0).mean())
    assert min(values) > bound - 0.006
    worst = np.zeros(d)
    worst[:1] = r
    if which == "linf":
        worst[:] = r
    ratio = np.exp(log_density(z - worst, noise) - log_density(z, noise))
    level = np.quantile(ratio, p)
    at_worst = level * p - np.maximum(level - ratio, 0.0).mean()
    assert at_worst == pytest.approx(bound, abs=0.02 if which == "linf" else 0.006)


@pytest.mark.parametrize("which", ["l1", "l2", "linf"])
def test_draws_follow_their_density(which):
    """Moments against weighted draws of k = 0, in few dimensions."""
    d, k, n = 4, 1.5, 100_000
    rng = np.random.default_rng(0)
    drawn = SmoothingNoise(which, 0.7, d, k).draw(n, rng)
    z = rng.laplace(scale=0.7, size=(n, d)) if which == "l1" else None
    z = 0.7 * rng.standard_normal((n, d)) if z is None else z
    order = {"l1": 1, "l2": 2, "linf": np.inf}[which]
    weight = np.linalg.norm(z, ord=order, axis=1) ** -k
    weight /= weight.sum()
    for f in (
        lambda a: np.abs(a).sum(1),
        lambda a: (a**2).sum(1),
        lambda a: np.abs(a).max(1),
    ):
        assert f(drawn).mean() == pytest.approx(weight @ f(z), rel=0.02)
    assert np.abs(drawn.mean(axis=0)).max() < 0.01


def test_length_of_l2_noise():
    """Verified mean of 003-30: E |z|^2 = (d - k) sigma^2."""
    z = SmoothingNoise("l2", 0.5, 100, 40.0).draw(20_000, np.random.default_rng(0))
    assert (z**2).sum(1).mean() == pytest.approx(60 * 0.25, rel=0.01)
    assert laplace.std(scale=0.5) == pytest.approx(
        SmoothingNoise("l1", 0.5, 50).draw(4000, np.random.default_rng(0)).std(),
        rel=0.02,
    )


@pytest.fixture(scope="module")
def people():
    trials = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=30, n_channels=4, snr=4.0
    )
    return trials.X, trials.y, trials.subjects


def variances(X):
    return np.log(X.var(axis=2))


def decoder():
    return sk_pipeline(FunctionTransformer(variances), LogisticRegression())


@pytest.mark.parametrize(
    "options", [{}, {"split": "samples"}, {"norm": "l1", "k": 50.0}]
)
def test_smoothed_classifier(people, options):
    X, y, _ = people
    model = SmoothedClassifier(decoder(), select=20, estimate=200, **options).fit(X, y)
    said = model.certify(X[:4])
    assert (said.labels[~said.abstained] == model.predict(X[:4])[~said.abstained]).all()
    assert said.accuracy(y[:4]) >= said.accuracy(y[:4], radius=0.3)
    micro = SmoothedClassifier(decoder(), select=20, estimate=200, **options)
    other = micro.fit(1e6 * X, y).certify(1e6 * X[:4])
    assert np.array_equal(other.codes, said.codes)
    assert np.allclose(other.radius, said.radius)
    assert np.allclose(other.snr_db, said.snr_db)


def test_smoothed_pipeline_adapts_and_keeps_its_statistics(people):
    from eegtensor.pipelines import make_pipeline

    X, y, who = people
    new = who == np.unique(who)[-1]
    model = SmoothedClassifier(
        make_pipeline("mdm", align="riemann"), select=10, estimate=60
    )
    model.fit(X[~new], y[~new], subjects=who[~new])
    assert model.can_adapt
    model.adapt(X[new], subjects=who[new])
    before = model.estimator_.steps[1][1].statistics_.copy()
    found = model.certify(X[new][:3], subjects=who[new][:3])
    assert found.codes.shape == (3,)
    assert np.array_equal(before, model.estimator_.steps[1][1].statistics_)
    adapting = make_pipeline("mdm", align="riemann", unseen="adapt")
    with pytest.raises(EEGTensorError, match="unseen='pooled'"):
        SmoothedClassifier(adapting).fit(X, y, subjects=who)


def test_options_are_checked(people):
    X, y, _ = people
    for options, word in (
        ({"sigma": 0.0}, "sigma"),
        ({"split": "samples", "norm": "l1"}, "Gaussian"),
        ({"k": 1e9}, "number of values"),
        ({"alpha": 0.7}, "chance"),
        ({"norm": "l3"}, "choose one of"),
    ):
        with pytest.raises(EEGTensorError, match=word):
            SmoothedClassifier(decoder(), **options).fit(X, y)
