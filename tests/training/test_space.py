"""Every manifold keeps the same laws; closed forms and geoopt are the referees."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import ParamSpace, register_adapter
from eegtensor.training.adapters import _ADAPTERS, SPD, Euclidean, Stiefel, adapter_of

KINDS = ["euclidean", "stiefel", "stiefel-square", "spd"]
ADAPTERS = {"euclidean": Euclidean(), "stiefel": Stiefel(), "spd": SPD()}
# dimension of one matrix of the leaf
DIMENSION = {"euclidean": 21, "stiefel": 15, "stiefel-square": 3, "spd": 10}


def point(kind, seed, *, near=None, dtype=torch.float64, device="cpu"):
    """Two matrices on the manifold; `near` another one, or anywhere."""
    g = torch.Generator().manual_seed(seed)
    if kind == "euclidean":
        return torch.randn(2, 7, 3, generator=g, dtype=torch.float64).to(device, dtype)
    if kind == "spd":
        a = torch.randn(2, 4, 6, generator=g, dtype=torch.float64)
        return (a @ a.mT / 6).to(device, dtype)
    rows = 3 if kind == "stiefel-square" else 7
    a = torch.randn(2, rows, 3, generator=g, dtype=torch.float64)
    if near is not None:
        a = near.cpu().double() + 0.25 * a
    u, _, vh = torch.linalg.svd(a, full_matrices=False)
    return (u @ vh).to(device, dtype)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def adapter(kind):
    return ADAPTERS[kind.split("-")[0]]


@pytest.fixture(params=[torch.float64, torch.float32], ids=["f64", "f32"])
def dtype(request):
    return request.param


def tolerance(dtype, double=1e-12, single=2e-6):
    return double if dtype == torch.float64 else single


def relative(a, b):
    return float((a - b).norm() / b.norm())


def tangent(adapter, p, seed=0):
    # Never the numbers of `point`: a multiple of p has no tangent part.
    g = torch.Generator(p.device).manual_seed(1000 + seed)
    return adapter.random_tangent(p, g)


def off_manifold(kind, p):
    if kind == "euclidean":
        return 0.0
    if kind == "spd":
        assert torch.linalg.eigvalsh(p.double()).min() > 0
        return float((p - p.mT).abs().max())
    return float((p.mT @ p - torch.eye(p.shape[-1]).to(p)).abs().max())


def test_retraction_starts_at_the_point(kind, adapter, dtype, device):
    p = point(kind, 0, dtype=dtype, device=device)
    moved = adapter.retract(p, torch.zeros_like(p))
    assert relative(moved, p) < tolerance(dtype, 1e-14, 1e-6)


def test_retraction_is_of_second_order(kind, adapter):
    p = point(kind, 0)
    u = tangent(adapter, p)

    def error(t):
        return float((adapter.retract(p, t * u) - exact(kind, p, t * u)).norm())

    # A first-order retraction would gain 100, of second order 1000.
    assert error(1e-3) < 1e-9 or error(1e-2) / error(1e-3) > 900


def exact(kind, p, u):
    if kind == "euclidean":
        return p + u
    if kind == "spd":
        inverse = torch.linalg.inv(p)
        return torch.stack(
            [
                torch.from_numpy(scipy.linalg.expm((b @ c).numpy())) @ a
                for a, b, c in zip(p, u, inverse, strict=True)
            ]
        )
    return geoopt.EuclideanStiefel().expmap(p, u)


def test_points_stay_on_the_manifold(kind, adapter, dtype, device):
    p = point(kind, 0, dtype=dtype, device=device)
    for seed in range(50):
        p = adapter.retract(p, 0.3 * tangent(adapter, p, seed))
    assert off_manifold(kind, p) < tolerance(dtype, 1e-14, 3e-7)


def test_log_inverts_the_retraction(kind, adapter, dtype, device):
    p = point(kind, 0, dtype=dtype, device=device)
    for size in (1e-3, 0.2):
        u = size * tangent(adapter, p)
        back = adapter.log(p, adapter.retract(p, u))
        # Rounding of the point shows in a small tangent.
        assert relative(back, u) < tolerance(dtype, 1e-11, 2e-6) * max(1, 1 / size)


def test_the_retraction_inverts_log(kind, adapter, dtype, device):
    p = point(kind, 0, dtype=dtype, device=device)
    q = point(kind, 1, near=p, dtype=dtype, device=device)
    assert relative(adapter.retract(p, adapter.log(p, q)), q) < tolerance(
        dtype, 1e-12, 5e-6
    )


def test_gradients_are_tangents_that_give_the_slope(kind, adapter):
    """<rgrad, u> in the metric is the derivative of the loss along u."""
    p = point(kind, 0)
    w = torch.randn(p.shape, generator=torch.Generator().manual_seed(5)).double()
    u = tangent(adapter, p)

    def loss(t):
        return float((torch.sin(adapter.retract(p, t * u)) * w).sum())

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    rgrad = adapter.rgrad(p, torch.cos(p) * w)
    assert float(adapter.inner(p, rgrad, u)) == pytest.approx(slope, rel=1e-7)
    if kind.startswith("stiefel"):
        both = p.mT @ rgrad
        assert (both + both.mT).abs().max() < 1e-13


def test_random_tangents_are_standard_normal(kind, adapter):
    """The squared length is chi-square with as many degrees as dimensions."""
    p = point(kind, 0)
    lengths = torch.stack(
        [adapter.inner(p, u, u) for u in (tangent(adapter, p, s) for s in range(800))]
    )
    freedom = 2 * DIMENSION[kind]
    assert float(lengths.mean()) == pytest.approx(
        freedom, rel=5 * (2 / 800 / freedom) ** 0.5
    )
    assert float(lengths.var()) == pytest.approx(2 * freedom, rel=0.3)


def test_affine_invariance(device):
    """A congruence of everything changes no length: no unit matters."""
    p, q = (point("spd", s, device=device) for s in (0, 1))
    a = (
        torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
        .double()
        .to(device)
    )

    def move(x):
        return 1e-12 * (a @ x @ a.mT)

    u, v = SPD().log(p, q), SPD().log(move(p), move(q))
    torch.testing.assert_close(v, move(u), rtol=1e-9, atol=0)
    torch.testing.assert_close(
        SPD().inner(move(p), v, v), SPD().inner(p, u, u), rtol=1e-9, atol=0
    )
    whitened = torch.linalg.solve(p, q)
    distance = torch.linalg.eigvals(whitened).real.log().square().sum()
    torch.testing.assert_close(SPD().inner(p, u, u), distance, rtol=1e-9, atol=0)


def test_means_are_stationary(kind, adapter, dtype, device):
    base = point(kind, 0, dtype=dtype, device=device)
    points = torch.stack(
        [point(kind, s, near=base, dtype=dtype, device=device) for s in range(1, 6)]
    )
    weights = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15])
    mean = adapter.mean(points, weights)
    assert mean.dtype == dtype and mean.shape == base.shape
    assert off_manifold(kind, mean) < tolerance(dtype, 1e-13, 1e-6)
    if kind == "spd":
        pull = sum(
            w * adapter.log(mean, p) for w, p in zip(weights, points, strict=True)
        )
        assert float(adapter.inner(mean, pull, pull)) < tolerance(dtype, 1e-15, 1e-9)
    else:
        # The nearest point to the arithmetic mean: the rest is normal to the manifold.
        arithmetic = torch.einsum("m,m...->...", weights.to(points), points)
        rest = adapter.rgrad(mean, arithmetic - mean)
        assert rest.norm() < tolerance(dtype, 1e-13, 2e-6)
    alone = adapter.mean(points, torch.tensor([0.0, 0, 1, 0, 0]))
    assert relative(alone, points[2]) < tolerance(dtype, 1e-8, 1e-6)


def test_stiefel_log_refuses_what_it_cannot_reach():
    p = point("stiefel", 0)
    with pytest.raises(EEGTensorError, match="too far apart"):
        Stiefel().log(p, -p)
    with pytest.raises(EEGTensorError, match="too far apart"):
        Stiefel().log(p, p @ torch.diag(torch.tensor([1.0, -1.0, 1.0])).double())


def test_space_of_a_network(toy):
    net = toy(dtype=torch.float64)
    space = ParamSpace(net)
    assert {n: a.name for n, a in space.adapters.items()} == {
        "frame": "stiefel",
        "shape": "spd",
        "batch_norm.weight": "euclidean",
        "batch_norm.bias": "euclidean",
        "head.weight": "euclidean",
        "head.bias": "euclidean",
    }
    g = torch.Generator().manual_seed(0)
    u, v = space.random_tangent(g), space.random_tangent(g)
    at = space.points()
    total = sum(a.inner(at[n], u[n], v[n]) for n, a in space.adapters.items())
    assert float(space.inner(u, v)) == pytest.approx(float(total))
    assert float(space.norm(space.scale(u, 3.0))) == pytest.approx(
        3 * float(space.norm(u))
    )
    step = space.scale(u, 0.1 / space.norm(u))
    there = space.retract(step)
    assert all(type(t) is torch.Tensor and not t.requires_grad for t in there.values())
    back = space.log(there)
    assert all(relative(back[n], step[n]) < 1e-9 for n in step)
    half = space.mean([space.points(), there], [2, 2])
    assert float(space.norm(space.log(half))) == pytest.approx(0.05, rel=1e-2)


def test_frozen_parameters_are_no_leaves(toy):
    net = toy()
    net.shape.requires_grad_(False)
    assert "shape" not in ParamSpace(net).leaves


def test_snapshot_and_restore_are_exact(toy, equal, trials):
    net = toy()
    space = ParamSpace(net)
    kept = {n: p.detach().clone() for n, p in net.named_parameters()}
    tensors = list(net.parameters())
    snapshot = space.snapshot()
    batch = trials(40)
    net(batch.x, batch.domain).square().sum().backward()
    up = space.rgrad(space.gradients())
    space.assign(space.retract(space.scale(up, 0.1 / space.norm(up))))
    assert all(not torch.equal(p, kept[n]) for n, p in net.named_parameters())
    space.restore(snapshot)
    assert equal(dict(net.named_parameters()), kept)
    assert all(a is b for a, b in zip(tensors, net.parameters(), strict=True))
    assert isinstance(net.frame, geoopt.ManifoldParameter)


def test_gradients_of_unused_parameters_are_zero(toy):
    assert all(g.abs().max() == 0 for g in ParamSpace(toy()).gradients().values())


def test_mistakes(toy):
    space = ParamSpace(toy())
    with pytest.raises(EEGTensorError, match="0 points"):
        space.mean([])
    with pytest.raises(EEGTensorError, match="positive sum"):
        space.mean([space.points(), space.points()], [1, -1])
    canonical = nn.Linear(2, 2)
    canonical.weight = geoopt.ManifoldParameter(torch.eye(2), manifold=geoopt.Stiefel())
    with pytest.raises(
        EEGTensorError, match="'weight' is on geoopt's CanonicalStiefel"
    ):
        ParamSpace(canonical)
    sphere = geoopt.ManifoldParameter(
        torch.tensor([1.0, 0.0]), manifold=geoopt.Sphere()
    )
    with pytest.raises(EEGTensorError, match="Sphere, which has no adapter"):
        adapter_of(sphere)
    register_adapter(geoopt.Sphere, lambda manifold: Euclidean())
    try:
        assert adapter_of(sphere).name == "euclidean"
    finally:
        _ADAPTERS.pop(0)


def test_flat_manifolds_are_euclidean():
    p = geoopt.ManifoldParameter(torch.zeros(3), manifold=geoopt.Euclidean())
    assert adapter_of(p).name == "euclidean"
    np.testing.assert_array_equal(adapter_of(p).rgrad(p, torch.ones(3)), np.ones(3))
