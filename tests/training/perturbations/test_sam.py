"""SAM against the paper's numbers, a loop written by hand, and lengths by group."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import Network, Setup, build
from eegtensor.training.perturbations import FSAM, SAM
from eegtensor.training.perturbations.moves import ascent


@pytest.fixture
def first(quadratic, fit):
    """Return the weights after steps from (1, 1) on (w1^2 + 10 w2^2) / 2."""
    return lambda *args, **options: fit(
        quadratic([1.0, 10.0], [1.0, 1.0]), *args, **options
    )


def test_first_step_on_a_quadratic_is_that_worked_out_by_hand(first):
    # Specification A25: H = diag(1, 10), w = (1, 1), lr .1, rho .05.
    wanted = torch.tensor([0.8995024815, -0.0497518596], dtype=torch.float64)
    torch.testing.assert_close(first(SAM(rho=0.05)), wanted, rtol=0, atol=1e-9)


def test_no_step_size_leaves_the_weights_bit_for_bit(first):
    assert torch.equal(first(SAM(), lr=0.0), torch.ones(2, dtype=torch.float64))


def test_a_gradient_of_zero_moves_nothing(first):
    assert torch.isfinite(first(SAM(), lr=0.1, epochs=300)).all()


RHO = {"euclidean": 0.1, "stiefel": 0.03, "spd": 0.02}


def euclidean_gradients(network, seed=0):
    g = torch.Generator().manual_seed(seed)
    for p in network.space.leaves.values():
        p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)
    return {name: p.grad for name, p in network.space.leaves.items()}


def test_a_length_for_each_geometry_is_that_worked_out_by_hand(toy):
    """The metrics of the three geometries, written from their definitions."""
    network = Network(toy(dtype=torch.float64))
    with torch.no_grad():
        # Away from the identity, where the metric of matrices is not the plain one.
        network.model.shape.copy_(torch.diag(torch.tensor([0.1, 1.0, 10.0]).double()))
    g = euclidean_gradients(network)
    up = network.space.rgrad(network.space.gradients())
    step = ascent(network.space, up, RHO)
    X, P = network.model.frame.detach(), network.model.shape.detach()
    gX = g["frame"] - X @ (X.mT @ g["frame"] + g["frame"].mT @ X) / 2
    gX = 0.03 * gX / gX.square().sum().sqrt()
    torch.testing.assert_close(step["frame"], gX, rtol=0, atol=1e-12)
    gP = P @ (g["shape"] + g["shape"].mT) @ P / 2
    inverse = P.inverse()
    gP = 0.02 * gP / torch.trace(inverse @ gP @ inverse @ gP).sqrt()
    torch.testing.assert_close(step["shape"], gP, rtol=0, atol=1e-12)
    # All Euclidean parameters have one norm together.
    flat = [name for name in g if name not in ("frame", "shape")]
    length = sum(g[name].square().sum() for name in flat).sqrt()
    assert len(flat) == 4
    for name in flat:
        wanted = 0.1 * g[name] / length
        torch.testing.assert_close(step[name], wanted, rtol=0, atol=1e-12)
    # One length for all: the part of each geometry is what its metric makes of it.
    common = ascent(network.space, up, 0.05)
    assert float(network.space.norm(common)) == pytest.approx(0.05, rel=1e-12)
    assert list(common) == list(step) == list(up)


@pytest.mark.parametrize("kind", [SAM, FSAM])
def test_a_network_of_one_geometry_moves_as_by_one_number(steps, batches, kind):
    one, by_group = steps(kind(rho=0.1)), steps(kind(rho={"euclidean": 0.1, "spd": 9}))
    for batch in batches(3):
        one.take(batch)
        by_group.take(batch)
    for a, b in zip(one.weights, by_group.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["sam", "f-sam"])
def test_lengths_by_group_go_through_a_name_and_a_run(toy, trials, name):
    from eegtensor.training import ShuffleSampler, make_plugs, train

    net, data = toy(), trials(80)
    plugs = make_plugs(
        Setup(net, data, batch_size=40),
        optimizer="riemannian-sgd",
        perturbation=f"{name}(rho={RHO})",
    )
    plugs["sampler"] = ShuffleSampler(len(data), batch_size=40)
    train(net, data, epochs=2, **plugs)
    frame = net.frame.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    one = build(f"{name}(rho={RHO})", "perturbation", Setup(net, data))
    assert one.rho == RHO


def test_a_group_without_gradient_stays(toy):
    network = Network(toy(dtype=torch.float64))
    euclidean_gradients(network)
    network.model.shape.grad = None
    up = network.space.rgrad(network.space.gradients())
    step = ascent(network.space, up, RHO)
    assert not step["shape"].any() and step["frame"].any()


def test_mistakes(toy):
    with pytest.raises(EEGTensorError, match="rho=0"):
        SAM(rho=0)
    with pytest.raises(EEGTensorError, match="rho of 'spd'=-1"):
        SAM(rho={"spd": -1})
    with pytest.raises(EEGTensorError, match="group of rho"):
        FSAM(rho={"spde": 0.1})
    with pytest.raises(EEGTensorError, match="rho"):
        FSAM(rho={})
    space = Network(toy()).space
    with pytest.raises(EEGTensorError, match="nothing of stiefel parameters"):
        ascent(space, space.points(), {"euclidean": 0.1, "spd": 0.1})
