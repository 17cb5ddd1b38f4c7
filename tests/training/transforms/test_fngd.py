"""FNGD against damped Fisher matrices solved in full."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Setup,
    ShuffleSampler,
    Step,
    build,
    make_optimizer,
    train,
)
from eegtensor.training.adapters import adapter_of
from eegtensor.training.transforms import FNGD
from eegtensor.training.transforms._trialgradients import (
    gram,
    product_gram,
    trial_gradients,
    trial_weights,
)
from eegtensor.training.transforms._watched import Pass


def test_weighted_gradients_are_the_damped_natural_gradient():
    g = torch.Generator().manual_seed(0)
    G = torch.randn(30, 12, generator=g).double()
    n, damping = 12, 0.7
    F, mean = G @ G.T / n, G.mean(dim=1)
    lam = damping * float(F.trace()) / n
    exact = lam * torch.linalg.solve(F + lam * torch.eye(30).double(), mean)
    found = G @ trial_weights(G.T @ G, damping) / n
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-13)


def layers():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return [
            (nn.Linear(5, 3).double(), torch.randn(7, 5).double()),
            (nn.Linear(5, 3).double(), torch.randn(7, 4, 5).double()),
            (nn.Conv1d(4, 6, 3, groups=2).double(), torch.randn(7, 4, 9).double()),
            (nn.Conv2d(2, 3, (2, 3)).double(), torch.randn(7, 2, 4, 6).double()),
        ]


def passed(layer, x, d):
    weight = layer.weight.detach().as_subclass(torch.Tensor)
    return Pass(x, d, {"layer.weight": "weight"}, {"weight": weight}, {})


@pytest.mark.parametrize("layer, x", layers())
def test_gram_matrices_are_those_of_a_loop_over_trials(layer, x):
    out = layer(x)
    d = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).double()
    rows = torch.stack(
        [
            torch.autograd.grad(layer(x[i : i + 1]), layer.weight, d[i : i + 1])[0]
            for i in range(7)
        ]
    )
    found = passed(layer, x, d)
    gradients = trial_gradients(layer, found)["layer.weight"]
    torch.testing.assert_close(gradients, rows, rtol=0, atol=1e-12)
    flat = rows.flatten(1)
    K = gram(adapter_of(layer.weight), layer.weight, gradients)
    torch.testing.assert_close(K, flat @ flat.T, rtol=0, atol=1e-11)
    if isinstance(layer, nn.Linear) and x.ndim == 2:
        torch.testing.assert_close(product_gram(found), K, rtol=0, atol=1e-11)


def test_a_leaf_on_a_manifold_has_the_gram_matrix_of_its_metric():
    from eegtensor.nn import BiMap

    layer = BiMap(5, 3, dtype=torch.float64)
    a = torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    x = a @ a.mT
    d = torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    adapter, p = (
        adapter_of(layer.weight),
        layer.weight.detach().as_subclass(torch.Tensor),
    )
    rows = [
        adapter.rgrad(p, torch.autograd.grad(layer(x[i]), layer.weight, d[i])[0])
        for i in range(6)
    ]
    wanted = torch.stack([adapter.inner(p, u, v) for u in rows for v in rows])
    gradients = trial_gradients(layer, passed(layer, x, d))["layer.weight"]
    found = gram(adapter, layer.weight, gradients)
    torch.testing.assert_close(found, wanted.reshape(6, 6), rtol=0, atol=1e-10)


def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 8),
            nn.ReLU(inplace=True), nn.Linear(8, 2),
        ).double()  # fmt: skip
        return net, Batch(torch.randn(24, 3, 8).double(), torch.randint(2, (24,)))


def fit(net, data, transform, epochs=1, lr=0.1, batch_size=24, **options):
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "sgd", lr=lr, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=batch_size),
        epochs=epochs,
        grad_transform=transform,
        **options,
    )
    return net


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_is_that_of_the_whole_matrix_layer_by_layer(accumulate):
    net, data = network()
    before = {n: p.detach().clone() for n, p in net.named_parameters()}

    def loss(weights, x, y):
        out = torch.func.functional_call(net, weights, (x[None],))
        return nn.functional.cross_entropy(out, y[None])

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(
        before, data.x, data.y
    )
    fit(net, data, FNGD(damping=0.5, share="none"), accumulate=accumulate)
    for n, p in net.named_parameters():
        G = rows[n].flatten(1).T
        if "weight" in n:
            F = G @ G.T / 24
            lam = 0.5 * float(F.trace()) / 24
            eye = torch.eye(len(G)).double()
            step = lam * torch.linalg.solve(F + lam * eye, G.mean(dim=1))
        else:
            step = G.mean(dim=1)
        wanted = before[n] - 0.1 * step.reshape(p.shape)
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-8)
    assert not any(m._forward_hooks for m in net.modules())


def test_an_ascending_step_is_the_descending_one_turned_round():
    class Turned:
        def __init__(self, sign):
            self.sign = sign

        def steps(self, state, data):
            yield Step(replace(data, index=torch.arange(len(data))), sign=self.sign)

    moved = []
    for sign in (1.0, -1.0):
        net, data = network()
        before = parameters_to_vector(net.parameters()).detach().clone()
        fit(net, data, FNGD(damping=0.5), recipe=Turned(sign))
        moved.append(parameters_to_vector(net.parameters()).detach() - before)
    torch.testing.assert_close(moved[1], -moved[0], rtol=0, atol=1e-12)


def test_a_large_damping_is_plain_descent():
    net, data = network()
    peer, _ = network()
    fit(net, data, FNGD(damping=1e8), epochs=3)
    fit(peer, data, None, epochs=3)
    for p, q in zip(net.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


class Gradients:
    """Keeps the gradients of each step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, state):
        self.seen.append([p.grad.clone() for p in state.model.parameters()])


def test_weights_of_trials_repeat_the_first_epoch_where_weights_stand_still():
    net, data = network()
    seen = Gradients()
    fit(net, data, FNGD(), epochs=2, lr=0.0, callbacks=[seen])
    for a, b in zip(*seen.seen, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_ill_conditioned_descent_needs_fewer_steps():
    # Squared losses of a linear map, condition of the Hessian 1e4.
    g = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2, 6).double()
    q = torch.linalg.qr(torch.randn(64, 6, generator=g).double())[0]
    x = 8.0 * q * scales
    truth = torch.randn(6, generator=g).double() / scales
    y = x @ truth + 0.5 * torch.randn(64, generator=g).double()
    best = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    floor = float((x @ best - y).square().mean())
    first = float(y.square().mean()) - floor

    def steps(lr, damping):
        w = torch.zeros(6).double()
        for count in range(1, 4000):
            residual = x @ w - y
            if not float(residual.square().mean()) - floor > 1e-3 * first:
                return count
            rows = residual[:, None] * x / 64
            weights = torch.ones(64).double()
            if damping is not None:
                weights = trial_weights(rows @ rows.T, damping)
            w = w - lr * weights @ rows
        return count

    # The largest eigenvalue is 1: plain descent is at its best near lr = 2.
    plain = min(steps(lr, None) for lr in (1.0, 1.5, 1.9))
    natural = min(steps(lr, 1e-3) for lr in (300.0, 1000.0, 3000.0))
    assert natural <= plain / 5


def test_other_parameters_and_passes_keep_the_plain_gradient(toy, trials):
    # Stiefel and SPD leaves of the toy belong to no layer of their own.
    data = trials()
    net = toy(dropout=0.0)
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-sgd", lr=0.05),
        sampler=ShuffleSampler(len(data), batch_size=40),
        epochs=2,
        grad_transform=FNGD(),
    )
    assert (net.frame.mT @ net.frame - torch.eye(3)).abs().max() < 1e-6


def test_trials_picked_from_a_larger_set_are_those_of_the_run():
    weights = []
    for picked in (True, False):
        net, data = network()
        part = data.pick(torch.arange(10, 24))
        part = part if picked else replace(part, index=None)
        method = build("fngd", "gradient transform", Setup(net, part))
        fit(net, part, method, epochs=2, batch_size=7)
        weights.append(method.state_dict()["weights"]["5.weight"])
    assert len(weights[0]) == 14 and bool((weights[0] < 1).any())
    assert torch.equal(*weights)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="damping=0"):
        FNGD(damping=0)
    with pytest.raises(EEGTensorError, match="damping=True"):
        FNGD(damping=True)
    with pytest.raises(EEGTensorError, match=r"refresh_every=1\.5"):
        FNGD(refresh_every=1.5)
    with pytest.raises(EEGTensorError, match="share"):
        FNGD(share="all")
