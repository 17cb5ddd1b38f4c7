"""Which maps of trials FNGD weighs, and in what forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor.nn import BiMap
from eegtensor.nn.bimap import haar_stiefel, stiefel_parameter
from eegtensor.training import (
    Batch,
    CrossEntropy,
    ShuffleSampler,
    make_optimizer,
    train,
)
from eegtensor.training.transforms import FNGD
from eegtensor.training.transforms._trialgradients import (
    trial_gradients,
    weighted_gradient,
)
from eegtensor.training.transforms._watched import Watcher, weights_of

N = 10


class Gradients:
    """Keeps the gradients of the last step."""

    def on_step_end(self, state):
        named = state.model.named_parameters()
        self.last = {n: p.grad.clone() for n, p in named}


def gradients_of(make, transform, data, **options):
    """Return the gradients of the last step of a run of the same network."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net, seen = make(), Gradients()
        train(
            net,
            data,
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, "sgd", lr=0.0, weight_decay=0.0),
            sampler=ShuffleSampler(len(data), batch_size=N),
            epochs=options.pop("epochs", 1),
            grad_transform=transform,
            callbacks=[seen],
            **options,
        )
    return seen.last, net


def trials(*shape, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return Batch(torch.randn(N, *shape, generator=g).to(dtype), torch.arange(N) % 2)


def explicit(net, data, weighed, damping):
    """Return gradients of a step, from a whole Fisher matrix for each weight."""
    values = {n: p.detach() for n, p in net.named_parameters()}

    def loss(values, x, y):
        out = torch.func.functional_call(net, values, (x[None],))
        return nn.functional.cross_entropy(out, y[None])

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(
        values, data.x, data.y
    )
    wanted = {}
    for name, p in values.items():
        G = rows[name].flatten(1).T
        step = G.mean(dim=1)
        if name in weighed:
            F = G @ G.T / N
            lam = damping * float(F.trace()) / N
            eye = torch.eye(len(G)).double()
            step = lam * torch.linalg.solve(F + lam * eye, step)
        wanted[name] = step.reshape(p.shape)
    return wanted


class Mean(nn.Module):
    def forward(self, x):
        return x.tanh().mean(dim=1)


def of_tokens():
    return nn.Sequential(nn.Linear(4, 5), Mean(), nn.Linear(5, 2)).double()


class Gate(nn.Module):
    """A map of trials with layers of its own, and an option."""

    trialwise = True

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3, bias=False)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 3))

    def forward(self, x, power=1):
        return (self.gain * self.inner(x)).tanh() ** power


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = Gate()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.gate(x, power=2))


@pytest.mark.parametrize(
    ("make", "shape", "weighed"),
    [
        (of_tokens, (6, 4), ("0.weight", "2.weight")),
        (
            lambda: Gated().double(),
            (4,),
            ("gate.inner.weight", "gate.gain", "head.weight"),
        ),
    ],
)
# The second epoch takes the weights of trials that the first has kept.
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_step_is_that_of_whole_fisher_matrices(make, shape, weighed, epochs):
    data = trials(*shape)
    found, net = gradients_of(make, FNGD(damping=0.3), data, epochs=epochs)
    for name, step in explicit(net, data, weighed, 0.3).items():
        torch.testing.assert_close(found[name], step, rtol=0, atol=1e-7)


def test_layers_inside_a_map_of_trials_are_part_of_it():
    net = Gated()
    watcher = Watcher(net)
    assert watcher.modules == [net.gate, net.head]
    watcher.release()


class Twice(nn.Module):
    """Its layer sees every trial twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        one, two = self.layer(torch.cat([x, x.flip(1)])).chunk(2)
        return one + two


class Halved(nn.Module):
    """What leaves its map are pairs."""

    def __init__(self):
        super().__init__()
        self.pairs = Pairs()

    def forward(self, x):
        return self.pairs(x).repeat_interleave(2, dim=0)


class Pairs(nn.Module):
    trialwise = True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 2))

    def forward(self, x):
        return (x[::2] + x[1::2]) @ self.weight


@pytest.mark.parametrize("make", [Twice, Halved])
def test_what_has_no_row_for_each_trial_has_the_plain_gradient(make):
    data = trials(4, dtype=torch.float32)
    found, _ = gradients_of(make, FNGD(), data)
    plain, _ = gradients_of(make, None, data)
    assert all(torch.equal(found[n], plain[n]) for n in plain)


def test_which_modules_have_weights():
    def curved(n, buffer=False):
        module = nn.Module()
        for i in range(n):
            W = haar_stiefel(4, 2, generator=torch.Generator().manual_seed(i))
            module.register_parameter(f"W{i}", stiefel_parameter(W))
        if buffer:
            module.register_buffer("mean", torch.zeros(2))
        return module

    assert set(weights_of(curved(1))) == {"W0"}
    # Two, or a running statistic: no map that is known to take trials one by one.
    assert not weights_of(curved(2)) and not weights_of(curved(1, buffer=True))
    assert set(weights_of(nn.Conv1d(2, 2, 1))) == {"weight"}
    assert not weights_of(nn.BatchNorm1d(3)) and not weights_of(nn.LayerNorm(3))
    assert set(weights_of(Gate())) == {"gain", "inner.weight"}
    frozen = nn.Linear(2, 2)
    frozen.weight.requires_grad_(False)
    assert not weights_of(frozen)


def test_a_bimap_that_is_called_has_both_ways_of_a_weighted_sum():
    layer = BiMap(5, 3, dtype=torch.float64)
    a = torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    x = a @ a.mT
    watcher = Watcher(layer)
    out = layer(x)
    out.square().sum().backward()
    ((module, found),) = watcher.of(6)
    w = torch.linspace(0.1, 2.0, 6).double()
    rows = trial_gradients(module, found)["weight"]
    torch.testing.assert_close(
        torch.tensordot(w, rows, dims=1),
        weighted_gradient(module, found, w),
        rtol=0,
        atol=1e-9,
    )
    torch.testing.assert_close(
        rows.sum(dim=0), layer.weight.grad.as_subclass(torch.Tensor), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("epochs", [1, 2])
def test_bfloat16_is_float32_to_its_digits(epochs):
    def make():
        return nn.Sequential(
            nn.Conv1d(4, 3, 3), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(),
            nn.Linear(4, 2),
        )  # fmt: skip

    def flat():
        return nn.Sequential(nn.Flatten(), nn.Linear(24, 2))

    data = trials(4, 6, dtype=torch.float32)
    for net in (make, flat):
        short, _ = gradients_of(net, FNGD(), data, epochs=epochs, precision="bfloat16")
        whole, _ = gradients_of(net, FNGD(), data, epochs=epochs)
        for name, g in whole.items():
            assert short[name].dtype == torch.float32
            assert (short[name] - g).abs().max() < 0.05 * g.abs().max()


def test_a_later_run_begins_with_weights_of_its_own():
    data, method = trials(4), FNGD()
    gradients_of(lambda: nn.Linear(4, 2).double(), method, data)
    first = method.state_dict()["weights"]["weight"]
    few = data.pick(torch.arange(6))
    gradients_of(lambda: nn.Linear(4, 2).double(), method, few)
    assert len(first) == N and len(method.state_dict()["weights"]["weight"]) == 6


def test_weights_are_found_anew_when_asked():
    solved = []

    class Look(FNGD):
        def on_epoch_start(self, state):
            super().on_epoch_start(state)
            solved.append(self._solves)

    gradients_of(
        lambda: nn.Linear(4, 2).double(), Look(refresh_every=2), trials(4), epochs=5
    )
    assert solved == [True, False, True, False, True]


def test_nothing_of_a_step_is_left_for_the_next():
    method, left = FNGD(), []

    class Look:
        def on_step_end(self, state):
            left.append(len(list(method._watcher.of(N))))

    net, data = nn.Linear(4, 2).double(), trials(4)
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "sgd", lr=0.1),
        sampler=ShuffleSampler(N, batch_size=N),
        epochs=2,
        grad_transform=method,
        callbacks=[Look()],
    )
    assert left == [0, 0] and method._watcher is None
