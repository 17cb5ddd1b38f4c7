"""Hessian alignment against automatic second derivatives and the authors' formulas."""

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
from eegtensor.training.objectives import HessianAlignment
from eegtensor.training.objectives.headmoments import head_moments


def problem(n=30, n_domains=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(n, 5, generator=g, dtype=torch.float64)
    y = torch.randint(3, (n,), generator=g)
    # Domains of unequal size, and codes that are no range.
    domain = torch.tensor([7, 2, 4])[torch.randint(n_domains, (n,), generator=g)]
    return net, Batch(x, y, domain)


def hessian(net, x, y):
    """Gradient and Hessian of the head's weights and bias by automatic derivatives."""
    h = net[:-1](x).detach()
    w0 = torch.cat([net[-1].weight, net[-1].bias[:, None]], 1).detach()

    def loss(w):
        return cross_entropy(h @ w[:, :-1].T + w[:, -1], y)

    g = torch.autograd.functional.jacobian(loss, w0)
    H = torch.autograd.functional.hessian(loss, w0)
    return g, H.reshape(g.numel(), g.numel())


def moments_of(net, batch):
    h = net[:-1](batch.x)
    return head_moments(h, net[-1](h), batch.y, batch.domain, bias=True)


def test_gradient_product_and_diagonal_are_those_of_automatic_derivatives():
    net, batch = problem()
    m = moments_of(net, batch)
    product, diagonal = m.product(m.gradient), m.diagonal()
    for e, code in enumerate(batch.domain.unique()):
        own = batch.domain == code
        g, H = hessian(net, batch.x[own], batch.y[own])
        torch.testing.assert_close(m.gradient[e], g, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            product[e].flatten(), H @ g.flatten(), rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(
            diagonal[e].flatten(), H.diagonal(), rtol=1e-9, atol=1e-12
        )


def test_product_is_the_norm_times_its_gradient():
    net, batch = problem()
    w = net[-1].weight
    h = net[:-1](batch.x).detach()
    g = torch.autograd.grad(
        cross_entropy(net[-1](h), batch.y), [w, net[-1].bias], create_graph=True
    )
    norm = torch.cat([p.flatten() for p in g]).norm()
    slope = torch.autograd.grad(norm, [w, net[-1].bias])
    wanted = torch.cat([norm * slope[0], norm * slope[1][:, None]], 1)
    one = Batch(batch.x, batch.y, torch.zeros_like(batch.y))
    m = moments_of(net, one)
    torch.testing.assert_close(m.product(m.gradient)[0], wanted, rtol=1e-9, atol=1e-12)


def reference(net, batch, alpha, beta, diagonal=False):
    """The penalty by the published equations, with a graph of second derivatives."""
    weights = list(net[-1].parameters())

    def flat(parts):
        return torch.cat([p.flatten() for p in parts])

    def derivatives(loss):
        g = flat(torch.autograd.grad(loss, weights, create_graph=True))
        if diagonal:
            rows = []
            for k in range(len(g)):
                row = torch.autograd.grad(g[k], weights, create_graph=True)
                rows.append(flat(row)[k])
            return g, torch.stack(rows)
        norm = g.norm()
        return g, norm * flat(torch.autograd.grad(norm, weights, create_graph=True))

    losses = [
        cross_entropy(net(batch.x[batch.domain == d]), batch.y[batch.domain == d])
        for d in batch.domain.unique()
    ]
    g_mean, u_mean = derivatives(torch.stack(losses).mean())
    total = 0.0
    for loss in losses:
        g, u = derivatives(loss)
        total = total + alpha * (u - u_mean.detach()).square().sum()
        total = total + beta * (g - g_mean.detach()).square().sum()
    return total / len(losses)


@pytest.mark.parametrize("estimator", ["hgp", "diagonal"])
def test_penalty_and_its_gradient_are_the_published_ones(estimator):
    net, batch = problem()
    wanted = reference(net, batch, 0.7, 0.3, diagonal=estimator == "diagonal")
    method = HessianAlignment(0.7, 0.3, estimator, start=0.0)
    network = Network(net, keeps_features=True)
    context = StepContext(network, None, batch)
    found = method(net, batch, network(batch), context)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-14)
    # A leaf of the network before the head and one of the head.
    for leaf in (net[0].weight, net[-1].weight):
        a = torch.autograd.grad(found, leaf, retain_graph=True)[0]
        b = torch.autograd.grad(wanted, leaf, retain_graph=True)[0]
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-14)


def test_hutchinson_goes_to_the_exact_diagonal():
    net, batch = problem()
    m = moments_of(net, batch)
    g = torch.Generator().manual_seed(0)
    exact = m.diagonal()
    errors = [
        float(((m.hutchinson(n, g) - exact).norm() / exact.norm()).detach())
        for n in (30, 12000)
    ]
    # As one over the root of the number of probes.
    assert errors[1] < 0.03 and 8 < errors[0] / errors[1] < 50


@pytest.mark.parametrize("estimator", ["hgp", "diagonal", "hutchinson"])
def test_equal_domains_have_no_penalty(estimator):
    net, batch = problem(10)
    x, y = batch.x.repeat(3, 1), batch.y.repeat(3)
    same = Batch(x, y, torch.arange(3).repeat_interleave(10))
    method = HessianAlignment(1.0, 1.0, estimator)
    penalty = method.penalty(moments_of(net, same), torch.Generator().manual_seed(0))
    assert float(penalty) < 1e-25


def test_unlabelled_trials_and_their_domains_do_not_count():
    net, batch = problem()
    more = Batch(
        torch.cat([batch.x, 5 + batch.x[:8]]),
        torch.cat([batch.y, torch.full((8,), -1)]),
        torch.cat([batch.domain, torch.tensor([2, 2, 4, 4, 9, 9, 9, 9])]),
    )
    method = HessianAlignment(1.0, 1.0)
    torch.testing.assert_close(
        method.penalty(moments_of(net, batch)), method.penalty(moments_of(net, more))
    )


def test_it_waits_and_then_pulls_domains_together(toy, trials):
    data = trials()

    def run(beta):
        net = toy(dropout=0.0)
        terms = (CrossEntropy(), HessianAlignment(0.0, beta, start=0.2))
        options = {"lr": 0.05, "weight_decay": 0.0}
        train(
            net,
            data,
            objective=terms,
            optimizer=make_optimizer(net, "riemannian-adam", **options),
            sampler=ShuffleSampler(len(data), batch_size=80),
            epochs=25,
            random_state=0,
        )
        net.eval()
        network = Network(net, keeps_features=True)
        context = StepContext(network, None, data)
        return float(
            HessianAlignment(0.0, 1.0, start=0.0)(net, data, network(data), context)
        )

    early = StepContext(Network(toy()), None, data, epoch=2, n_epochs=10)
    assert float(HessianAlignment()(toy(), data, torch.zeros(160, 2), early)) == 0
    assert run(100.0) < 0.5 * run(0.0)


def test_mistakes():
    net, batch = problem()
    network = Network(net, keeps_features=True)
    out = network(batch)
    with pytest.raises(EEGTensorError, match="without domains"):
        bare = Batch(batch.x, batch.y)
        HessianAlignment(start=0)(net, bare, out, StepContext(network, None, bare))
    with pytest.raises(EEGTensorError, match="estimator"):
        HessianAlignment(estimator="exact")
    with pytest.raises(EEGTensorError, match="alpha=-1"):
        HessianAlignment(alpha=-1)
