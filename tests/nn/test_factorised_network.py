"""`factorize_`: a trained network becomes small and does nearly the same."""

from __future__ import annotations

import copy

import geoopt
import pytest
import torch
from nn._networks import KINDS
from torch import nn

from eegtensor._check import EEGTensorError
from eegtensor.nn import BiMap, FactorizedConv1d, FactorizedLinear, factorize_


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = BiMap(64, 32)
        self.conv = nn.Conv1d(32, 32, 7, padding=3, dilation=1)
        self.grouped = nn.Conv1d(32, 32, 33, padding=16, groups=4)
        self.block = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 64))
        self.attention = nn.MultiheadAttention(64, 4)
        self.tied = nn.Linear(64, 64)
        self.other = nn.Linear(64, 64)
        self.other.weight = self.tied.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
        self.head = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.conv(x)).mean(dim=2)
        x = self.block(x)
        x = self.normed(self.other(self.tied(x)))
        out: torch.Tensor = self.head(x)
        return out


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_replaced_or_says_why_not(kind: str) -> None:
    model = Network().eval()
    before = sum(p.numel() for p in model.parameters())
    report = factorize_(model, 0.3, kind)
    reasons = {layer.name: layer.reason for layer in report.layers}
    done = {name for name, reason in reasons.items() if not reason}
    assert done == {"conv", "block.0", "block.2"}
    assert reasons["grouped"] == "4 groups"
    assert reasons["normed"] == "parametrised"
    assert reasons["tied"] == reasons["other"] == "its weight is shared"
    assert "NonDynamically" in reasons["attention.out_proj"]
    assert reasons["head"] == "smaller than 1024"
    assert isinstance(model.conv, FactorizedConv1d)
    assert isinstance(model.block[2], FactorizedLinear)
    assert isinstance(model.map.weight, geoopt.ManifoldParameter)
    assert not model.block[2].training
    assert report.before == before
    assert report.after == sum(p.numel() for p in model.parameters())
    for layer in report.layers:
        if not layer.reason:
            bias = 64 if "block" in layer.name else 32
            assert layer.after - bias <= 0.3 * (layer.before - bias)
            assert 0.0 < layer.error < 1.0
    assert model(torch.randn(2, 32, 50)).shape == (2, 4)
    assert "block.0" in str(report)
    assert f"{report.ratio:.1f}x" in str(report)


def test_full_rank_leaves_the_function_alone() -> None:
    model = nn.Sequential(nn.Linear(36, 48), nn.Tanh(), nn.Linear(48, 36)).double()
    # Weights of low rank: TT holds them with far fewer numbers.
    with torch.no_grad():
        for layer in (model[0], model[2]):
            n, m = layer.weight.shape
            u = torch.randn(n, 2, dtype=torch.float64)
            layer.weight.copy_(u @ torch.randn(2, m, dtype=torch.float64))
    other = copy.deepcopy(model)
    report = factorize_(other, (36, 2, 36), "tt", min_size=0)
    assert max(layer.error for layer in report.layers) < 1e-6
    x = torch.randn(5, 36, dtype=torch.float64)
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=1e-5)


def test_names_are_skipped_and_unknown_ones_refused() -> None:
    model = Network()
    report = factorize_(model, 0.2, "cp", skip=("block.*",))
    assert isinstance(model.block[0], nn.Linear)
    assert {x.name: x.reason for x in report.layers}["block.2"] == "skipped by name"
    with pytest.raises(EEGTensorError, match="'blok'"):
        factorize_(Network(), 0.2, skip=("blok",))


def test_an_error_leaves_the_model_whole() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(49, 49))
    with pytest.raises(EEGTensorError, match="'1' cannot become"):
        factorize_(model, 4, "sttu", t=2)
    assert type(model[0]) is nn.Linear


def test_frozen_layers_stay_frozen_and_the_rest_trains() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    model[0].requires_grad_(False)
    factorize_(model, 0.2, "str")
    assert not any(p.requires_grad for p in model[0].parameters())
    model(torch.randn(3, 64)).sum().backward()
    assert all(p.grad is not None for p in model[2].parameters())


def test_layers_that_would_grow_stay() -> None:
    model = nn.Sequential(nn.Linear(32, 32))
    report = factorize_(model, 10_000, "cp")
    assert report.layers[0].reason == "would not be smaller"
    assert type(model[0]) is nn.Linear
