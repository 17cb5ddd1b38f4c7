"""Distances and maps of five metrics against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _spd import matrices, spd, symmetric
from pyriemann.geometry import distance as peer_distance
from pyriemann.geometry import geodesic as peer_geodesic
from pyriemann.geometry import tangentspace as peer_maps
from pyriemann.geometry.distance import distance_riemann

from eegtensor import EEGTensorError, geometry
from eegtensor.geometry.metrics import METRICS

PEER = {
    "affine-invariant": "riemann",
    "log-euclidean": "logeuclid",
    "log-cholesky": "logchol",
    "bures-wasserstein": "wasserstein",
    "euclidean": "euclid",
}


@pytest.mark.parametrize("metric", METRICS)
def test_pyriemann_agrees(rng: np.random.Generator, metric: str) -> None:
    A, B, C = spd(rng, 3, 7)
    name = PEER[metric]
    given = {"metric": metric}
    np.testing.assert_allclose(
        geometry.distance(A, B, **given),
        peer_distance.distance(A, B, metric=name),
        rtol=1e-8,
    )
    np.testing.assert_allclose(
        geometry.geodesic(A, B, 0.3, **given),
        peer_geodesic.geodesic(A, B, 0.3, metric=name),
        atol=1e-10,
    )
    V = geometry.log_map(A, B, **given)
    if metric == "affine-invariant":
        peer = peer_maps.log_map_riemann(B, A, C12=True)
    else:
        peer = peer_maps.log_map(B, A, metric=name)
    # The peer's log-Euclidean and log-Cholesky tangent vectors are coordinates.
    if metric in ("affine-invariant", "bures-wasserstein", "euclidean"):
        np.testing.assert_allclose(V, peer, atol=1e-9)
    if metric == "affine-invariant":
        W = geometry.log_map(A, C, **given)
        np.testing.assert_allclose(
            geometry.transport(A, B, W),
            peer_maps.transport(W[None], A, B, metric="riemann")[0],
            atol=1e-9,
        )


def test_transport_of_gaussians_that_commute() -> None:
    """Closed form: entry (j, k) grows with the root of the sum of variances."""
    a = torch.tensor([0.3, 1.0, 5.0, 20.0], dtype=torch.float64)
    b = torch.tensor([4.0, 0.001, 7.0, 0.5], dtype=torch.float64)
    V = symmetric(4, (3,), 0)
    factor = ((b[:, None] + b) / (a[:, None] + a)).sqrt()
    carried = geometry.transport(a.diag(), b.diag(), V, metric="bures-wasserstein")
    torch.testing.assert_close(carried, V * factor, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_transport_is_the_limit_of_a_ladder(metric: str) -> None:
    """Schild's pole ladder knows exponentials and logarithms only."""
    A, B = (matrices("easy", 4, (), seed) for seed in (1, 2))
    V = symmetric(4, (), 3)

    def ladder(n_rungs: int) -> torch.Tensor:
        # A tangent vector of length h, reflected twice in the middle of each rung.
        h = 1e-3
        W, X = h * V, A
        for k in range(n_rungs):
            nexts = geometry.geodesic(A, B, (k + 1) / n_rungs, metric=metric)
            middle = geometry.geodesic(X, nexts, 0.5, metric=metric)
            end = geometry.exp_map(X, W, metric=metric)
            mirrored = -geometry.log_map(middle, end, metric=metric)
            mirrored = geometry.exp_map(middle, mirrored, metric=metric)
            W, X = -geometry.log_map(nexts, mirrored, metric=metric), nexts
        return W / h

    coarse, fine = ladder(8), ladder(16)
    # The error of the ladder falls with the square of the number of rungs.
    limit = fine + (fine - coarse) / 3.0
    exact = geometry.transport(A, B, V, metric=metric)
    assert float((limit - exact).norm() / exact.norm()) < 1e-4
    assert float((geometry.symmetrize(V) - exact).norm() / exact.norm()) > 0.05 or (
        metric == "euclidean"
    )


def test_shapes_broadcast_and_dtypes_widen(rng: np.random.Generator) -> None:
    A, B = spd(rng, 1, 5)[0], spd(rng, 6, 5).reshape(2, 3, 5, 5)
    V = B - B.mean(axis=1, keepdims=True)
    for metric in METRICS:
        one = geometry.distance(A, B, metric=metric)
        assert one.shape == (2, 3) and one.dtype == np.float64
        np.testing.assert_allclose(
            one[1, 2], geometry.distance(A, B[1, 2], metric=metric), rtol=1e-10
        )
        narrow = geometry.distance(A.astype(np.float32), B, metric=metric)
        assert narrow.dtype == np.float64
        np.testing.assert_allclose(narrow, one, rtol=1e-4)
        carried = geometry.transport(A, B, V, metric=metric)
        np.testing.assert_allclose(
            carried[1, 0],
            geometry.transport(A, B[1, 0], V[1, 0], metric=metric),
            rtol=1e-8,
            atol=1e-9,
        )
        many = geometry.transport(A, B[0, 0], V, metric=metric)
        np.testing.assert_allclose(
            many[0, 1],
            geometry.transport(A, B[0, 0], V[0, 1], metric=metric),
            rtol=1e-8,
            atol=1e-9,
        )
        assert geometry.inner(A, V, V[0], metric=metric).shape == (2, 3)


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    X = spd(rng, 3, 4)
    with pytest.raises(EEGTensorError, match="sizes"):
        geometry.distance(X, spd(rng, 3, 5))
    with pytest.raises(EEGTensorError, match="shape"):
        geometry.distance(X[0], np.ones(4))
    with pytest.raises(EEGTensorError, match="metric='riemann'"):
        geometry.exp_map(X, X, metric="riemann")
    with pytest.raises(EEGTensorError, match="Matrices 1 have no positive trace"):
        geometry.distance(X * np.array([1, 0, 1])[:, None, None], X)
    with pytest.raises(EEGTensorError, match="neither an array nor a tensor"):
        geometry.distance(X.tolist(), X.tolist())


def test_affine_distance(rng: np.random.Generator) -> None:
    A, B = spd(rng, 4, 7), spd(rng, 4, 7)
    d = geometry.distance(A, B)
    peer = [distance_riemann(a, b) for a, b in zip(A, B, strict=True)]
    np.testing.assert_allclose(d, peer, rtol=1e-10)
    W = rng.standard_normal((7, 7))
    moved = geometry.distance(geometry.congruence(W, A), geometry.congruence(W, B))
    np.testing.assert_allclose(moved, d, rtol=1e-7)
    inverse = geometry.distance(np.linalg.inv(A), np.linalg.inv(B))
    np.testing.assert_allclose(inverse, d, rtol=1e-7)
    np.testing.assert_allclose(geometry.distance(A, A), 0, atol=1e-6)
