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
