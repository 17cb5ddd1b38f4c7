"""UDIM against gradients of single trials, double differentiation and SAM."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    ShuffleSampler,
    StepContext,
    make_optimizer,
    train,
)
from eegtensor.training.perturbations import SAM
from eegtensor.training.perturbations.places import Trials, frozen
from eegtensor.training.transforms import UDIM
from eegtensor.training.transforms.udim import inconsistency


def problem(n=12):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=g, dtype=torch.float64)
    return net, Batch(x, torch.randint(3, (n,), generator=g))


def single_gradients(net, x, y):
    """Of the head's weights and of its bias, by automatic derivatives."""
    rows = [
        torch.autograd.grad(
            cross_entropy(net(x[i : i + 1]), y[i : i + 1]),
            list(net[-1].parameters()),
            create_graph=True,
        )
        for i in range(len(x))
    ]
    return [torch.stack([row[k].flatten() for row in rows]) for k in (0, 1)]


def reference(net, x, x_new, y):
    """The inconsistency as the paper and the released code have it."""
    own, new = single_gradients(net, x, y), single_gradients(net, x_new, y)
    first, second, length = [], [], 0.0
    for a, b in zip(own, new, strict=True):
        first.append((a - a.mean(0)).square().mean(0))
        second.append((b - a.mean(0)).square().mean(0))
        length = length + b.square().sum(1).mean() / a.shape[1]
    first, second = torch.cat(first), torch.cat(second)
    mean = (first + second) / 2
    gap = ((first - mean).square().mean() + (second - mean).square().mean()) / 2
    return gap + length


def test_inconsistency_and_its_gradient_are_those_of_single_trials():
    net, batch = problem()
    g = torch.Generator().manual_seed(1)
    d = torch.randn(batch.x.shape, generator=g, dtype=torch.float64)
    x_new = batch.x + d * batch.x.std(0, correction=0)
    found = inconsistency(Trials(Network(net), batch), d, net[-1])
    wanted = reference(net, batch.x, x_new, batch.y)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
    for p in net.parameters():
        torch.testing.assert_close(
            torch.autograd.grad(found, p, retain_graph=True)[0],
            torch.autograd.grad(wanted, p, retain_graph=True)[0],
            rtol=1e-8,
            atol=1e-12,
        )


def test_without_a_perturbation_variances_agree():
    net, batch = problem()
    found = inconsistency(
        Trials(Network(net), batch), torch.zeros_like(batch.x), net[-1]
    )
    own = single_gradients(net, batch.x, batch.y)
    length = sum(a.square().sum(1).mean() / a.shape[1] for a in own)
    torch.testing.assert_close(found, length)


def test_unknown_trials_climb_the_loss_and_its_slope():
    net, batch = problem()
    rho = 1e-4
    context = StepContext(Network(net), None, batch)
    with frozen(net):
        d = UDIM(eps=1.0, rho=rho).unknown(context, batch)
    # Two derivatives in place of two passes: the difference is of second order.
    x = batch.x.clone().requires_grad_()
    loss = cross_entropy(net(x), batch.y, reduction="sum")
    g = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    slope = torch.cat([p.flatten() for p in g]).norm()
    for factor, error in ((rho, 1e-7), (0.0, 1e-3)):
        up = torch.autograd.grad(loss + factor * slope, x, retain_graph=True)[0]
        up = up * batch.x.std(0, correction=0)
        wanted = up / up.norm(dim=1, keepdim=True)
        gap = float((d - wanted).norm())
        assert gap < error
    # Without the slope it would be another direction: the test can tell.
    assert gap > 1e-6


def run(trials, toy, transform, epochs=3, seed=0):
    net, data = toy(dropout=0.0), trials()
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-sgd", lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=40),
        epochs=epochs,
        perturbation=SAM(),
        grad_transform=transform,
        random_state=seed,
    )
    return net.state_dict()


def test_without_weight_or_before_its_start_it_is_sam(trials, toy, equal):
    plain = run(trials, toy, None)
    assert equal(plain, run(trials, toy, UDIM(weight=0.0)))
    # Of three epochs the first two are the first two thirds.
    late = run(trials, toy, UDIM(start=0.9))
    assert equal(plain, late)
    assert not equal(plain, run(trials, toy, UDIM(start=0.0)))


def test_one_step_is_sams_gradient_plus_that_of_the_inconsistency():
    weight, lr = 0.7, 0.1
    net, batch = problem()
    start = [p.detach().clone() for p in net.parameters()]
    # By hand: SAM.
    g = torch.autograd.grad(
        cross_entropy(net(batch.x), batch.y), list(net.parameters())
    )
    norm = torch.cat([p.flatten() for p in g]).norm()
    with torch.no_grad():
        for p, q in zip(net.parameters(), g, strict=True):
            p += 0.05 * q / norm
    sam = torch.autograd.grad(
        cross_entropy(net(batch.x), batch.y), list(net.parameters())
    )
    with torch.no_grad():
        for p, q in zip(net.parameters(), start, strict=True):
            p.copy_(q)
    context = StepContext(Network(net), None, batch)
    method = UDIM(weight, eps=0.5, start=0.0)
    with frozen(net):
        d = method.unknown(context, batch)
    x_new = batch.x + d * batch.x.std(0, correction=0)
    extra = torch.autograd.grad(
        reference(net, batch.x, x_new, batch.y), list(net.parameters())
    )
    wanted = [
        p - lr * (a + weight * b) for p, a, b in zip(start, sam, extra, strict=True)
    ]
    train(
        net,
        batch,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "sgd", lr=lr, weight_decay=0.0),
        sampler=ShuffleSampler(len(batch), batch_size=len(batch)),
        epochs=1,
        perturbation=SAM(rho=0.05),
        grad_transform=method,
    )
    for p, q in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-9, atol=1e-12)


def test_statistics_and_weights_are_as_before_a_step(trials, toy, equal):
    net, data = toy(), trials()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    context = StepContext(Network(net), None, data)
    added = UDIM(start=0.0)({}, context)
    assert equal(before, net.state_dict()) and net.training
    assert added["frame"].abs().max() > 0 and added["shape"].abs().max() > 0


def test_mistakes():
    with pytest.raises(EEGTensorError, match="rho=0"):
        UDIM(rho=0)
    with pytest.raises(EEGTensorError, match="start=1"):
        UDIM(start=1)


def test_unlabelled_trials_have_no_say():
    net, batch = problem()
    y = batch.y.clone()
    y[::3] = -1
    known = torch.nonzero(y >= 0).flatten()
    with_all, alone = Batch(batch.x, y), batch.pick(known)
    g = torch.Generator().manual_seed(1)
    d = torch.randn(batch.x.shape, generator=g, dtype=torch.float64)
    trials, few = (Trials(Network(net), b) for b in (with_all, alone))
    # Displacements are in standard deviations of a batch.
    same = d[known] * batch.x.std(0, correction=0) / alone.x.std(0, correction=0)
    found = inconsistency(trials, d, net[-1])
    torch.testing.assert_close(found, inconsistency(few, same, net[-1]))
    none = Trials(Network(net), Batch(batch.x, torch.full_like(y, -1)))
    assert float(inconsistency(none, d, net[-1])) == 0.0


def test_it_looks_at_the_trials_as_they_came_and_goes_the_usual_way():
    net, batch = problem()
    moved = Batch(batch.x + 3.0, batch.y)
    context = StepContext(Network(net), None, moved)
    context.clean = batch
    plain = StepContext(Network(net), None, batch)
    found = UDIM(start=0.0)({}, context)
    for name, g in UDIM(start=0.0)({}, plain).items():
        assert torch.equal(found[name], g)
    with frozen(net):
        d = UDIM().unknown(plain, batch)
    half = Trials(Network(net), batch).usual_distance() / 2
    torch.testing.assert_close(d.norm(dim=1), half.expand(12))
