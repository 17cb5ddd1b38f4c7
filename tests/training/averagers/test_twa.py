"""TWA: the span, its limits, the steps of the equations, whole runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    ParamSpace,
    Setup,
    ShuffleSampler,
    build,
    evaluate,
    make_optimizer,
    train,
)
from eegtensor.training.averagers import TWA
from eegtensor.training.averagers._learning import _gradient
from eegtensor.training.objectives import WeightedSum


def logistic(n=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=g).double()
    y = (x[:, 0] + x[:, 1] + torch.randn(n, generator=g) > 0).long()
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Linear(12, 2).double(), Batch(x, y)


def run(averager, epochs=12):
    net, data = logistic()
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "sgd", lr=0.3, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=20),
        epochs=epochs,
        averager=averager,
    )
    return net, data


def flat(points, space):
    return torch.cat([points[n].detach().ravel() for n in space.leaves])


def test_the_result_lies_in_the_span_and_is_better_than_every_checkpoint():
    averager = TWA(start=0.25, weight_decay=0.0, lr=0.5)
    net, data = run(averager)
    space = ParamSpace(net)
    rows = torch.stack([flat(s, space) for s in averager.states])
    q = torch.linalg.qr(rows.T)[0]
    w = flat(space.points(), space)
    assert (w - q @ (q.T @ w)).norm() < 1e-5 * w.norm()

    def loss(points):
        space.assign(points)
        return evaluate(net, data, CrossEntropy())["loss"]

    end = space.snapshot()
    checkpoints = min(loss(s) for s in averager.states)
    swa = loss(space.mean(averager.states))
    assert loss(end) <= swa and loss(end) <= checkpoints


def test_without_a_rate_it_is_the_mean():
    averager = TWA(start=0.25, lr=0.0)
    net, _ = run(averager)
    space = ParamSpace(net)
    mean = space.mean(averager.states)
    for n, p in space.points().items():
        torch.testing.assert_close(p, mean[n], rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_projected_gradients_with_momentum(decay):
    net, data = logistic()
    space, g = ParamSpace(net), torch.Generator().manual_seed(1)
    states = [space.random_tangent(g) for _ in range(4)]
    averager = TWA(
        data="train",
        epochs=4,
        lr=0.2,
        batch_size=len(data),
        weight_decay=decay,
        keep_best=False,
    ).use(Network(net), CrossEntropy())
    before = space.snapshot()
    found = flat(averager.merge(states, space, data), space)
    assert all(torch.equal(before[n], p) for n, p in space.points().items())
    # By hand: Gram-Schmidt of the raw weights, SGD in the space of all weights.
    rows = [flat(s, space) for s in states]
    basis = []
    for r in rows:
        for b in basis:
            r = r - (b @ r) * b
        basis.append(r / r.norm())
    p = torch.stack(basis)
    w, m = torch.stack(rows).mean(dim=0), 0.0
    for lr in (0.2, 0.2, 0.02, 0.002)[:4]:
        parts = w.split([v.numel() for v in space.leaves.values()])
        named = {
            n: part.reshape(v.shape).clone().requires_grad_()
            for part, (n, v) in zip(parts, space.leaves.items(), strict=True)
        }
        out = torch.func.functional_call(net, named, (data.x,))
        loss = nn.functional.cross_entropy(out, data.y)
        grad = torch.autograd.grad(loss, list(named.values()))
        step = p.T @ (p @ torch.cat([v.ravel() for v in grad])) + decay * w
        m = step + 0.9 * m
        w = w - lr * m
    # Epoch 4 of 4: milestones at 2 and at int(3.9) = 3.
    torch.testing.assert_close(found, w, rtol=0, atol=1e-10)


def test_a_network_with_manifolds_and_statistics(toy, trials):
    data = trials()
    net = toy(dropout=0.0)
    averager = TWA(start=0.3, lr=0.5, epochs=3)
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-sgd", lr=0.05),
        sampler=ShuffleSampler(len(data), batch_size=40),
        epochs=6,
        averager=averager,
    )
    frame, shape = net.frame.detach(), net.shape.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(shape)[0] > 0
    assert evaluate(net, data, CrossEntropy())["loss"] < 0.7


def test_validation_trials_are_asked_for():
    net, data = logistic()
    with pytest.raises(EEGTensorError, match="no validation trials"):
        build("twa(data='validation')", "averager", Setup(net, data))
    made = build(
        "twa(data='validation')", "averager", Setup(net, data, validation=data)
    )
    assert made._validation is data


def test_mistakes():
    for options in ({"epochs": 0}, {"lr": -1.0}, {"data": "test"}):
        with pytest.raises(EEGTensorError):
            TWA(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 2.5},
        {"epochs": True},
        {"momentum": 1.5},
        {"momentum": -0.1},
        {"batch_size": 0},
        {"weight_decay": -1.0},
        {"every": 2.5},
        {"limit": 2.5},
        {"keep_best": "yes"},
        {"start": "half"},
    ],
    ids=str,
)
def test_mistakes_are_told_before_the_run(options):
    with pytest.raises(EEGTensorError, match="What to do"):
        TWA(**options)


def test_defaults_are_the_published_ones():
    net, data = logistic()
    space, g = ParamSpace(net), torch.Generator().manual_seed(1)
    averager, seen = TWA().use(Network(net)), {}

    def learn(frame, start, data, make_optimizer, **options):
        seen.update(options, group=make_optimizer([start]).param_groups[0])
        return start

    averager._learner.learn = learn
    averager.merge([space.random_tangent(g) for _ in range(3)], space, data)
    assert seen["group"]["lr"] == 2.0 and seen["group"]["momentum"] == 0.9
    assert seen["batch_size"] == 128 and seen["weight_decay"] == 1e-5
    rates = [seen["schedule"](epoch * 7, 70) for epoch in range(10)]
    # Milestones at 10 / 2 and at int(7.5 + 0.9), as in the authors' code.
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_it_learns_on_validation_trials_where_it_is_told_to():
    net, data = logistic()
    valid = data.pick(torch.arange(0, 200, 4))
    space, g = ParamSpace(net), torch.Generator().manual_seed(1)
    states = [space.random_tangent(g) for _ in range(4)]

    def merged(where, trials, validation=None):
        setup = Setup(net, data, validation=validation)
        averager = build(f"twa(data={where!r}, epochs=2, lr=0.1)", "averager", setup)
        return flat(averager.use(Network(net)).merge(states, space, trials), space)

    by_train, by_valid = merged("train", data), merged("train", valid)
    assert not torch.equal(by_train, by_valid)
    for where in ("auto", "validation"):
        assert torch.equal(merged(where, data, valid), by_valid)
    assert torch.equal(merged("train", data, valid), by_train)
    assert torch.equal(merged("auto", data), by_train)


def test_statistics_are_those_of_the_mixture_and_all_is_put_back():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    net, (_, data) = net.double(), logistic()
    space, g = ParamSpace(net), torch.Generator().manual_seed(1)
    states = [space.random_tangent(g) for _ in range(3)]
    net(data.x).sum().backward()
    gradients = [p.grad for p in net.parameters()]
    found = []
    for far in (0.0, 100.0):
        net[1].running_mean.fill_(far)
        before = {n: v.clone() for n, v in net.state_dict().items()}
        averager = TWA(epochs=2, lr=0.1, keep_best=False).use(Network(net))
        found.append(flat(averager.merge(states, space, data), space))
        for n, v in net.state_dict().items():
            assert torch.equal(v, before[n]), n
    assert torch.equal(*found), "statistics before have no say"
    for p, grad in zip(net.parameters(), gradients, strict=True):
        assert p.grad is grad


def test_decay_is_of_euclidean_weights_alone(toy, trials):
    net, data = (
        toy(dtype=torch.float64, dropout=0.0).eval(),
        trials(dtype=torch.float64),
    )
    space, g = ParamSpace(net), torch.Generator().manual_seed(1)
    here = space.snapshot()
    states = [
        space.retract(space.scale(space.random_tangent(g), 0.1)) for _ in range(4)
    ]
    frame = TWA().frame(states, space)
    space.assign(frame.base)
    start = torch.zeros(len(frame), dtype=torch.float64)
    network, loss = Network(net), WeightedSum(CrossEntropy())
    with_decay, without = (
        _gradient(network, loss, frame, start, data, decay) for decay in (0.5, 0.0)
    )
    flat_leaves = [n for n, a in space.adapters.items() if a.name == "euclidean"]
    wanted = sum(
        frame.directions[n].flatten(1) @ (0.5 * frame.base[n]).flatten()
        for n in flat_leaves
    )
    torch.testing.assert_close(with_decay - without, wanted)
    assert {"frame", "shape"} == set(here) - set(flat_leaves)
