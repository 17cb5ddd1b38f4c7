"""Linear maps of ReLU networks: exact within their radius, and not beyond it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.trust.explain import exact_radius, linear_maps


def network(pool=nn.AvgPool1d):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(3, 4, 5),
        nn.BatchNorm1d(4),
        nn.ReLU(inplace=True),
        pool(2),
        nn.Flatten(),
        nn.Linear(32, 10),
        nn.LeakyReLU(),
        nn.Dropout(),
        nn.Linear(10, 3),
    ).double()
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2.0)
    return net


def moved(net, maps, x, d):
    """Largest error of the linear maps at x + d."""
    with torch.no_grad():
        true = net.eval()(x + d)
    said = torch.einsum("nkct,nct->nk", maps.weights, x + d) + maps.offset
    return (true - said).abs().amax(1)


def test_the_map_is_the_network_within_the_radius_and_not_beyond():
    net, x = network(), torch.randn(6, 3, 20, dtype=torch.float64)
    net.train()
    maps, radius = linear_maps(net, x), exact_radius(net, x, block=7)
    assert net.training and (radius > 0).all() and torch.isfinite(radius).all()
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        d = torch.randn(x.shape, generator=g, dtype=x.dtype)
        d = d / d.flatten(1).norm(dim=1)[:, None, None]
        assert moved(net, maps, x, 0.999 * radius[:, None, None] * d).max() < 1e-12
    # Towards the nearest kink: just within nothing bends, just beyond it does.
    z_of = net.eval()[:2]
    for i in range(6):
        one = x[i : i + 1].clone().requires_grad_(True)
        z = z_of(one).flatten()
        slopes = torch.stack(
            [torch.autograd.grad(v, one, retain_graph=True)[0].flatten() for v in z]
        )
        away = z.abs() / slopes.norm(dim=1)
        if away.min() > radius[i] * (1 + 1e-9):
            # A later layer's kink is nearer.
            continue
        j = away.argmin()
        way = -z[j].sign() * slopes[j] / slopes[j].norm()
        d = torch.zeros_like(x)
        d[i] = (way * radius[i]).view(3, 20)
        assert moved(net, maps, x, 0.999 * d)[i] < 1e-12
        assert moved(net, maps, x, 1.05 * d)[i] > 1e-9


def test_lipschitz_and_units():
    net, x = network(), torch.randn(4, 3, 20, dtype=torch.float64)
    maps = linear_maps(net, x)
    torch.testing.assert_close(
        maps.lipschitz, torch.linalg.svdvals(maps.weights.flatten(2))[:, 0]
    )
    torch.testing.assert_close(maps.outputs, net.eval()(x).detach())
    g = torch.Generator().manual_seed(0)
    d = torch.randn(x.shape, generator=g, dtype=x.dtype)
    d *= (
        0.9
        * exact_radius(net, x)[:, None, None]
        / d.flatten(1).norm(dim=1)[:, None, None]
    )
    change = (net(x + d) - net(x)).norm(dim=1)
    assert (change <= maps.lipschitz * d.flatten(1).norm(dim=1) + 1e-12).all()


def test_max_pooling_has_maps_but_no_radius():
    net, x = network(nn.MaxPool1d), torch.randn(2, 3, 20, dtype=torch.float64)
    assert moved(net, linear_maps(net, x), x, torch.zeros_like(x)).max() < 1e-12
    assert moved(net, linear_maps(net, x), x, 1e-7 * torch.ones_like(x)).max() < 1e-12
    with pytest.raises(EEGTensorError, match="MaxPool1d"):
        exact_radius(net, x)


def test_a_curved_layer_is_refused():
    x = torch.randn(2, 3)
    with pytest.raises(EEGTensorError, match="ELU"):
        linear_maps(nn.Sequential(nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 2)), x)
    linear = nn.Sequential(nn.Linear(3, 2))
    assert torch.isinf(exact_radius(linear, x)).all()
