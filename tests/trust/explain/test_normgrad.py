"""NormGrad: its identity, a planted burst, and what must change a map."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.models import TSMNet
from eegtensor.trust.explain import (
    class_sensitivity,
    combined_norm_grad,
    norm_grad,
    spd_norm_grad,
)
from eegtensor.trust.explain._layers import activations_and_gradients


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(4, 8, 9, padding=4),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Conv1d(8, 8, 9, padding=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


@cache
def trained():
    """Noise, and of classes 1 and 2 a burst of 100 ms (12 samples) at a random time."""
    net = network()
    g = torch.Generator().manual_seed(0)

    def trials(n):
        y = torch.randint(3, (n,), generator=g)
        at = torch.randint(0, 116, (n,), generator=g)
        x = 0.15 * torch.randn(n, 4, 128, generator=g)
        t = torch.arange(128)
        inside = ((t >= at[:, None]) & (t < at[:, None] + 12)).float()
        waves = torch.stack([torch.sin(0.5 * torch.pi * t), torch.cos(torch.pi * t)])
        for c in (1, 2):
            own = (y == c)[:, None] * inside * waves[c - 1]
            x[:, c] += 3.0 * own
        return x, y, inside.bool()

    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(200):
        x, y, _ = trials(64)
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y, inside = trials(200)
    assert (net.eval()(x).argmax(1) == y).float().mean() > 0.95
    return net, x[y > 0], y[y > 0], inside[y > 0]


def test_it_is_the_norm_of_a_locations_share_in_a_weight_gradient():
    net, x, y = network().double().eval(), torch.randn(3, 4, 128).double(), None
    y = torch.tensor([0, 2, 1])
    s = norm_grad(net, x, y, "2")
    a, g, _ = activations_and_gradients(net, x, y, "2")
    outer = torch.einsum("nku,nlu->nukl", g, a)
    torch.testing.assert_close(s, torch.linalg.matrix_norm(outer), rtol=1e-12, atol=0)
    selective = norm_grad(net, x, y, "2", variant="selective")
    torch.testing.assert_close(selective, (a * g).clamp_min(0).pow(2).sum(1).sqrt())
    # Shares add up to the gradient of a 1 x 1 convolution put there.
    layer = nn.Conv1d(8, 8, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(8)[:, :, None])
    longer = nn.Sequential(*net[:3], layer, *net[3:]).eval()
    longer(x[:1])[0, 0].backward()
    torch.testing.assert_close(outer[0].sum(0), layer.weight.grad[:, :, 0])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("two", [False, True])
def test_shares_of_a_convolution_itself(stride, two):
    torch.manual_seed(0)
    if two:
        conv, x = nn.Conv2d(2, 3, (2, 3), stride, 1), torch.randn(2, 2, 4, 20)
    else:
        conv, x = nn.Conv1d(2, 3, 5, stride, 2, dilation=2), torch.randn(2, 2, 30)
    net = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    x, y = x.double(), torch.tensor([0, 1])
    net(x)
    s = norm_grad(net, x, y, "0", variant="weights")
    z = net[0](x)
    assert s.shape == (2, *z.shape[2:])
    # One location's share: the gradient of the weights through that location alone.
    _, g, _ = activations_and_gradients(net, x, y, "0")
    for at in (0, s[0].numel() - 1, s[0].numel() // 2):
        only = torch.zeros_like(g[:1].flatten(2))
        only[..., at] = g[:1].flatten(2)[..., at]
        (share,) = torch.autograd.grad(net[0](x[:1]), conv.weight, only.view_as(g[:1]))
        torch.testing.assert_close(s[0].flatten()[at], share.norm())


def share_in_burst(s, inside):
    """Share of the map within the kernels' reach (8 samples) of the burst."""
    reach = nn.functional.max_pool1d(inside.float(), 17, 1, 8)
    return float(((s * reach).sum(1) / s.sum(1)).mean())


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_a_planted_burst_holds_the_saliency(layer):
    net, x, y, inside = trained()
    selective = norm_grad(net, x, y, layer, variant="selective")
    assert share_in_burst(selective, inside) > 0.8
    plain = share_in_burst(norm_grad(net, x, y, layer), inside)
    # Under the average of all times gradients are the same everywhere, and the
    # plain map is that of the activations alone: it counts noise that they hold.
    assert plain > (0.8 if layer == "0" else 0.6)
    # By chance: 29 of 128 samples.
    assert plain > 2.5 * 29 / 128


def test_layers_together():
    net, x, y, inside = trained()
    for combine in ("product", "geometric-mean", "weighted"):
        s = combined_norm_grad(
            net, x, y, ["0", "4"], combine=combine, variant="selective"
        )
        assert s.shape == (len(x), 128)
        assert share_in_burst(s, inside) > 0.8


def test_random_weights_of_the_last_layer_change_the_map():
    net, x, y, _ = trained()
    options = [("0", "selective"), ("2", "selective"), ("0", "norm"), ("4", "norm")]
    maps = [norm_grad(net, x, y, n, variant=v) for n, v in options]
    kept = net[7].weight.detach().clone()
    with torch.no_grad():
        net[7].weight.normal_(generator=torch.Generator().manual_seed(0))
    others = [norm_grad(net, x, y, n, variant=v) for n, v in options]
    with torch.no_grad():
        net[7].weight.copy_(kept)
    same = [
        float(torch.cosine_similarity(a, b, dim=1).mean())
        for a, b in zip(maps, others, strict=True)
    ]
    assert max(same[:2]) < 0.9 and same[2] < 0.95, same
    # Under the average of all times the plain map does not see the last layer.
    assert same[3] == pytest.approx(1.0, abs=1e-4)


def test_a_step_first_and_everything_is_put_back():
    net, x, y, _ = trained()
    x, y = x[:6], y[:6]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    plain = norm_grad(net, x, y, "4")
    stepped = norm_grad(net, x, y, "4", meta_lr=1e-2)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.allclose(plain, stepped)
    tiny = norm_grad(net, x, y, "4", meta_lr=1e-12)
    torch.testing.assert_close(plain, tiny, rtol=1e-4, atol=1e-8)
    # By hand: one step of the first trial.
    loss = nn.functional.cross_entropy(net.eval()(x[:1]), y[:1])
    slopes = torch.autograd.grad(loss, list(net.parameters()))
    with torch.no_grad():
        for p, g in zip(net.parameters(), slopes, strict=True):
            p -= 1e-2 * g
    byhand = norm_grad(net, x[:1], y[:1], "4")
    net.load_state_dict(before)
    torch.testing.assert_close(stepped[:1], byhand)


def test_class_sensitivity_is_lower_after_a_step():
    net, x, _, _ = trained()
    plain = class_sensitivity(net, x[:40], "4")
    assert plain.shape == (40,) and (plain.abs() <= 1 + 1e-6).all()
    stepped = class_sensitivity(net, x[:40], "4", meta_lr=1e-2)
    assert stepped.mean() <= plain.mean() + 0.02


def test_a_network_on_manifolds_and_its_electrodes():
    torch.manual_seed(0)
    net = TSMNet(5, 2, 64, domains=["a"], temporal_kernel=5, random_state=0).double()
    x, y = torch.randn(4, 5, 64).double(), torch.tensor([0, 1, 1, 0])
    net.fit_statistics(x, torch.zeros(4, dtype=torch.int64))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    domain = torch.zeros(4, dtype=torch.int64)
    s = norm_grad(net, x, y, "tail", channel_axis=1, domain=domain, meta_lr=1e-3)
    assert s.shape[0] == 4 and torch.isfinite(s).all()
    for name, value in net.state_dict().items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7)), name


def test_saliency_of_a_bimap_goes_back_to_its_channels():
    from eegtensor.nn import BiMap, TangentVector

    torch.manual_seed(0)
    bimap = BiMap(6, 2).double()
    with torch.no_grad():
        bimap.weight.copy_(torch.eye(6)[:, :2])
    net = nn.Sequential(bimap, TangentVector(), nn.Linear(3, 2)).double()
    A = torch.randn(3, 6, 20).double()
    s = spd_norm_grad(net, A @ A.mT, torch.tensor([0, 1, 0]), "0")
    # Only the first two channels enter.
    assert s.shape == (3, 6) and (s[:, :2] > 0).all() and (s[:, 2:] == 0).all()
    with pytest.raises(EEGTensorError, match="no BiMap"):
        spd_norm_grad(net, A @ A.mT, torch.tensor([0, 1, 0]), "2")


def test_refusals():
    net, x, y, _ = trained()
    with pytest.raises(EEGTensorError, match="no layer 'conv'"):
        norm_grad(net, x, y, "conv")
    with pytest.raises(EEGTensorError, match="Conv1d and Conv2d"):
        norm_grad(net, x, y, "2", variant="weights")
    with pytest.raises(EEGTensorError, match="targets"):
        norm_grad(net, x, y[:1], "2")
