"""Which layers are compressed."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress._layers import Shape, find_layers, replace_layers
from eegtensor.models import TSMNet


class Own(nn.Linear):
    pass


def test_layers_that_are_more_than_layers_are_left():
    net = nn.ModuleDict(
        {
            "first": nn.Linear(8, 8),
            "shared": nn.Linear(8, 8),
            "own": Own(8, 8),
            "hooked": nn.Linear(8, 8),
            "curved": nn.Linear(8, 8),
            "circular": nn.Conv1d(8, 8, 3, padding=1, padding_mode="circular"),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
            "grouped": nn.Conv1d(8, 8, 3, groups=4),
            "last": nn.Linear(8, 2),
        }
    )
    net["twin"] = net["shared"]
    net["hooked"].register_forward_hook(lambda *args: None)
    net["curved"].weight = geoopt.ManifoldParameter(
        torch.eye(8), manifold=geoopt.EuclideanStiefel()
    )
    assert list(find_layers(net)) == ["first", "grouped", "last"]
    assert list(find_layers(net, keep_ends=True)) == ["grouped"]
    assert list(find_layers(net, min_size=20)) == ["first", "grouped"]
    assert list(find_layers(net, skip=["f*"])) == ["grouped", "last"]
    with pytest.raises(EEGTensorError, match="no layer"):
        find_layers(net, skip=["nothing"])
    with pytest.raises(EEGTensorError, match="to compress"):
        find_layers(net, min_size=10**6)


def test_frames_of_an_spd_network_are_left():
    net = TSMNet(8, 2, 64, domains=[("a", "0", "0")], random_state=0)
    names = set(find_layers(net))
    curved = {
        name.rpartition(".")[0]
        for name, p in net.named_parameters()
        if isinstance(p, geoopt.ManifoldParameter)
    }
    assert curved and not names & curved


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 5),
        nn.Conv1d(6, 4, 3, stride=2, padding=1, dilation=2, groups=2),
        nn.Conv1d(6, 4, 3, padding="same"),
        nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    ],
    ids=["linear", "conv1d", "same", "conv2d"],
)
def test_a_shape_does_what_the_layer_does(layer):
    size = (3, 6) if isinstance(layer, nn.Linear) else (3, 6, 11)
    size = (*size, 9) if isinstance(layer, nn.Conv2d) else size
    x = torch.randn(size)
    told = Shape.of(layer).apply(x, layer.weight, layer.bias)
    assert torch.equal(told, layer(x))


def test_a_model_that_is_one_layer():
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert list(find_layers(layer)) == [""]
    assert replace_layers(layer, {"": other}) is other
