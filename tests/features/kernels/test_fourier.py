"""Random features: unbiased, less variance, and what a biased rotation would do."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from eegtensor import EEGTensorError
from eegtensor.features.kernels import (
    AsymmetricFourierFeatures,
    IndefiniteFourierFeatures,
)
from eegtensor.features.kernels._spectra import directions, shifted_gaussian

X = np.random.default_rng(0).standard_normal((7, 5))
DRAWS = 400


def drawn(make, product):
    """Kernels of many draws, shape (draws, n, n), and the exact one."""
    found = []
    for seed in range(DRAWS):
        features = make(seed).fit(X)
        found.append(product(features))
    return np.stack(found), features.kernel(X, X)


@cache
def indefinite_draws(coefficients, widths, orthogonal):
    return drawn(
        lambda seed: IndefiniteFourierFeatures(
            coefficients,
            widths,
            n_components=5,
            orthogonal=orthogonal,
            random_state=seed,
        ),
        indefinite,
    )


def asymmetric(features):
    return features.transform(X) @ features.transform_target(X).T


def indefinite(features):
    Z = features.transform(X)
    return (Z * features.signs_) @ Z.T


def within(K, exact, errors=3.0):
    """Means over draws within standard errors, as a share of pairs that differ."""
    away = ~np.eye(len(X), dtype=bool)
    gap = np.abs(K.mean(axis=0) - exact)[away]
    standard = K.std(axis=0, ddof=1)[away] / np.sqrt(len(K))
    return (gap <= errors * standard + 1e-9).mean()


@pytest.mark.parametrize(
    "features",
    [AsymmetricFourierFeatures(), IndefiniteFourierFeatures()],
    ids=lambda f: type(f).__name__,
)
def test_scikit_learn_checks(features):
    results = check_estimator(features, on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert not failed and len(results) > 30, failed


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.5])
def test_asymmetric_features_are_unbiased(shift):
    K, exact = drawn(
        lambda seed: AsymmetricFourierFeatures(
            shift, n_components=5, random_state=seed
        ),
        asymmetric,
    )
    assert np.abs(exact - exact.T).max() > 0.1
    assert within(K, exact) == 1.0
    # What exchanging source and target does is far outside.
    assert within(K, exact.T) < 0.3
    np.testing.assert_allclose(exact[0, 0], np.exp(-0.5 * shift**2))


def test_without_shift_it_is_the_gaussian_kernel():
    features = AsymmetricFourierFeatures(0.0, n_components=30).fit(X)
    assert len(features.parts_) == 1 and features.parts_[0].mass == pytest.approx(1)
    np.testing.assert_allclose(np.diag(asymmetric(features)), 1.0)


def test_masses_by_their_series():
    """|cos| and |sin| of a Gaussian phase as Fourier series."""
    s, m = 1.7, np.arange(1, 400)
    shift = np.array([0.0, s, 0.0])
    parts = shifted_gaussian(3, shift, 1.0, np.random.default_rng(0))
    even = np.exp(-2 * m**2 * s**2)
    absolute = 2 / np.pi * (1 - 2 * np.sum((-1.0) ** m * even / (4 * m**2 - 1)))
    mean = np.exp(-0.5 * s**2)
    sine = 2 / np.pi * (1 - 2 * np.sum(even / (4 * m**2 - 1)))
    wanted = {
        (False, 1.0): (absolute + mean) / 2,
        (False, -1.0): (absolute - mean) / 2,
        (True, 1.0): sine / 2,
        (True, -1.0): sine / 2,
    }
    for part in parts:
        assert part.mass == pytest.approx(wanted[part.odd, part.sign], abs=1e-6)


def test_fitted_masses_come_near_the_known_ones():
    data = np.random.default_rng(3).standard_normal((200, 4))
    known = AsymmetricFourierFeatures(1.0, n_components=400).fit(data)
    fitted = AsymmetricFourierFeatures(1.0, n_components=400, masses="fitted")
    fitted.fit(data)
    for a, b in zip(known.parts_, fitted.parts_, strict=True):
        assert b.mass == pytest.approx(a.mass, abs=0.05)

    def error(features):
        K = features.transform(data) @ features.transform_target(data).T
        return np.abs(K - features.kernel(data, data)).mean()

    assert error(fitted) <= error(known)


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("widths", [(1.0, 3.0), (2.0, 0.5)])
def test_indefinite_features_are_unbiased(orthogonal, widths):
    K, exact = indefinite_draws((1.0, 0.8), widths, orthogonal)
    assert within(K, exact) == 1.0
    # The diagonal is exact: c1 - c2.
    np.testing.assert_allclose(K[:, 0, 0], 0.2, atol=1e-6)


def test_the_kernel_is_indefinite_and_signs_say_so():
    features = IndefiniteFourierFeatures((1.0, 0.9), n_components=200).fit(X)
    exact = features.kernel(X, X)
    assert np.linalg.eigvalsh(exact).min() < -1e-3
    assert set(features.signs_) == {-1.0, 1.0}


def test_orthogonal_directions_have_less_variance():
    for widths in ((1.0, 3.0), (2.0, 0.5)):
        one, two = (
            indefinite_draws((1.0, 0.8), widths, orthogonal)[0].var(axis=0).sum()
            for orthogonal in (True, False)
        )
        assert one < 0.9 * two, (one, two)
    # One Gaussian, for which the theorem is: orthogonal random features.
    one, two = (
        indefinite_draws((1.0, 0.0), (1.0, 3.0), orthogonal)[0].var(axis=0).sum()
        for orthogonal in (True, False)
    )
    assert one < 0.8 * two, (one, two)


def test_blocks_are_orthogonal_and_haar():
    rng = np.random.default_rng(0)
    W = directions(10, 5, rng, orthogonal=True)
    np.testing.assert_allclose(W[:5] @ W[:5].T, np.eye(5), atol=1e-12)
    first = np.stack([directions(3, 3, rng, orthogonal=True) for _ in range(1500)])
    assert np.abs(first.mean(axis=0)).max() < 4 * np.sqrt(1 / 3 / 1500)
    # Q of a plain QR is not: its diagonal has a mean.
    Q = np.stack([np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(1500)])
    assert np.abs(Q.mean(axis=0)).max() > 0.2


@pytest.mark.parametrize(
    "features", [AsymmetricFourierFeatures(), IndefiniteFourierFeatures()]
)
def test_the_unit_does_not_matter(features):
    plain = features.fit(X).transform(X)
    np.testing.assert_allclose(features.fit(1e-6 * X).transform(1e-6 * X), plain)


def test_what_does_not_fit_is_refused():
    with pytest.raises(EEGTensorError, match="direction"):
        AsymmetricFourierFeatures(direction=(1.0, 0.0)).fit(X)
    with pytest.raises(EEGTensorError, match="coefficients"):
        IndefiniteFourierFeatures((0.0, 0.0)).fit(X)
    with pytest.raises(EEGTensorError, match="masses"):
        AsymmetricFourierFeatures(masses="guessed").fit(X)
