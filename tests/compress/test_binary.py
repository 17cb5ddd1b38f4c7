"""Binary networks: ReSTE and BiPer."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import (
    Binary,
    BinaryLayer,
    PackedLayer,
    compress,
    periodic,
    periodic_error,
    quadratic_sign,
    reste,
)
from eegtensor.compress.binary import SurePeriods
from eegtensor.compress.signs import reste_power, sign


def gradient(function, x):
    x = x.clone().requires_grad_(True)
    function(x).sum().backward()
    return x.grad


def test_with_power_one_it_is_the_clipped_straight_through_estimator():
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    assert torch.equal(gradient(reste, x), (x.abs() <= 1.5).double())
    assert torch.equal(reste(x), torch.where(x >= 0, 1.0, -1.0).double())
    # Of zero torch.sign has 0.
    assert reste(torch.zeros(3)).tolist() == [1.0] * 3


@pytest.mark.parametrize("o", [1.5, 2.0, 3.0])
def test_gradients_are_those_of_the_power_and_its_chord(o):
    m, t = 0.1, 1.5
    x = torch.tensor([0.100001, 0.3, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    (x.abs().pow(1 / o)).sum().backward()
    for side in (1.0, -1.0):
        found = gradient(lambda v: reste(v, o), side * x.detach())
        assert torch.allclose(found, x.grad, rtol=1e-12)
    near = torch.tensor([-0.1, -1e-9, 0.0, 0.05, 0.1], dtype=torch.float64)
    chord = m ** (1 / o - 1)
    assert torch.allclose(
        gradient(lambda v: reste(v, o), near), torch.full((5,), chord).double()
    )
    assert gradient(lambda v: reste(v, o), torch.tensor([t + 1e-6])).item() == 0.0
    # At m the slope jumps from the chord's to the tangent's: by 1 / o.
    assert x.grad[0].item() / chord == pytest.approx(1 / o, rel=1e-4)


def test_the_power_goes_from_one_to_its_end():
    found = [reste_power(e, 100) for e in range(1, 102)]
    assert found[0] == 1.0 and found[100] == pytest.approx(3.0)
    assert all(a < b for a, b in pairwise(found))
    assert found[50] == pytest.approx(1 + 2 * (1 - math.cos(math.pi / 4)))
    with pytest.raises(EEGTensorError, match=r"o=0\.5"):
        reste(torch.ones(1), 0.5)


def test_gradients_of_periods_and_of_the_quadratic_estimator():
    w = torch.linspace(-0.3, 0.3, 301, dtype=torch.float64)
    wanted = 20 * torch.cos(20 * w)
    assert torch.allclose(gradient(periodic, w), wanted)
    assert torch.allclose(gradient(lambda v: periodic(v, binary=False), w), wanted)
    assert torch.equal(periodic(w), sign(torch.sin(20 * w)))
    x = torch.tensor([-2.0, -0.5, 0.0, 0.25, 1.0])
    assert gradient(quadratic_sign, x).tolist() == [0.0, 1.0, 2.0, 1.5, 0.0]


def test_the_quantisation_error_falls_with_the_frequency():
    w = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 0.05
    errors = [float(periodic_error(w, omega)) for omega in (0.1, 1, 5, 10, 20, 40)]
    assert all(a > b for a, b in pairwise(errors))
    assert errors[0] > 0.95 and errors[-1] == pytest.approx(1.5 - 4 / math.pi, abs=3e-3)


def test_the_penalty_of_the_released_code_makes_signs_less_sure():
    torch.manual_seed(0)
    net = BinaryLayer(nn.Linear(64, 64), "biper", "real", "channel", 20.0)
    start, weight = net.weight.detach().clone(), net.weight
    found = {}
    for name, factor in (("ours", 1.0), ("released", -1.0)):
        weight.data = start.clone()
        for _ in range(30):
            loss = factor * SurePeriods()(net, None, None, None)
            (slope,) = torch.autograd.grad(loss, weight)
            weight.data -= 0.3 * len(start.flatten()) / 20**2 * slope
        found[name] = float(periodic_error(weight.detach()))
    assert found["ours"] < 0.1 * float(periodic_error(start))
    assert found["released"] > 2.0 * float(periodic_error(start))


@pytest.mark.parametrize("method", ["reste", "biper"])
def test_signs_of_the_first_step_are_those_of_the_weights(method):
    torch.manual_seed(0)
    layer = nn.Linear(50, 20)
    layer.weight.data *= 1e-4
    new = BinaryLayer(layer, method, "real", "channel", 20.0)
    assert torch.equal(new.signs().sign(), layer.weight.sign())
    told = new.packed().weight
    # As near as a factor for each output's signs can be, or nearly.
    best = layer.weight.abs().mean(1, keepdim=True) * layer.weight.sign()
    assert torch.allclose(told, best, rtol=1e-5)
    if method == "biper":
        new.set_stage(False)
        first = new.signs() * new.alpha[:, None]
        assert (first - layer.weight).norm() < 0.2 * layer.weight.norm()
        twin = copy.deepcopy(new)
        twin.set_stage(True)
        assert torch.allclose(twin.alpha, layer.weight.abs().mean(1))
        # A run that goes on knows in which stage it is.
        again = BinaryLayer(layer, method, "real", "channel", 20.0)
        again.load_state_dict(new.state_dict())
        assert not again.binary


def test_one_scale_for_the_layer_is_that_of_the_released_code():
    torch.manual_seed(0)
    layer = nn.Conv1d(4, 6, 3)
    new = BinaryLayer(layer, "reste", "sign", "layer", 20.0)
    x = torch.randn(2, 4, 9)
    weight = layer.weight.abs().mean() * layer.weight.sign()
    wanted = nn.functional.conv1d(x.sign(), weight, layer.bias)
    assert torch.allclose(new(x), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"inputs": "scaled"}, {"method": "biper", "penalty": 0.1}],
    ids=["reste", "scaled", "biper"],
)
def test_points_of_a_binary_network(options, net, toy, tuner, score):
    maker = Binary(**options)
    small = maker.prepare(net, toy[0])
    tuner(25, lr=1e-2)(small, maker)
    trained = score(small, toy[1])
    packed = maker.finish(small)
    kinds = [type(m) for m in packed.body if isinstance(m, (nn.Linear, PackedLayer))]
    assert kinds == [PackedLayer, PackedLayer] and type(packed.head) is nn.Linear
    # One bit a weight, and the network that was trained.
    assert packed.body[4].codes.numel() == 64 * 64 // 8
    assert score(packed, toy[1]) == trained
    # Within 5 points of full precision.
    assert trained >= score(net, toy[1]) - 5.0


def test_biper_loses_little_from_stage_one_to_stage_two(net, toy, tuner, score):
    class Watch:
        found = ()

        def on_epoch_end(self, state):
            state.model.eval()
            layer = state.model.body[1]
            self.found = (*self.found, (layer.binary, score(state.model, toy[1])))
            state.model.train()

    maker, watch = Binary("biper"), Watch()
    small = maker.prepare(net, toy[0])
    tuner(20, lr=1e-2, callbacks=[watch])(small, maker)
    first = max(points for binary, points in watch.found if not binary)
    assert [binary for binary, _ in watch.found] == [False] * 10 + [True] * 10
    assert watch.found[-1][1] >= first - 3.0


def test_an_unknown_way_is_named():
    with pytest.raises(EEGTensorError, match="method='ste'"):
        compress(nn.Linear(20, 20), "binary(method='ste')")
