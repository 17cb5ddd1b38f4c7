"""Factorised networks of a wanted size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import compress, factorise
from eegtensor.models import TSMNet
from eegtensor.nn import FactorizedLinear
from eegtensor.training import Batch


def wide():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64), nn.Linear(64, 3)
    )


@pytest.mark.parametrize("kind", ["tt", "tucker", "stt"])
@pytest.mark.parametrize("ratio", [3.0, 9.0])
def test_the_whole_network_is_so_many_times_smaller(kind, ratio):
    net = wide()
    small, found = factorise(net, ratio, kind=kind)
    count = sum(p.numel() for p in small.parameters())
    assert found.after == count and found.ratio >= ratio
    # The room is used: of a few numbers a rank more would not fit.
    assert found.ratio < 1.35 * ratio
    assert type(net[0]) is nn.Linear and type(small[0]) is FactorizedLinear
    assert type(small[3]) is nn.Linear


def test_a_weight_that_is_a_tensor_network_is_found_again():
    net = wide()
    cores = FactorizedLinear(
        256, 64, "tt", 0.1, generator=torch.Generator().manual_seed(1)
    )
    net[2].weight.data = cores.weight.detach().clone()
    small, _ = factorise(net, 1 / 0.14, skip=["0"], fixed=["0.weight"])
    assert small[2].error < 1e-4


def test_numbers_that_are_fixed_do_not_count():
    net = wide()
    small, _ = factorise(net, 5.0, skip=["0"], fixed=["0.weight"])
    whole = sum(p.numel() for n, p in net.named_parameters() if n != "0.weight")
    left = sum(p.numel() for n, p in small.named_parameters() if n != "0.weight")
    assert whole / left >= 5.0 and torch.equal(small[0].weight, net[0].weight)


def test_frames_stay_and_what_cannot_be_is_told():
    net = TSMNet(8, 2, 64, domains=[("a", "0", "0")], random_state=0)
    with pytest.raises(EEGTensorError, match="cannot be"):
        factorise(net, 50.0, min_size=1)
    with pytest.raises(EEGTensorError, match="ratio"):
        factorise(wide(), 0.5)


def test_points_come_back_by_fine_tuning(power, toy, tuner, score):
    from eegtensor.compress import Compressor

    net = power(n_filters=128)
    tuner(15)(net, Compressor())
    small = compress(
        net,
        "factorise(ratio=3.0, skip=('filters',))",
        tune=tuner(12, lr=1e-3),
        data=Batch(toy[0].x),
    )
    assert score(small, toy[1]) >= score(net, toy[1]) - 2.0
    assert 3 * sum(p.numel() for p in small.parameters()) <= sum(
        p.numel() for p in net.parameters()
    )
