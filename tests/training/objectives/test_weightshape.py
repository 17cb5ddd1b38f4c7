"""Weights of a shape that rounding harms little."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training.objectives import WeightShape
from eegtensor.training.objectives.weightshape import moments


def test_moments_are_those_of_scipy_in_every_unit():
    w = torch.randn(300, dtype=torch.float64).exp()
    for unit in (1.0, 1e-6):
        skewness, kurtosis = moments(unit * w)
        assert float(skewness) == pytest.approx(stats.skew(w), rel=1e-9)
        assert float(kurtosis) == pytest.approx(stats.kurtosis(w, fisher=False))
    even = torch.linspace(-1, 1, 10001, dtype=torch.float64)
    assert float(moments(even)[1]) == pytest.approx(1.8, abs=1e-3)


def test_it_is_the_mean_over_layers_but_the_first():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 9, 5), nn.Linear(8, 9), nn.Linear(9, 7)).double()
    wanted = 0.0
    for layer in list(net)[1:]:
        w = layer.weight.detach().numpy().ravel()
        wanted += 0.5 * (stats.kurtosis(w, fisher=False) - 1.8) ** 2
        wanted += 2.0 * stats.skew(w) ** 2
    found = WeightShape(kurtosis=0.5, skewness=2.0)(net, None, None, None)
    assert float(found) == pytest.approx(wanted / 2, rel=1e-9)
    assert float(WeightShape()(net[:1], None, None, None)) == 0.0


def test_it_makes_weights_even(toy):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(40, 40))
    weight = net[1].weight
    weight.data = torch.randn(40, 40) + 0.3 * torch.randn(40, 40).square()
    for _ in range(400):
        (g,) = torch.autograd.grad(WeightShape()(net, None, None, None), weight)
        weight.data -= 0.03 * g / g.abs().max()
    skewness, kurtosis = moments(weight.detach())
    assert abs(float(kurtosis) - 1.8) < 0.3 and abs(float(skewness)) < 0.3
    # Weights on manifolds are none of its business.
    model = toy()
    WeightShape()(model, None, None, None)
    assert all(p.grad is None for p in model.parameters())


def test_options():
    for options in ({"kurtosis": -1.0}, {"skewness": float("nan")}, {"target": 0.5}):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            WeightShape(**options)
