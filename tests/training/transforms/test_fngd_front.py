"""FNGD of weights that no layer of their own has: TSMNet's filters and BiMap."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from eegtensor.models import TSMNet
from eegtensor.nn import LinearFront
from eegtensor.training import (
    Batch,
    CrossEntropy,
    ShuffleSampler,
    make_optimizer,
    train,
)
from eegtensor.training.adapters import adapter_of
from eegtensor.training.perturbations import SAM
from eegtensor.training.transforms import FNGD
from eegtensor.training.transforms._trialgradients import (
    gram,
    trial_gradients,
    trial_weights,
)
from eegtensor.training.transforms._watched import Watcher

LEAVES = ("front.temporal.weight", "front.spatial.weight", "bimap.weight")
N = 12


def tsmnet(path="conv", norm="domain", **options):
    sizes = {"n_temporal_filters": 2, "temporal_kernel": 5, "n_spatial_filters": 6}
    domains = ["a", "b"] if norm == "domain" else []
    return TSMNet(
        4, 2, 30, domains=domains, front=path, norm=norm, subspace=3,
        front_dtype="float64", random_state=0, **sizes, **options,
    )  # fmt: skip


def trials(scale=1e-5):
    g = torch.Generator().manual_seed(0)
    x = scale * torch.randn(N, 4, 30, generator=g).double()
    return Batch(x, torch.arange(N) % 2, torch.arange(N) // (N // 2))


def seen(net, data, x=None):
    """Return gradients of a step, and passes by module."""
    watcher = Watcher(net)
    out = net(data.x if x is None else x, domain=data.domain)
    nn.functional.cross_entropy(out, data.y).backward()
    found = list(watcher.of(len(data)))
    watcher.release()
    assert not any(m._forward_hooks for m in net.modules())
    return {n: p.grad for n, p in net.named_parameters() if p.requires_grad}, found


def front_of(net, found):
    ((module, rows),) = [(m, f) for m, f in found if isinstance(m, LinearFront)]
    assert module is net.front and set(rows.weights) == set(LEAVES)
    return rows


@pytest.mark.parametrize("path", ["conv", "lag"])
@pytest.mark.parametrize("norm", ["domain", "none"])
def test_trials_of_weight_one_add_up_to_the_plain_gradient(path, norm):
    net, data = tsmnet(path, norm), trials()
    x = net.front.statistics(data.x) if path == "lag" else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients, found = seen(net, data, x)
        rows = trial_gradients(net.front, front_of(net, found))
    for name in LEAVES:
        assert rows[name].shape == (N, *gradients[name].shape)
        total, scale = rows[name].sum(dim=0), gradients[name].abs().max()
        assert scale > 1e-4
        assert (total - gradients[name]).abs().max() < 1e-10 * scale.clamp_min(1.0)
    # The head is a layer of its own; no part of the front is a map beside it.
    assert {type(m) for m, _ in found} == {LinearFront, nn.Linear}


def brute_force(net, data):
    """Return gradients of the losses of trials, one backward pass each."""
    leaves = [dict(net.named_parameters())[n] for n in LEAVES]
    rows = []
    for i in range(N):
        part = data.pick(torch.tensor([i]))
        loss = nn.functional.cross_entropy(net(part.x), part.y) / N
        rows.append(torch.autograd.grad(loss, leaves))
    columns = zip(*rows, strict=True)
    return {
        n: torch.stack([g.as_subclass(torch.Tensor) for g in gs])
        for n, gs in zip(LEAVES, columns, strict=True)
    }


def explicit(net, rows, damping):
    """Return Riemannian damped natural gradients from whole Fisher matrices."""
    steps = {}
    for name in LEAVES:
        p = dict(net.named_parameters())[name]
        plain = p.detach().as_subclass(torch.Tensor)
        u = adapter_of(p).rgrad(plain, rows[name]).flatten(1)
        # The loss is a mean: the gradient of a trial's own loss is N times this.
        G = N * u.T
        F = G @ G.T / N
        lam = damping * float(F.trace()) / N
        eye = torch.eye(len(G)).double()
        step = lam * torch.linalg.solve(F + lam * eye, G.mean(dim=1))
        steps[name] = step.reshape(p.shape)
    return steps


@pytest.mark.parametrize("path", ["conv", "lag"])
def test_a_step_is_that_of_whole_fisher_matrices(path):
    net, data = tsmnet(path, "none"), trials()
    rows = brute_force(net, data)
    _, found = seen(net, data)
    quick = trial_gradients(net.front, front_of(net, found))
    for name in LEAVES:
        torch.testing.assert_close(quick[name], rows[name], rtol=0, atol=1e-10)
        p = dict(net.named_parameters())[name]
        u = adapter_of(p).rgrad(p.detach().as_subclass(torch.Tensor), rows[name])
        K = gram(adapter_of(p), p, quick[name])
        wanted = torch.einsum("i...,j...->ij", u, u)
        torch.testing.assert_close(K, wanted, rtol=1e-9, atol=1e-12)
    wanted, before = explicit(net, rows, 0.5), copy.deepcopy(net.state_dict())
    captured = Captured()
    fit(net, data, FNGD(damping=0.5, share="none"), callbacks=[captured])
    for name, step in wanted.items():
        p = dict(net.named_parameters())[name]
        at = before[name].as_subclass(torch.Tensor)
        found = adapter_of(p).rgrad(at, captured.steps[0][name])
        assert step.abs().max() > 1e-4
        torch.testing.assert_close(found, step, rtol=0, atol=1e-8)
        if name == "bimap.weight":
            # A sum of tangents of the Stiefel manifold is one.
            inside = at.mT @ found
            assert (inside + inside.mT).abs().max() < 1e-10
    W = net.bimap.weight.detach()
    assert (W.mT @ W - torch.eye(3)).abs().max() < 1e-10


class Captured:
    """Keeps the gradients of each step."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, state):
        named = state.model.named_parameters()
        self.steps.append(
            {
                n: p.grad.detach().as_subclass(torch.Tensor).clone()
                for n, p in named
                if p.requires_grad
            }
        )


def fit(net, data, transform, epochs=1, lr=1e-2, batch_size=N, **options):
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-sgd", lr=lr, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=batch_size),
        epochs=epochs,
        grad_transform=transform,
        **options,
    )
    return net


def test_a_large_damping_is_plain_descent_with_domains():
    data = trials()
    one = fit(tsmnet(), data, FNGD(damping=1e9), epochs=3)
    two = fit(tsmnet(), data, None, epochs=3)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)
    less = fit(tsmnet(), data, FNGD(damping=1.0), epochs=3)
    assert all(
        (dict(less.named_parameters())[n] - dict(two.named_parameters())[n]).abs().max()
        > 1e-5
        for n in LEAVES
    )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_weights_of_trials_are_kept_for_every_leaf(accumulate):
    method, captured = FNGD(), Captured()
    # Without a norm over the batch parts of it have the gradients of the whole.
    fit(
        tsmnet(norm="none"), trials(), method, epochs=2, lr=0.0,
        callbacks=[captured], accumulate=accumulate,
    )  # fmt: skip
    kept = method.state_dict()["weights"]
    assert set(kept) == {*LEAVES, "head.weight"}
    assert all(w.shape == (N,) and bool((w < 1).any()) for w in kept.values())
    assert len({tuple(w.tolist()) for w in kept.values()}) == 4
    first, second = captured.steps
    for name in kept:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-7)


def test_gradients_are_those_at_perturbed_weights():
    # They came from a second pass, whose weights are put back before they are used.
    data, results = trials(), []
    for method in (FNGD(damping=1e9), None):
        net = tsmnet(norm="none")
        fit(net, data, method, perturbation=SAM(rho=0.3))
        results.append(net)
    for p, q in zip(*(net.parameters() for net in results), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-8)
    seen_at = []

    class Look(FNGD):
        def _changes(self, module, found, context):
            if isinstance(module, LinearFront):
                total = {
                    n: r.sum(dim=0) for n, r in trial_gradients(module, found).items()
                }
                grads = {n: p.grad for n, p in context.space.leaves.items()}
                seen_at.append((total, grads))
            return super()._changes(module, found, context)

    fit(tsmnet(norm="none"), data, Look(), perturbation=SAM(rho=0.3))
    ((total, grads),) = seen_at
    for name in LEAVES:
        g = grads[name].as_subclass(torch.Tensor)
        torch.testing.assert_close(total[name], g, rtol=0, atol=1e-10)


class Lent(nn.Module):
    """A network that calls a map of trials with weights of its own as arguments."""

    def __init__(self, lend):
        super().__init__()
        self.front = LinearFront(4, 30, n_temporal=2, kernel=5, n_spatial=6)
        self.W = nn.Parameter(torch.linalg.qr(torch.randn(6, 3))[0])
        self.lend = lend
        self.head = nn.Linear(9, 2)

    def forward(self, x):
        W = self.W if self.lend else 2.0 * self.W
        return self.head(self.front(1e5 * x, projection=W).flatten(1))


@pytest.mark.parametrize("lend", [True, False])
def test_arguments_that_are_no_weights_are_not_guessed_at(lend):
    # What was computed of weights has a gradient that the call cannot give.
    data = trials()
    data = Batch(data.x.float(), data.y)
    _, found = seen_plain(Lent(lend), data)
    assert (len(found) == 2) == lend


def seen_plain(net, data):
    watcher = Watcher(net)
    nn.functional.cross_entropy(net(data.x), data.y).backward()
    return None, list(watcher.of(len(data)))


def test_copies_of_a_network_are_not_watched():
    net, data = tsmnet(), trials()
    watcher = Watcher(net)
    other = copy.deepcopy(net)
    nn.functional.cross_entropy(other(data.x, domain=data.domain), data.y).backward()
    assert not list(watcher.of(N))


def test_damped_weights_fall_with_the_size_of_a_gradient():
    K = torch.diag(torch.tensor([1.0, 4.0, 0.0]))
    torch.testing.assert_close(
        trial_weights(K, 2.0),
        1.0 / (1.0 + 3.0 / (2.0 * 5.0) * K.diagonal().double()),
    )
