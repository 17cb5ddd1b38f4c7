"""Attacks on covariances: closed forms, invariance, and signals that have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor.geometry import congruence, covariances, distance, logm
from eegtensor.trust.attacks import Riemannian, riemannian
from eegtensor.trust.attacks.views import view_of


@pytest.fixture
def spd():
    return _spd(12, 5)


def _spd(count, n, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(count, n, 2 * n, generator=g, dtype=torch.float64)
    return A @ A.mT / n


def of_logarithm(W):
    """Return a decoder of two classes, linear in log P."""

    def f(P):
        z = (logm(P) * W).flatten(1).sum(1)
        return torch.stack([-z, z], 1)

    return f


def test_at_the_identity_the_worst_is_along_the_weights():
    g = torch.Generator().manual_seed(1)
    W = torch.randn(4, 4, generator=g, dtype=torch.float64)
    W = W + W.mT
    eye = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    y = torch.tensor([0, 1, 0])
    Q = riemannian(of_logarithm(W), eye, y, eps=0.7, n_steps=20)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(logm(Q), 0.7 * sign * W / W.norm())


def test_matrices_stay_spd_and_at_the_distance_that_is_allowed(spd):
    W = torch.diag(torch.tensor([3.0, 1.0, -1.0, -1.0, -2.0], dtype=torch.float64))
    y = torch.zeros(12, dtype=torch.int64)
    for eps in (0.1, 1.0, 5.0):
        Q = riemannian(of_logarithm(W), spd, y, eps=eps, n_steps=30)
        assert torch.linalg.eigvalsh(Q).min() > 0
        assert torch.equal(Q, Q.mT)
        away = distance(spd, Q)
        assert (away <= eps * (1 + 1e-9)).all()
        assert away.median() == pytest.approx(eps, rel=1e-6)
        before, after = (of_logarithm(W)(P)[:, 1] for P in (spd, Q))
        assert (after > before).all()


def test_a_mixing_of_channels_changes_nothing(spd):
    g = torch.Generator().manual_seed(2)
    A = torch.randn(5, 5, generator=g, dtype=torch.float64)
    W = torch.randn(5, 5, generator=g, dtype=torch.float64)
    f = of_logarithm(W + W.mT)
    y = torch.arange(12) % 2
    back = torch.linalg.inv(A)
    plain = riemannian(f, spd, y, eps=0.5, n_steps=8)
    mixed = riemannian(
        lambda P: f(congruence(back, P)), congruence(A, spd), y, eps=0.5, n_steps=8
    )
    torch.testing.assert_close(congruence(back, mixed), plain, rtol=1e-7, atol=1e-9)


def test_bands_share_one_radius():
    P = _spd(12, 3).view(6, 2, 3, 3)
    W = torch.diag(torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))

    def f(P):
        z = (logm(P) * W).flatten(1).sum(1)
        return torch.stack([-z, z], 1)

    Q = riemannian(f, P, torch.zeros(6, dtype=torch.int64), eps=0.4, n_steps=20)
    together = distance(P, Q).square().sum(1).sqrt()
    torch.testing.assert_close(together, torch.full_like(together, 0.4))


def test_signals_are_mixed_so_that_their_covariance_is_at_the_distance(decoders):
    X, y = decoders.test
    for pipeline in (decoders.get("mdm", "riemann"), decoders.tsmnet()):
        found = Riemannian(0.4, n_steps=5).perturb(pipeline, X, y, **decoders.new)
        P, Q = (covariances(x, estimator="scm") for x in (X, found.X))
        np.testing.assert_allclose(distance(P, Q), found.distance, rtol=1e-4)
        assert found.distance.max() <= 0.4 * (1 + 1e-6)
        assert found.distance.mean() == pytest.approx(0.4, rel=1e-3)
        # A mixing and nothing else: the rows span what they spanned.
        _, rest, *_ = np.linalg.lstsq(X[0].T, found.X[0].T, rcond=None)
        assert rest.max() < 1e-6 * (found.X[0] ** 2).sum()
        assert found.budget.norm == "affine-invariant"
        assert found.budget.l2.min() > 0


def test_it_takes_accuracy_away_and_more_of_it_with_a_larger_radius(decoders):
    X, y = decoders.test
    pipeline = decoders.get("tangent-space", "riemann")
    left = [
        Riemannian(eps, n_steps=8).perturb(pipeline, X, y, **decoders.new).accuracy
        for eps in (0.0, 0.2, 0.6)
    ]
    assert left[0] > left[1] > left[2]


def test_rank_deficient_trials_are_attacked_too(decoders):
    X, y = decoders.test
    X = X - X.mean(axis=1, keepdims=True)
    pipeline = decoders.get("tangent-space", "riemann")
    found = Riemannian(0.3, n_steps=3).perturb(pipeline, X, y, **decoders.new)
    assert np.isfinite(found.X).all()
    # What channels cannot have after an average reference, they still have not.
    assert abs(found.X.sum(1)).max() < 1e-3 * X.std()


def test_the_unit_changes_nothing(decoders):
    X, y = decoders.test
    pipeline = decoders.get("mdm", "riemann")
    view = view_of(pipeline, len(X), **decoders.new)
    x = torch.from_numpy(X)
    codes = torch.from_numpy(np.searchsorted(view.classes, y))
    P = covariances(x, estimator="scm")
    last = view.twins[-1]
    rows = torch.arange(len(X))
    f = lambda P: view.last(last(P, rows), rows)  # noqa: E731
    volts = riemannian(f, P, codes, eps=0.3, n_steps=4)
    unit = 2.0**20
    other = riemannian(lambda P: f(P / unit**2), P * unit**2, codes, eps=0.3, n_steps=4)
    torch.testing.assert_close(other / unit**2 / P.std(), volts / P.std())
