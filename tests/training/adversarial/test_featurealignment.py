"""AFA: two sets of statistics, mixed trial by trial, and the gate that says how."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.geometry import geodesic
from eegtensor.models import TSMNet
from eegtensor.simulate import simulate_trials
from eegtensor.training import (
    Batch,
    Network,
    Setup,
    make_plugs,
    refit_statistics,
    train,
)
from eegtensor.training.perturbations._adversary import Budget, moved, worst
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.recipes import AdaptiveFeatures, align_features

EPS = 0.2


@pytest.fixture(scope="module")
def people():
    t = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=60, n_channels=6, sfreq=64.0,
        n_classes=2, snr=3.0, random_state=0,
    )  # fmt: skip
    domain = np.unique(t.metadata["subject"], return_inverse=True)[1]
    y = np.unique(t.y, return_inverse=True)[1]
    return Batch(
        torch.from_numpy(np.asarray(t.X, dtype=np.float32)),
        torch.from_numpy(y),
        torch.from_numpy(domain),
    )


def domains():
    return [("", str(k), "") for k in range(3)]


@pytest.fixture(scope="module")
def trained_network(people):
    net = TSMNet(
        6, 2, people.x.shape[2], domains=domains(), n_spatial_filters=8, subspace=8,
        random_state=0,
    )  # fmt: skip
    setup = Setup(net, people, epochs=12, batch_size=45, domains_per_batch=3, lr=5e-3)
    train(net, people, epochs=12, **make_plugs(setup, sampler="domain-balanced"))
    refit_statistics(net, people)
    return net.eval()


@pytest.fixture(scope="module")
def made(trained_network, people):
    return align_features(trained_network, people, eps=EPS, n_steps=5)


def attacked(net, data, strength, eps=EPS):
    budget = Budget.checked(eps, 5, None, "linf")
    d = worst(Network(net), data, budget, generator=torch.Generator().manual_seed(3))
    return moved(data, strength * d, channel_scale(data.x))


def test_all_of_one_set_is_the_network_with_these_statistics(
    trained_network, made, people, equal
):
    before = {n: b.clone() for n, b in trained_network.named_buffers()}
    one, none = torch.ones(len(people)), torch.zeros(len(people))
    with torch.no_grad():
        clean = trained_network(people.x, domain=people.domain)
        found = made(people.x, people.domain, share=one)
        torch.testing.assert_close(found, clean, rtol=1e-9, atol=1e-9)
        there = made(people.x, people.domain, share=none)
        norm = trained_network.norm
        kept = norm.test_mean.clone(), norm.test_variance.clone()
        norm.test_mean.copy_(made.attacked_0_test_mean)
        norm.test_variance.copy_(made.attacked_0_test_variance)
        wanted = trained_network(people.x, domain=people.domain)
        norm.test_mean.copy_(kept[0])
        norm.test_variance.copy_(kept[1])
    torch.testing.assert_close(there, wanted, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(there, clean, rtol=1e-3)
    assert equal(before, dict(trained_network.named_buffers()))


def test_between_them_the_mean_is_on_the_geodesic(trained_network, made, people):
    """The tail by hand, trial by trial, with a mean and a dispersion of its own."""
    net, norm = trained_network, trained_network.norm
    share = torch.linspace(0, 1, len(people))
    some = torch.tensor([0, 50, 100, 150])
    with torch.no_grad():
        found = made(people.x, people.domain, share=share)[some]
        for row, i in zip(found, some.tolist(), strict=True):
            d, t = int(people.domain[i]), 1 - float(share[i])
            kept = norm.test_mean.clone(), norm.test_variance.clone()
            other = made.attacked_0_test_mean[d], made.attacked_0_test_variance[d]
            norm.test_mean[d] = geodesic(
                kept[0][d], other[0], t, metric="affine-invariant"
            )
            norm.test_variance[d] = (1 - t) * kept[1][d] + t * other[1]
            wanted = net(people.x[i : i + 1], domain=people.domain[i : i + 1])[0]
            norm.test_mean.copy_(kept[0])
            norm.test_variance.copy_(kept[1])
            torch.testing.assert_close(row, wanted, rtol=1e-6, atol=1e-6)


def test_lambda_falls_with_the_strength_of_the_attack(trained_network, made, people):
    """Specification: monotonic; clean accuracy within a point of the clean branch."""
    with torch.no_grad():
        means = []
        for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
            with torch.enable_grad():
                there = attacked(trained_network, people, strength)
            means.append(float(made.lambdas(there.x.detach(), people.domain).mean()))
        assert all(a > b for a, b in itertools.pairwise(means)), means
        clean = trained_network(people.x, domain=people.domain).argmax(1) == people.y
        ours = made(people.x, people.domain).argmax(1) == people.y
    assert ours.double().mean() >= clean.double().mean() - 0.01


def test_batch_norms_of_torch_mix_what_they_return():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Tanh())
    net.append(nn.Linear(5, 2))
    net.eval()
    made = AdaptiveFeatures(net, 5).eval()
    x, share = torch.randn(7, 3, 4), torch.linspace(0, 1, 7)
    norm = net[2]
    with torch.no_grad():
        made.attacked_0_running_mean += 0.7
        made.attacked_0_running_var *= 3.0
        z = net[1](x.flatten(1))
        a = norm(z)
        b = (z - norm.running_mean - 0.7) / (3 * norm.running_var + norm.eps).sqrt()
        wanted = net[4]((share[:, None] * a + (1 - share[:, None]) * b).tanh())
        torch.testing.assert_close(made(x, share=share), wanted)
        assert made.lambdas(x).shape == (7,)


def test_mistakes(made, people):
    made.train()
    with pytest.raises(EEGTensorError, match="evaluation"):
        made(people.x, people.domain)
    made.eval()
    for norm in ("none", "batch"):
        net = TSMNet(6, 2, 64, norm=norm, n_spatial_filters=4, subspace=3)
        with pytest.raises(EEGTensorError, match="statistics of domains"):
            AdaptiveFeatures(net, 6)
