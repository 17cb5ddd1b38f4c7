"""Responses of bags: the identity, classes, and belief propagation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, ShuffleSampler, build, train
from eegtensor.training.objectives import (
    AggregateResponses,
    BeliefProportions,
    CrossEntropy,
)
from eegtensor.training.objectives._beliefs import ising_beliefs, nearest_pairs


def test_rho_one_is_the_loss_of_instances(call):
    g = torch.Generator().manual_seed(0)
    bag = torch.randint(5, (60,), generator=g)
    f = torch.randn(60, 1, generator=g, dtype=torch.float64)
    response = torch.randn(5, generator=g, dtype=torch.float64)[bag]
    instance = (response - f[:, 0]).square().mean()
    got = call(AggregateResponses(rho=1.0), f, response, domain=bag)
    assert abs(float(got - instance)) < 1e-12
    means = torch.stack([f[bag == b].mean() for b in range(5)])
    bags = (response - means[bag]).square().mean()
    got = call(AggregateResponses(rho=0.0), f, response, domain=bag)
    assert abs(float(got - bags)) < 1e-12
    half = call(AggregateResponses(rho=0.3), f, response, domain=bag)
    assert abs(float(half - (bags + 0.3 * (instance - bags)))) < 1e-12


def test_classes_are_judged_by_their_proportions(call):
    g = torch.Generator().manual_seed(0)
    bag = torch.arange(40) % 4
    z = torch.randn(40, 3, generator=g, dtype=torch.float64)
    y = torch.randint(3, (40,), generator=g)
    share = torch.stack(
        [torch.bincount(y[bag == b], minlength=3) / 10 for b in range(4)]
    ).double()
    wanted = 0.0
    for b in range(4):
        own = z[bag == b]
        p = own.softmax(dim=1).mean(dim=0)
        wanted = wanted - 10 * (share[b] * p.log()).sum()
        wanted = wanted + 0.2 * (own - own.mean(dim=0)).square().sum()
    for target in (y, share[bag]):
        got = call(AggregateResponses(rho=0.2), z, target, domain=bag)
        torch.testing.assert_close(got, wanted / 40)
    # Which trial of a bag has which label does not matter.
    mixed = y.clone()
    mixed[bag == 0] = y[bag == 0].flip(0)
    got = call(AggregateResponses(rho=0.2), z, mixed, domain=bag)
    torch.testing.assert_close(got, wanted / 40)
    bags = AggregateResponses(rho=0.2, bags=torch.cat([bag, bag]))
    got = call(bags, z, y, index=torch.arange(40) + 40)
    torch.testing.assert_close(got, wanted / 40)


def test_between_bag_and_instance_the_risk_is_least(call):
    """Linear truth, bags of ten: some rho is at least as good as both ends."""
    risks = {rho: 0.0 for rho in (0.0, 0.03, 0.1, 0.3, 1.0)}
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        X = torch.randn(150, 10, generator=g, dtype=torch.float64)
        w = torch.randn(10, 1, generator=g, dtype=torch.float64)
        bag = torch.arange(150) // 10
        y = X @ w + torch.randn(150, 1, generator=g, dtype=torch.float64)
        M = (bag[:, None] == bag).double() / 10
        for rho in risks:
            # Its normal equations: the mean part and rho times what is within bags.
            A = X.mT @ (M + rho * (torch.eye(150).double() - M)) @ X
            found = torch.linalg.solve(A, X.mT @ M @ y)
            risks[rho] += float((found - w).square().sum())
            if seed == 0:
                v = found.clone().requires_grad_()
                loss = call(
                    AggregateResponses(rho=rho), X @ v, (M @ y)[:, 0], domain=bag
                )
                assert torch.autograd.grad(loss, v)[0].abs().max() < 1e-10
    assert min(risks.values()) <= min(risks[0.0], risks[1.0])
    assert min(risks[0.03], risks[0.1], risks[0.3]) < risks[1.0]


def brute_force(bag, count, strength, pairs, weights):
    n = len(bag)
    total, ones = 0.0, torch.zeros(n, dtype=torch.float64)
    for y in itertools.product([0.0, 1.0], repeat=n):
        y = torch.tensor(y, dtype=torch.float64)
        energy = sum(
            strength[b] * (y[bag == b].sum() - count[b]) ** 2 for b in range(len(count))
        )
        energy += (weights * (y[pairs[0]] - y[pairs[1]]) ** 2).sum()
        p = math.exp(-float(energy))
        total, ones = total + p, ones + p * y
    return ones / total


def test_beliefs_are_exact_on_a_tree():
    bag = torch.tensor([0, 0, 1, 1, 2, 3, 3])
    count = torch.tensor([1.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    strength = torch.tensor([0.5, 0.8, 1.0, 0.3], dtype=torch.float64)
    pairs = torch.tensor([[1, 3, 4], [2, 4, 5]])
    weights = torch.tensor([0.7, 0.4, 1.1], dtype=torch.float64)
    args = (bag, count, strength, pairs, weights)
    got = ising_beliefs(*args, n_iterations=100)
    torch.testing.assert_close(got, brute_force(*args), rtol=0, atol=1e-10)


def test_beliefs_are_near_on_bags_with_loops():
    g = torch.Generator().manual_seed(0)
    bag = torch.arange(12) // 6
    count = torch.tensor([1.0, 5.0], dtype=torch.float64)
    strength = torch.full((2,), 1 / 6, dtype=torch.float64)
    pairs, weights = nearest_pairs(
        torch.nn.functional.normalize(torch.randn(12, 3, generator=g)).double(), 2
    )
    args = (bag, count, strength, pairs, 0.3 * weights)
    assert (ising_beliefs(*args) - brute_force(*args)).abs().max() < 0.1


def test_bags_of_one_trial_return_the_labels():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (30,), generator=g)
    data = Batch(torch.zeros(30, 1), y, torch.arange(30))
    objective = BeliefProportions(data, smoothness=0.0)
    p = objective.beliefs(torch.randn(30, 4, generator=g, dtype=torch.float64))
    assert torch.equal((p > 0.5).long(), y)
    assert torch.equal(objective.labels, y)


def bags_of(seed, n_bags=20, size=32):
    """Two classes, bags of 32 whose share of the second differs from bag to bag."""
    g = torch.Generator().manual_seed(seed)
    bag = torch.arange(n_bags * size) // size
    share = torch.rand(n_bags, generator=g)[bag]
    y = (torch.rand(len(bag), generator=g) < share).long()
    x = torch.randn(len(bag), 8, generator=g)
    x[:, 0] += 2.4 * (y - 0.5)
    # Only counts are to matter: labels in another order within their bag.
    shuffled = y.clone()
    for b in range(n_bags):
        own = (bag == b).nonzero()[:, 0]
        shuffled[own] = y[own[torch.randperm(size, generator=g)]]
    return x, y, shuffled, bag


def learned(objectives, seed):
    x, y, shuffled, bag = bags_of(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    data = Batch(x, shuffled, bag)
    setup = Setup(net, data, epochs=12)
    train(
        net,
        data,
        objective=[build(name, "objective", setup) for name in objectives],
        optimizer=torch.optim.Adam(net.parameters(), lr=3e-3),
        sampler=ShuffleSampler(len(x), batch_size=64),
        epochs=12,
    )
    return float((net(x).argmax(dim=1) == y).float().mean())


@pytest.mark.slow
def test_trials_are_told_apart_by_counts_alone():
    scores = {}
    for names in (
        ("cross-entropy",),
        ("aggregate",),
        ("belief-proportions", "0.5 * aggregate"),
    ):
        scores[names] = sum(learned(names, seed) for seed in range(3)) / 3
    # Labels at random within their bag are what cross entropy has of them. Here the
    # loss of bags alone is the best of the three.
    plain, bags, beliefs = scores.values()
    assert beliefs > plain + 0.03 and bags > plain + 0.03, scores


def test_by_name_it_knows_the_proportions_of_whole_bags(call):
    x, _, shuffled, bag = bags_of(0, n_bags=4)
    setup = Setup(nn.Linear(8, 2), Batch(x, shuffled, bag))
    _, objective = build("aggregate(rho=0.0)", "objective", setup)
    share = torch.stack([(shuffled[bag == b] == 1).float().mean() for b in range(4)])
    z = torch.randn(10, 2, requires_grad=True)
    index, labels = torch.arange(20, 30), shuffled[20:30]
    got = call(objective, z, labels, domain=bag[20:30], index=index)
    own = share[bag[20:30]]
    target = torch.stack([1 - own, own], dim=1)
    wanted = call(AggregateResponses(rho=0.0), z, target, domain=bag[20:30])
    torch.testing.assert_close(got, wanted)


def test_rounds_begin_where_they_should_and_are_saved():
    x, _, shuffled, bag = bags_of(0, n_bags=6)
    net, data = nn.Linear(8, 2), Batch(x, shuffled, bag)
    objective, when = BeliefProportions(data, rounds=3), []
    objective.relabel = lambda model, f=objective.relabel: (when.append(1), f(model))

    class Watch:
        def on_epoch_end(self, state):
            when.append(0)

    train(
        net,
        data,
        objective=[objective, CrossEntropy()],
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        sampler=ShuffleSampler(len(x)),
        epochs=7,
        callbacks=[Watch()],
    )
    assert when == [1, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    other = BeliefProportions(data)
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.labels, objective.labels)


def test_relabelling_leaves_the_network_as_it_was(toy, trials, equal):
    net, data = toy(), trials(64)
    net.train()
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    objective = BeliefProportions(data)
    objective.relabel(net)
    assert equal(kept, dict(net.state_dict())) and net.training
    # 64 trials of four domains whose classes are told by two of eight inputs.
    agree = (objective.labels == data.y).float().mean()
    assert agree > 0.5


def test_mistakes(call):
    with pytest.raises(EEGTensorError, match="bags"):
        call(AggregateResponses(), torch.zeros(3, 2), torch.zeros(3).long())
    with pytest.raises(EEGTensorError, match="2 outputs a trial for one response"):
        call(
            AggregateResponses(),
            torch.zeros(3, 2),
            torch.zeros(3),
            domain=torch.zeros(3).long(),
        )
    with pytest.raises(EEGTensorError, match="domains"):
        BeliefProportions(Batch(torch.zeros(3, 1), torch.zeros(3).long()))
    with pytest.raises(EEGTensorError, match="two classes"):
        y = torch.tensor([0, 1, 2])
        BeliefProportions(Batch(torch.zeros(3, 1), y, y))
