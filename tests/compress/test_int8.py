"""int8 layers against products of whole numbers and torch's own quantisation."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import Int8Layer, compress
from eegtensor.training import Batch


def layers():
    return {
        "linear": (nn.Linear(40, 30), (4, 5, 40)),
        "conv1d": (nn.Conv1d(12, 9, 5, stride=2, padding=2, groups=3), (4, 12, 33)),
        "conv2d": (nn.Conv2d(6, 8, (3, 2), padding=(1, 0), bias=False), (4, 6, 7, 9)),
    }


def rounded(values, scale):
    return (values / scale).round().clamp(-127, 127) * scale


@pytest.mark.parametrize("name", list(layers()))
def test_it_is_the_product_of_rounded_numbers(name):
    torch.manual_seed(0)
    layer, size = layers()[name]
    x = torch.randn(size) * torch.logspace(-2, 2, size[0]).view(
        -1, *[1] * (len(size) - 1)
    )
    told = Int8Layer.of(layer)(x)
    wide, exact = layer.double(), x.double()
    axes = (-1,) if name == "linear" else tuple(range(1, x.ndim))
    size = x.abs().amax(dim=axes, keepdim=True) / 127
    w = wide.weight.detach()
    scale = w.float().flatten(1).abs().amax(1) / 127
    row = scale.double().view(-1, *[1] * (w.ndim - 1))
    wide.weight.data = rounded(w, row)
    wanted = wide(rounded(exact, size.double()))
    assert (told - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_as_near_to_the_layer_as_torchs_own_dynamic_quantisation():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval()
    x = torch.randn(500, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        theirs = quantize_dynamic(copy.deepcopy(net), {nn.Linear}, dtype=torch.qint8)
        told = theirs(x)
    ours = compress(net, "int8(min_size=1)")(x)
    true = net(x)
    error, other = ((y - true).norm() / true.norm() for y in (ours, told))
    # One scale an output and a row, where they have one a weight and a batch.
    assert error < 0.01 and error < other


@pytest.mark.parametrize("activations", ["dynamic", "static", "float"])
def test_points_lost_and_units(activations, net, toy, score):
    train, test = toy
    recipe = f"int8(activations={activations!r}, min_size=1)"
    small = compress(net, recipe, data=Batch(train.x))
    assert abs(score(small, test) - score(net, test)) <= 1.0
    assert type(small.body[1]) is Int8Layer
    # The first layer's inputs in another unit: the same codes, the same classes.
    one, other = (
        small.filters,
        compress(net, recipe, data=Batch(1e-6 * train.x)).filters,
    )
    a, b = one(train.x[:9]), other(1e-6 * train.x[:9])
    assert (a - 1e6 * b).norm() < 1e-3 * a.norm()


def test_the_largest_value_is_calibrated(net, toy):
    seen = {}
    hook = net.body[4].register_forward_pre_hook(lambda m, a: seen.update(x=a[0]))
    net.eval()(toy[0].x)
    hook.remove()
    small = compress(net, "int8(activations='static', n_trials=100000)", data=toy[0])
    found = small.body[4].input_scale * 127
    assert found == pytest.approx(float(seen["x"].detach().abs().max()), rel=1e-5)
    with pytest.raises(EEGTensorError, match="needs trials"):
        compress(net, "int8(activations='static')")


def test_no_rows_and_zeros():
    layer = Int8Layer.of(nn.Linear(4, 3))
    assert layer(torch.zeros(0, 4)).shape == (0, 3)
    assert torch.isfinite(layer(torch.zeros(2, 4))).all()
    assert torch.isfinite(Int8Layer.of(nn.Conv1d(2, 3, 1))(torch.zeros(1, 2, 5))).all()
