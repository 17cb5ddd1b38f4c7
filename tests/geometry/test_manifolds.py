"""SPD parameters in geoopt: laws of its own tests, and long optimisations."""

from __future__ import annotations

import copy
import pickle

import geoopt
import pytest
import torch
from _spd import generator, matrices, symmetric

from eegtensor import EEGTensorError, geometry
from eegtensor.geometry import SPD

METRICS = (
    "affine-invariant",
    "log-euclidean",
    "log-cholesky",
    "bures-wasserstein",
)


@pytest.fixture(params=METRICS)
def manifold(request: pytest.FixtureRequest) -> SPD:
    return SPD(metric=request.param)


def test_maps(manifold: SPD) -> None:
    x, y, z = (matrices("easy", 5, (3,), seed) for seed in (1, 2, 3))
    u, v = manifold.logmap(x, y), manifold.logmap(x, z)
    torch.testing.assert_close(manifold.expmap(x, u), y)
    torch.testing.assert_close(manifold.retr(x, u), y)
    torch.testing.assert_close(manifold.dist(x, y), manifold.norm(x, u))
    torch.testing.assert_close(manifold.dist2(x, y), manifold.inner(x, u))
    end, carried = manifold.retr_transp(x, u, v)
    torch.testing.assert_close(end, y)
    torch.testing.assert_close(carried, manifold.transp(x, y, v))
    torch.testing.assert_close(
        manifold.inner(y, carried, keepdim=True), manifold.inner(x, v, keepdim=True)
    )
    torch.testing.assert_close(manifold.geodesic(1.0, x, y), y)
    torch.testing.assert_close(
        manifold.mean(x), geometry.frechet_mean(x, metric=manifold.metric)
    )


def test_the_gradient_points_up(manifold: SPD) -> None:
    """d/dt f(exp(t v)) = <grad f, v>, for a function without symmetry."""
    x = matrices("easy", 4, (), 1).requires_grad_()
    v, w = symmetric(4, (), 2), symmetric(4, (), 3)

    def f(p: torch.Tensor) -> torch.Tensor:
        return (geometry.logm(p) * w).sum()

    (egrad,) = torch.autograd.grad(f(x), x)
    rgrad = manifold.egrad2rgrad(x.detach(), egrad)
    ends = [f(manifold.expmap(x.detach(), s * 1e-4 * v)) for s in (-1.0, 1.0)]
    assert float(ends[1] - ends[0]) / 2e-4 == pytest.approx(
        float(manifold.inner(x.detach(), rgrad, v)), rel=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_many_steps_stay_on_the_manifold(
    manifold: SPD, dtype: torch.dtype, device: str
) -> None:
    X = matrices("easy", 3, (4,), 1).to(device, dtype)
    x = geoopt.ManifoldParameter(X[0].clone(), manifold=manifold)
    optimizer = geoopt.optim.RiemannianAdam([x], lr=0.02)
    longest = manifold.metric == "affine-invariant" and dtype == torch.float32
    n_steps = 1000 if longest else 60
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = (manifold.dist(x, X) ** 2).mean()
        loss.backward()
        optimizer.step()
    point = x.detach().double()
    scale = point.diagonal().max()
    assert float((point - point.T).abs().max() / scale) <= 1e-6
    assert float(torch.linalg.eigvalsh(point)[0]) > 0
    assert manifold.check_point_on_manifold(x.detach())
    if longest:
        mean = manifold.mean(X).double()
        assert float(manifold.dist(point, mean)) < 5e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_step_leaves_the_cone(manifold: SPD, dtype: torch.dtype) -> None:
    """geoopt's second-order retraction leaves it in float32, with such steps."""
    x = matrices("cond 1e6", 6, (50,), 1).to(dtype)
    for size in (0.1, 3.0):
        u = size * manifold.random_normal(x, generator=generator(0))
        y = manifold.retr(x, u)
        assert bool((torch.linalg.cholesky_ex(y)[1] == 0).all())


def test_equal_points_have_no_slope(manifold: SPD) -> None:
    x = manifold.random(3, 5, 5, dtype=torch.float64).requires_grad_()
    manifold.dist(x, x.detach().clone()).sum().backward()
    assert bool((x.grad == 0).all())


def test_projections(manifold: SPD) -> None:
    x = symmetric(5, (4,), 1) + 0.1 * torch.randn(4, 5, 5).double()
    x = x + 3.0 * torch.eye(5, dtype=x.dtype)
    inside = manifold.projx(x)
    assert manifold.check_point_on_manifold(inside)
    # The floor moves with the mean that raising has moved.
    torch.testing.assert_close(manifold.projx(inside), inside, rtol=0, atol=3e-6)
    u = torch.randn(4, 5, 5).double()
    assert manifold.check_vector_on_tangent(inside, manifold.proju(inside, u))
    assert not manifold.check_vector_on_tangent(inside, u)
    assert not manifold.check_point_on_manifold(x)
    assert not manifold.check_point_on_manifold(-inside)
    assert manifold.check_point_on_manifold(1e-12 * inside)


def test_random_points_follow_the_seed(manifold: SPD) -> None:
    torch.manual_seed(0)
    one = manifold.random(2, 4, 4)
    torch.manual_seed(0)
    assert torch.equal(one, manifold.random((2, 4, 4)))
    assert one.dtype == torch.get_default_dtype()
    assert manifold.check_point_on_manifold(one)
    origin = manifold.origin(2, 3, 3, dtype=torch.float64)
    assert torch.equal(origin, torch.eye(3).double().repeat(2, 1, 1))
    with pytest.raises(EEGTensorError, match="cannot have shape"):
        manifold.random(3, 4)


def test_parameters_travel(manifold: SPD) -> None:
    x = geoopt.ManifoldParameter(manifold.random(4, 4), manifold=manifold)
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert torch.equal(other, x)
        assert other.manifold.metric == manifold.metric
    assert manifold.metric in repr(manifold)


def test_metrics_that_leave_the_cone_are_refused() -> None:
    with pytest.raises(EEGTensorError, match="metric='euclidean'"):
        SPD("euclidean")
