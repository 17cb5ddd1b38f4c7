"""Learning rates against closed forms and dense Hessians."""

from __future__ import annotations

import math

import geoopt
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.geometry import SPD, sqrtm
from eegtensor.training import Batch, CrossEntropy, Network, make_optimizer
from eegtensor.training.optimizers.scaling import largest_curvature, scale_lr


def test_rules():
    assert scale_lr(0.1, 32, 128) == pytest.approx(0.2)
    assert scale_lr(0.1, 32, 128, "linear") == pytest.approx(0.4)
    with pytest.raises(EEGTensorError, match="batch_size=0"):
        scale_lr(0.1, 0, 1)


class Bowl(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(values), dtype=torch.float64))
        self.register_buffer("values", values)

    def forward(self, x):
        return 0.5 * (self.w**2 * self.values).sum()


class Value:
    per_trial = False

    def __call__(self, model, batch, outputs, context):
        return outputs


def test_a_quadratic_has_its_eigenvalue_and_diverges_above_the_rate():
    values = torch.linspace(0.1, 25.0, 60).double()
    net = Bowl(values)
    batch = Batch(torch.zeros(1, 1))
    found = largest_curvature(Network(net), batch, Value(), n_iterations=40)
    assert found.largest == pytest.approx(25.0, rel=0.01)
    for share, grows in ((0.97, False), (1.05, True)):
        w = torch.ones(60).double()
        for _ in range(400):
            w = w - share * found.lr_max * values * w
        assert bool(w.norm() > 60**0.5) == grows


def test_a_network_has_the_eigenvalue_of_its_dense_hessian():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
        x, y = torch.randn(50, 4).double(), torch.randint(2, (50,))
    before = [p.detach().clone() for p in net.parameters()]
    names = [n for n, _ in net.named_parameters()]
    sizes = [p.numel() for p in net.parameters()]

    def loss(flat):
        parts = flat.split(sizes)
        weights = {
            n: part.reshape(p.shape)
            for n, part, p in zip(names, parts, before, strict=True)
        }
        out = torch.func.functional_call(net, weights, (x,))
        return nn.functional.cross_entropy(out, y)

    h = torch.func.hessian(loss)(torch.cat([p.ravel() for p in before]))
    wanted = float(torch.linalg.eigvalsh(h)[-1])
    found = largest_curvature(
        Network(net), Batch(x, y), CrossEntropy(), n_iterations=30
    )
    assert found.largest == pytest.approx(wanted, rel=0.01)
    assert all(map(torch.equal, before, net.parameters()))
    assert all(p.grad is None for p in net.parameters())


def test_small_batches_are_more_curved():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 10, generator=g).double()
    y = torch.randint(2, (400,), generator=g)
    net = nn.Linear(10, 2).double()

    def top(n):
        found = largest_curvature(Network(net), Batch(x[:n], y[:n]), CrossEntropy())
        return found.largest

    assert top(20) > top(400)


def test_manifolds_stay_and_count(toy, trials):
    net = toy(dtype=torch.float64, dropout=0.0)
    before = {n: v.clone() for n, v in net.state_dict().items()}
    data = trials(dtype=torch.float64)
    found = largest_curvature(Network(net), data, CrossEntropy())
    assert found.largest > 0
    assert all(torch.equal(before[n], v) for n, v in net.state_dict().items())
    assert net.training and make_optimizer(net)


class Quadric(nn.Module):
    """x'Ax / 2 on the sphere, or tr(AP) for SPD matrices P."""

    def __init__(self, A, point, manifold):
        super().__init__()
        self.A = A
        self.p = geoopt.ManifoldParameter(point, manifold=manifold)

    def forward(self, x):
        if self.p.shape[1] == 1:
            return 0.5 * (self.p.mT @ self.A @ self.p).sum()
        return (self.A * self.p).sum()


@pytest.mark.parametrize("i", range(4))
def test_on_the_sphere_the_curvature_of_the_sphere_counts(i):
    values = torch.tensor([1.0, 2.0, 5.0, 9.0]).double()
    point = torch.eye(4).double()[:, i : i + 1].clone()
    net = Quadric(torch.diag(values), point, geoopt.EuclideanStiefel())
    found = largest_curvature(Network(net), Batch(torch.zeros(1, 1)), Value())
    # At an eigenvector the Riemannian Hessian has the differences of eigenvalues.
    wanted = float((values - values[i])[torch.arange(4) != i].max())
    assert found.largest == pytest.approx(wanted, abs=1e-3)
    assert found.lr_max == (pytest.approx(2 / wanted, rel=1e-3) if i < 3 else math.inf)


def test_of_spd_matrices_it_is_that_along_geodesics():
    g = torch.Generator().manual_seed(0)
    A, P = (m @ m.mT + torch.eye(3) for m in torch.randn(2, 3, 3, generator=g).double())
    net = Quadric(A, P.clone(), SPD())
    found = largest_curvature(Network(net), Batch(torch.zeros(1, 1)), Value())
    # exp_P(t u) = R expm(t s) R with R = P^1/2: the second derivative of tr(A .) along
    # symmetric s of length one is tr(R A R s^2).
    B = sqrtm(P) @ A @ sqrtm(P)
    wanted = float(torch.linalg.eigvalsh(B)[-1])
    assert found.largest == pytest.approx(wanted, rel=1e-3)


def test_options_out_of_range():
    net = Bowl(torch.ones(3).double())
    for options in ({"n_iterations": 0}, {"step": 0.0}):
        with pytest.raises(EEGTensorError, match="What to do"):
            largest_curvature(
                Network(net), Batch(torch.zeros(1, 1)), Value(), **options
            )
