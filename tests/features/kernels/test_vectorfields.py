"""Vector fields on a sphere: a rotation, vortices, gauges, and the exact process."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator
from scipy.optimize import check_grad

from eegtensor import EEGTensorError
from eegtensor.features.kernels import VectorFieldGP
from eegtensor.features.kernels._connection import (
    connection_laplacian,
    smooth_fields,
    tangent_frames,
)

W = np.array([0.3, -0.5, 0.8])


def sphere(n=200):
    i = np.arange(n) + 0.5
    z, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)


def with_gaps(V, share, seed):
    known = np.zeros(len(V), dtype=bool)
    known[np.random.default_rng(seed).permutation(len(V))[: int(share * len(V))]] = True
    return np.where(known[:, None], V, np.nan), known


def relative(F, V, gone):
    return np.linalg.norm(F[gone] - V[gone]) / np.linalg.norm(V[gone])


def east_north(X):
    east = np.cross([0.0, 0.0, 1.0], X)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    return np.stack([east, np.cross(X, east)], axis=2)


def test_a_rotation_from_a_fifth_of_the_nodes():
    X = sphere()
    V = np.cross(W, X)
    ours, splines = [], []
    for seed in range(5):
        gappy, known = with_gaps(V, 0.2, seed)
        ours.append(relative(VectorFieldGP().fit(X, gappy).predict(), V, ~known))
        # Channel by channel: components to the east and north.
        E = east_north(X)
        parts = np.einsum("nij,ni->nj", E, V)
        filled = RBFInterpolator(X[known], parts[known])(X)
        splines.append(relative(np.einsum("nij,nj->ni", E, filled), V, ~known))
    assert np.mean(ours) < 0.05 and np.mean(ours) < 0.3 * np.mean(splines), (
        ours,
        splines,
    )


def test_wide_vortices_of_several_moments():
    X, rng = sphere(), np.random.default_rng(0)
    V = []
    for _ in range(6):
        poles = rng.standard_normal((3, 3))
        poles /= np.linalg.norm(poles, axis=1, keepdims=True)
        V.append(
            sum(np.exp(-(1 - X @ p) / 0.5)[:, None] * np.cross(p, X) for p in poles)
        )
    V = np.stack(V)
    known = with_gaps(V[0], 0.4, 0)[1]
    model = VectorFieldGP().fit(X, np.where(known[:, None], V, np.nan))
    assert model.field_.shape == V.shape
    error = np.linalg.norm((model.field_ - V)[:, ~known]) / np.linalg.norm(V[:, ~known])
    assert error < 0.15, error
    # What comes out lies in the surface.
    assert np.abs((model.field_ * X).sum(axis=2)).max() < 0.1 * np.abs(V).max()
    assert model.std_[~known].mean() > model.std_[known].mean()


def test_the_kernel_is_positive_and_the_process_exact():
    X = sphere(60)
    V = np.cross(W, X) + 0.1 * np.random.default_rng(0).standard_normal(X.shape)
    gappy, known = with_gaps(V, 0.4, 0)
    model = VectorFieldGP(optimize=False, noise=0.05).fit(X, gappy)
    K = model.kernel_
    values = np.linalg.eigvalsh(K)
    assert values.min() > -1e-10 and np.allclose(K, K.T)
    T = model.fields_.frames
    # Two coordinates of each node, and the usual formulas of a Gaussian process.
    J = np.zeros((60, 2, 60, 3))
    J[np.arange(60), :, np.arange(60)] = T.transpose(0, 2, 1)
    J = J.reshape(120, 180)
    seen = np.repeat(known, 2)
    k = (J @ K @ J.T)[:, seen]
    y = np.einsum("nij,ni->nj", T, V)[known].ravel()
    inverse = np.linalg.inv(k[seen] + 0.05 * np.eye(seen.sum()))
    scale = np.sqrt(np.mean(V[known] ** 2))
    want = (J.T @ (k @ inverse @ y)).reshape(60, 3)
    np.testing.assert_allclose(model.field_, want, atol=1e-8)
    left = J @ K @ J.T - k @ inverse @ k.T
    std = scale * np.sqrt(np.diag(left).reshape(60, 2).mean(axis=1))
    np.testing.assert_allclose(model.std_, std, rtol=1e-6)
    # sigma^2 is the mean variance: of coordinates, over nodes.
    assert np.trace(K) / 60 == pytest.approx(1.0, rel=1e-6)


def test_no_choice_of_axes_matters():
    X = sphere(80)
    V = np.cross(W, X)
    gappy, _ = with_gaps(V, 0.3, 0)
    frames, rng = tangent_frames(X, 15), np.random.default_rng(1)
    plain = VectorFieldGP(optimize=False).fit(X, gappy, frames=frames)
    turn = np.linalg.qr(rng.standard_normal((80, 2, 2)))[0]
    turn[:, :, 0] *= rng.choice([-1, 1], (80, 1))
    other = VectorFieldGP(optimize=False).fit(X, gappy, frames=frames @ turn)
    np.testing.assert_allclose(other.field_, plain.field_, atol=1e-8)
    np.testing.assert_allclose(other.std_, plain.std_, atol=1e-8)
    # Nor the head's place and size, nor the arrows' unit.
    Q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    moved = VectorFieldGP(optimize=False).fit(
        85.0 * X @ Q.T + 3.0, 1e-6 * gappy @ Q.T, frames=Q @ frames
    )
    np.testing.assert_allclose(1e6 * moved.field_ @ Q, plain.field_, atol=1e-6)


def test_the_laplacian_is_one_of_vectors():
    X = sphere(50)
    F = tangent_frames(X, 8)
    normal = np.cross(F[:, :, 0], F[:, :, 1])
    assert np.abs((normal * X).sum(axis=1)).min() > 0.95
    A = np.exp(-((X[:, None] - X) ** 2).sum(axis=2))
    np.fill_diagonal(A, 0)
    L = connection_laplacian(F, A)
    assert np.allclose(L, L.T) and np.linalg.eigvalsh(L).min() > 0
    v = np.random.default_rng(0).standard_normal((50, 2))
    R = np.empty((50, 50, 2, 2))
    for i in range(50):
        for j in range(50):
            U, _, Wt = np.linalg.svd(F[i].T @ F[j])
            R[i, j] = U @ Wt
    want = sum(
        A[i, j] * np.sum((v[i] - R[i, j] @ v[j]) ** 2)
        for i in range(50)
        for j in range(50)
    )
    assert v.ravel() @ L @ v.ravel() == pytest.approx(want / 2)
    # On a plane, transport does nothing: the graph Laplacian, twice.
    flat = np.tile(np.eye(3)[:, :2], (50, 1, 1))
    plain = np.diag(A.sum(axis=1)) - A
    np.testing.assert_allclose(
        connection_laplacian(flat, A), np.kron(plain, np.eye(2)), atol=1e-12
    )


def test_the_search_follows_its_slope_and_noise_is_used():
    X = sphere(60)
    gappy, _ = with_gaps(np.cross(W, X), 0.5, 0)
    model = VectorFieldGP(optimize=False).fit(X, gappy)
    rng = np.random.default_rng(0)
    P, Y = rng.standard_normal((30, 50)), rng.standard_normal((30, 3))
    for theta in ([0.2, 1.1, -0.4], [1.0, -1.0, 0.5]):
        slope = model._evidence(np.array(theta), P, Y)[1]
        error = check_grad(
            lambda t: model._evidence(t, P, Y)[0],
            lambda t: model._evidence(t, P, Y)[1],
            np.array(theta),
        )
        assert error < 1e-4 * np.linalg.norm(slope)
    S = model._spectrum(np.log([1.5, 5.0, 1.0]))[0]
    N = (P * S) @ P.T + 1e-3 * np.eye(30)
    want = 0.5 * (np.linalg.slogdet(N)[1] + np.trace(Y.T @ np.linalg.solve(N, Y)) / 3)
    got = model._evidence(np.log([1.5, 5.0, 1.0]), P, Y)[0]
    assert got == pytest.approx(want)
    loud = VectorFieldGP(optimize=False, noise=100.0).fit(X, gappy)
    assert np.abs(loud.field_).mean() < 0.7 * np.abs(model.field_).mean()
    best = VectorFieldGP().fit(X, gappy)
    assert best.kappa_ != 5.0


def test_refusals_and_binary_edges():
    X = sphere(40)
    V = np.cross(W, X)
    with pytest.raises(EEGTensorError, match="nodes are known"):
        VectorFieldGP().fit(X, np.full_like(V, np.nan))
    with pytest.raises(EEGTensorError, match="positions"):
        VectorFieldGP().fit(X[:, :2], V)
    binary = smooth_fields(X, weights="binary")
    assert binary.fields.shape == (40, 3, 50)
    np.testing.assert_allclose(np.mean((binary.fields**2).sum(axis=1)), 1.0)
