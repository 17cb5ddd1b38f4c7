"""Attention of equal entropy: its weights, its limits, its cost."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eegtensor import EEGTensorError
from eegtensor.nn import EntropyEqualAttention, entropy_equal_attention
from eegtensor.nn.linearattention import positive_features


def drawn(n=200, width=8, size=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k = (
        size**0.5 * torch.randn(2, n, width, generator=g, dtype=torch.float64)
        for _ in range(2)
    )
    return q, k


def weights(q, k, present=None, features="relu"):
    """Rows of the attention: what one-hot values are read with."""
    eye = torch.eye(k.shape[-2], dtype=k.dtype).expand(*k.shape[:-1], -1)
    return entropy_equal_attention(q, k, eye, present, features=features)


def deficit(w):
    """log n minus the entropy."""
    n = w.shape[-1]
    return torch.log(torch.tensor(float(n))) + torch.special.xlogy(w, w).sum(-1)


@pytest.mark.parametrize("features", ["relu", "power"])
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_weights_are_probabilities_of_the_features_ranking(features, size):
    q, k = drawn(size=size)
    w = weights(q, k, features=features)
    assert w.min() > -1e-12
    torch.testing.assert_close(w.sum(-1), torch.ones_like(w[..., 0]))
    # theta >= 0: affine in phi(q)'phi(k), with a slope and an offset of no less than 0.
    logits = positive_features(q, features) @ positive_features(k, features).mT
    shifted = logits - logits.mean(-1, keepdim=True)
    slope = (w * shifted).sum(-1, keepdim=True) / shifted.square().sum(-1, keepdim=True)
    assert slope.min() >= -1e-12
    torch.testing.assert_close(w, 1 / k.shape[-2] + slope * shifted)


def test_entropy_is_the_softmaxs_where_weights_are_moderate():
    q, k = drawn(size=0.2, n=2000)
    soft = torch.softmax(q @ k.mT / 8**0.5, dim=-1)
    own, true = deficit(weights(q, k)).mean(), deficit(soft).mean()
    # The approximation is of second order in the deficit.
    assert abs(own - true) < 0.1 * true, (own, true)
    assert torch.corrcoef(torch.stack([weights(q, k)[0, 0], soft[0, 0]]))[0, 1] > 0.6


def test_peaked_softmax_is_out_of_reach_of_relu_features():
    q, k = drawn(size=9.0, n=2000)
    soft = torch.softmax(q @ k.mT / 8**0.5, dim=-1)
    relu = deficit(weights(q, k)).mean()
    power = deficit(weights(q, k, features="power")).mean()
    true = deficit(soft).mean()
    assert relu < 0.3 * true and relu < power < true, (relu, power, true)


def test_equal_keys_are_the_mean():
    q, k = drawn()
    g = torch.Generator().manual_seed(1)
    v = torch.randn(2, 200, 5, generator=g, dtype=torch.float64)
    mean = v.mean(-2, keepdim=True).expand(-1, 200, -1)
    same = k[:, :1].expand_as(k).contiguous()
    torch.testing.assert_close(entropy_equal_attention(q, same, v), mean)
    torch.testing.assert_close(entropy_equal_attention(0 * q, k, v), mean)
    small = entropy_equal_attention(1e-6 * q, k, v)
    torch.testing.assert_close(small, mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("features", ["relu", "power"])
def test_absent_keys_and_gradients(features):
    q, k = drawn(12)
    v = torch.randn(2, 12, 3, dtype=torch.float64)
    present = torch.ones(2, 12, dtype=torch.bool)
    present[:, 9:] = False
    some = entropy_equal_attention(q, k, v, present, features=features)
    alone = entropy_equal_attention(q, k[:, :9], v[:, :9], features=features)
    torch.testing.assert_close(some, alone)
    inputs = [z[:1, :6].clone().requires_grad_(True) for z in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: entropy_equal_attention(q, k, v, features=features), inputs
    )


def test_cost_is_linear():
    layer = EntropyEqualAttention(16, 2)

    def flops(n):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.randn(1, n, 16))
        return counter.get_total_flops()

    assert 7.9 < flops(8192) / flops(1024) < 8.1


def test_layer():
    torch.manual_seed(0)
    layer = EntropyEqualAttention(16, 4).double()
    h = torch.randn(3, 20, 16).double()
    present = torch.arange(20) < torch.tensor([20, 12, 5])[:, None]
    out = layer(h, present)
    assert out.shape == h.shape
    moved = h.clone()
    moved[2, 5:] = 100.0
    torch.testing.assert_close(layer(moved, present)[2, :5], out[2, :5])
    order = torch.randperm(20)
    torch.testing.assert_close(layer(h[:, order]), layer(h)[:, order])
    exported = torch.export.export(layer.eval(), (h, present)).module()
    torch.testing.assert_close(exported(h, present), out)
    with pytest.raises(EEGTensorError, match="divisor"):
        EntropyEqualAttention(16, 3)
