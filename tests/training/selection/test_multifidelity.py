"""Good and poor recordings in one network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, make_plugs, refit_statistics, train
from eegtensor.training.network import Network
from eegtensor.training.recipes import MultiFidelity


def test_starts_as_the_shared_network_and_keeps_poor_trials_there(toy, trials):
    data, net = trials(40), toy(dropout=0.0)
    both = MultiFidelity(net, 3, 2, [0, 0, 1, 2]).eval()
    plain = Network(net)(data)
    assert torch.equal(Network(both)(data), plain)
    with torch.no_grad():
        both.bias[0], both.bias[1] = 1.0, 5.0
        both.scale[1] = 2.0
    got = Network(both)(data)
    wanted = plain.clone()
    wanted[data.domain == 2] += 1.0
    wanted[data.domain == 3] = 2.0 * plain[data.domain == 3] + 5.0
    torch.testing.assert_close(got, wanted)
    # People who are not in the list: the best quality.
    far = Batch(data.x, domain=torch.full_like(data.domain, 3))
    new = MultiFidelity(nn.Identity(), 3, 2, [0, 1]).get_buffer("quality")
    assert new.tolist() == [0, 1, 1]
    assert torch.equal(Network(both)(far)[0] != Network(net)(far)[0], torch.ones(2) > 0)
    refit_statistics(both, data)
    with pytest.raises(EEGTensorError, match="unseen"):
        MultiFidelity(net, 3, 2, [0, 1], unseen=2)


def accuracy(net, data):
    net.eval()
    logits = Network(net)(data)
    return float((logits.argmax(1) == data.y).double().mean())


def test_better_than_good_trials_alone_and_than_all_as_one():
    """Classes are told by the same sources; poor recordings are biased to the first.

    Without the bias no gain is to be had: the shared network is then the maximum of
    the likelihood of all trials, and a correction only adds numbers to be found.
    """
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(8, 48, generator=g)
    true = torch.randn(8, 3, generator=g)
    tilt = torch.tensor([3.0, 0.0, -3.0])

    def draw(n, domain, bias, noise):
        s = torch.randn(n, 8, generator=g)
        x = s @ mix + noise * torch.randn(n, 48, generator=g)
        return x, (s @ true + bias).argmax(1), torch.full((n,), domain)

    poor, good = draw(2000, 0, tilt, 2.0), draw(30, 1, 0 * tilt, 2.0)
    test = Batch(*draw(1500, 1, 0 * tilt, 2.0))
    both = (torch.cat(p) for p in zip(poor, good, strict=True))
    # Few trials count more, with and without the correction.
    weight = torch.cat([torch.ones(2000), torch.full((30,), 10.0)])
    parts = {"good": Batch(*good), "all": Batch(*both, weight=weight)}

    def fit(data, wrapped):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 3))
        if wrapped:
            net = MultiFidelity(net, 8, 3, [0, 1])
        epochs = 60 if len(data) < 100 else 15
        plugs = make_plugs(Setup(net, data, n_classes=3, batch_size=50, lr=0.01))
        train(net, data, epochs=epochs, **plugs)
        return accuracy(net, test)

    found = fit(parts["all"], True)
    alone, pooled = fit(parts["good"], False), fit(parts["all"], False)
    assert found > max(alone, pooled) + 0.02, (found, alone, pooled)
