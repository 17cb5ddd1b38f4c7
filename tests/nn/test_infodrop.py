"""InfoDrop: flat stretches drop out, events stay, and evaluation is the convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.nn import InfoDrop, set_info_drop
from eegtensor.nn.infodrop import self_similarity


def flat_and_chirp(n=8, scale=1.0):
    """Flat for 200 samples, then a chirp; one channel of noise at a thousandth."""
    t = torch.arange(200.0, dtype=torch.float64)
    x = torch.zeros(n, 2, 400, dtype=torch.float64)
    x[:, 0, 200:] = torch.sin(2 * torch.pi * (0.05 + 0.0004 * t) * t)
    g = torch.Generator().manual_seed(0)
    x += 1e-3 * torch.randn(x.shape, generator=g, dtype=torch.float64)
    return scale * x


def layer(**options):
    torch.manual_seed(0)
    return InfoDrop(nn.Conv1d(2, 16, 5, padding=2), **options).double()


def drop_rates(drop, x):
    with torch.no_grad():
        drop.conv.bias.fill_(100.0)
    gone = (drop.train()(x) == 0).double()
    return gone[..., 10:190].mean(), gone[..., 210:390].mean()


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_flat_stretches_drop_five_times_as_often(scale):
    drop = layer()
    with torch.no_grad():
        drop.conv.weight.zero_()
    flat, chirp = drop_rates(drop, flat_and_chirp(scale=scale))
    assert flat > 5 * chirp and flat > 0.5, (flat, chirp)


def test_a_high_temperature_is_dropout():
    drop = layer(temperature=float("inf"))
    flat, chirp = drop_rates(drop, flat_and_chirp())
    expected = 1 - torch.exp(torch.tensor(-1.5))
    assert abs(flat - expected) < 0.02 and abs(chirp - expected) < 0.02
    p = drop.probabilities(flat_and_chirp())
    torch.testing.assert_close(p, torch.full_like(p, 1 / 400))


def test_evaluation_and_switched_off_are_the_convolution():
    drop, x = layer(), flat_and_chirp()
    assert torch.equal(drop.eval()(x), drop.conv(x))
    net = nn.Sequential(drop, nn.ReLU(), layer(rate=0.5)).train()
    assert set_info_drop(net, False) == 2
    assert torch.equal(drop(x), drop.conv(x))
    assert set_info_drop(net, True) == 2
    assert (drop(x) == 0).double().mean() > 0.1
    assert torch.equal(layer(rate=0.0).train()(x), layer().conv(x))


def test_similarity_is_its_formula():
    torch.manual_seed(0)
    conv = nn.Conv1d(2, 3, 5, stride=2, padding=4, dilation=2).double()
    x, offsets = torch.randn(2, 2, 30).double(), torch.tensor([-2, 1, 3])
    s = self_similarity(x, conv, offsets, bandwidth=0.8)
    d = torch.zeros(2, 3, 30).double()
    for j, o in enumerate(offsets.tolist()):
        for t in range(30):
            at = min(max(t + o, 0), 29)
            d[:, j, t] = (x[:, :, t] - x[:, :, at]).square().sum(1)
    n_out = conv(x).shape[-1]
    D = torch.zeros(2, 3, n_out).double()
    for t in range(n_out):
        for i in range(5):
            at = 2 * t - 4 + 2 * i
            if 0 <= at < 30:
                D[:, :, t] += d[:, :, at]
    mean = D.mean((1, 2), keepdim=True)
    torch.testing.assert_close(s, torch.exp(-D / (2 * 0.64 * mean)).mean(1))
    assert self_similarity(0 * x, conv, offsets).eq(1).all()


def test_offset_zero_is_never_drawn(monkeypatch):
    drop, seen = layer(), []
    import eegtensor.nn.infodrop as module

    def spy(x, conv, offsets, **options):
        seen.append(offsets)
        return self_similarity(x, conv, offsets, **options)

    monkeypatch.setattr(module, "self_similarity", spy)
    for _ in range(30):
        drop.train()(flat_and_chirp(1))
    drawn = torch.cat(seen)
    assert set(drawn.tolist()) == {-3, -2, -1, 1, 2, 3}


def test_gradients_pass_where_it_did_not_drop():
    drop, x = layer().train(), flat_and_chirp(1).requires_grad_(True)
    y = drop(x)
    y.sum().backward()
    assert torch.isfinite(x.grad).all() and drop.conv.weight.grad.abs().sum() > 0
    with pytest.raises(EEGTensorError, match="Conv1d"):
        InfoDrop(nn.Linear(2, 2))
    with pytest.raises(EEGTensorError, match="temperature"):
        layer(temperature=0.0)
