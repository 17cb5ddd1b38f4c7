"""Weights made for each task: old ones stay where the penalty holds them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from eegtensor import EEGTensorError
from eegtensor.lifelong import HyperNetwork, OutputDrift
from eegtensor.training import Batch, CrossEntropy, ShuffleSampler, train


def target():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def task(number, n=120):
    g = torch.Generator().manual_seed(number)
    x = torch.randn(n, 4, generator=g)
    # Another direction each time; the last two are opposites.
    direction = torch.eye(4)[0] * (1.0 if number == 0 else -1.0)
    y = (x @ direction > 0).long()
    return Batch(x, y, torch.full((n,), number))


def learn(net, data, objective, epochs=40):
    train(
        net,
        data,
        objective=objective,
        optimizer=torch.optim.Adam(net.parameters(), lr=1e-2),
        sampler=ShuffleSampler(len(data), batch_size=40),
        epochs=epochs,
    )


def accuracy(net, data):
    with torch.no_grad():
        return (net(data.x, data.domain).argmax(1) == data.y).float().mean().item()


def test_outputs_are_the_targets_with_the_weights_made() -> None:
    net = HyperNetwork(template := target(), 3, n_piece=7)
    x, domain = torch.randn(5, 4), torch.tensor([2, 0, 2, 1, 0])
    y = net(x, domain)
    for i, d in enumerate(domain.tolist()):
        alone = functional_call(template, net.weights(d), (x[i : i + 1],))
        torch.testing.assert_close(y[i : i + 1], alone)
    shapes = {n: tuple(w.shape) for n, w in net.weights(0).items()}
    assert shapes == {n: tuple(p.shape) for n, p in template.named_parameters()}
    # The template is neither trained nor saved.
    assert not any(p is q for p in net.parameters() for q in template.parameters())


def test_later_weights_depend_on_the_state_after_earlier_ones() -> None:
    net = HyperNetwork(target(), 1, n_piece=8)
    first = net.weights(0)["2.weight"]
    with torch.no_grad():
        net.places[0] += 1.0
    assert (net.weights(0)["2.weight"] - first).abs().max() > 1e-4


def test_what_was_learned_stays_with_the_penalty() -> None:
    first, second = task(0), task(1)
    found = {}
    for strength in (0.0, 10.0):
        net = HyperNetwork(target(), 2, n_piece=16)
        learn(net, first, CrossEntropy())
        assert accuracy(net, first) > 0.95
        before = net(first.x, first.domain).detach()
        drift = OutputDrift(net, [0])
        learn(net, second, [CrossEntropy(), (strength, drift)])
        assert accuracy(net, second) > 0.95
        moved = (net(first.x, first.domain) - before).norm() / before.norm()
        found[strength] = accuracy(net, first), moved.item()
    kept, lost = found[10.0], found[0.0]
    assert kept[0] > 0.95
    assert kept[1] < 0.1
    assert kept[1] < 0.2 * lost[1]


def test_the_penalty_is_zero_where_nothing_moved() -> None:
    net = HyperNetwork(target(), 2)
    drift = OutputDrift(net, [0, 1])
    assert drift(net, task(0), None, None).item() == 0.0
    with torch.no_grad():
        net.embeddings[1] += 0.1
    assert drift(net, task(0), None, None).item() > 0.0
    with pytest.raises(EEGTensorError, match="no old tasks"):
        OutputDrift(net, [])
    with pytest.raises(EEGTensorError, match="no parameters"):
        HyperNetwork(nn.Tanh(), 1)
