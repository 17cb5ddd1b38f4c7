"""Distillation, selection and search: weights on their manifolds after 1000 steps."""

from __future__ import annotations

import pytest
import torch

from eegtensor.models import TSMNet
from eegtensor.training import (
    Batch,
    ParamSpace,
    Setup,
    ShuffleSampler,
    make_plugs,
    train,
)
from eegtensor.training.network import features_of
from eegtensor.training.objectives import BackwardCompatible
from eegtensor.training.recipes import (
    MultiFidelity,
    Stages,
    condense,
    gradient_step,
    hybrid,
    search_augmentation,
    tune,
)

METHODS = [
    {"objective": ("cross-entropy", "dual-head-kd")},
    {"objective": ("cross-entropy", "dual-head-kd(align=True)")},
    {"objective": ("cross-entropy", "meal-v2(teachers=2)")},
    {"objective": "soft-hard-kd"},
    {"sampler": "difficulty-band"},
    {"sampler": "importance"},
    {"sampler": "rs2(ratio=0.5)"},
]


def check(space, start):
    """Every leaf moved; frames are orthonormal and matrices positive to 1e-6."""
    kinds = set()
    for name, p in space.points().items():
        p, kind = p.double(), space.adapters[name].name
        assert p.isfinite().all() and not torch.equal(p, start[name].double()), name
        if kind == "stiefel":
            eye = torch.eye(p.shape[-1], dtype=p.dtype)
            assert (p.mT @ p - eye).abs().max() < 1e-6, name
        elif kind == "spd":
            assert (p - p.mT).abs().max() <= 1e-6 * p.abs().max(), name
            assert torch.linalg.eigvalsh(p).min() > 0, name
        kinds.add(kind)
    assert "stiefel" in kinds
    return kinds


class Count:
    """Ends the run after the epoch of its thousandth step."""

    steps = 0

    def on_step_end(self, state):
        self.steps += 1

    def on_epoch_end(self, state):
        state.stop = self.steps >= 1000


def run(net, data, *, batch_size=40, objective=None, **names):
    """At least a thousand steps, and the check of what they leave."""
    extra = () if objective is None else {"objective": objective}
    setup = Setup(net, data, epochs=2, batch_size=batch_size, lr=1e-3)
    plugs = make_plugs(setup, **names, **dict(extra))
    space, count = ParamSpace(net), Count()
    start = space.snapshot()
    plugs.setdefault("sampler", ShuffleSampler(len(data), batch_size=batch_size))
    train(net, data, **plugs, epochs=1000, callbacks=[count])
    assert count.steps >= 1000, count.steps
    return check(space, start)


def subject(toy, **options):
    # In float64 the SPD leaf of geoopt, which drifts by rounding, is not in question.
    return toy(dropout=0.0, **options)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_of_methods_by_name(toy, trials, method):
    kinds = run(subject(toy), trials(160), **method)
    assert kinds == {"stiefel", "spd", "euclidean"}


@pytest.mark.slow
def test_of_backward_compatible_embeddings(toy, trials):
    data, old = trials(160), subject(toy, seed=3).eval()
    h = features_of(old, data).detach()
    prototypes = torch.stack([h[data.y == c].mean(0) for c in range(2)])
    plug = BackwardCompatible(old, prototypes, 3, extra=2)
    net = subject(toy)
    run(net, data, objective=("cross-entropy", plug))
    # Its own maps are parameters of the run as well.
    for map_ in (plug.from_new, plug.from_old, plug.turn):
        W = map_.weight.detach().double()
        assert (W @ W.mT - torch.eye(len(W)).double()).abs().max() < 1e-6


@pytest.mark.slow
def test_of_module_to_module(toy, trials):
    front = subject(toy)

    class Front(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.frame, self.shape = front.frame, front.shape

        def forward(self, x):
            return x @ self.frame @ self.shape

    stages = [Front(), torch.nn.Linear(3, 2)]
    chain = hybrid(stages, 0, Front())
    assert isinstance(chain, Stages)
    run(chain, trials(160))


@pytest.mark.slow
def test_of_recordings_of_several_qualities(toy, trials):
    run(MultiFidelity(subject(toy), 3, 2, [0, 0, 1, 2]), trials(160))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dcc", "dc"])
def test_of_the_networks_that_condensation_trains(toy, trials, method):
    made, start = [], []

    def make(seed):
        made.append(subject(toy, seed=seed))
        start.append(ParamSpace(made[-1]).snapshot())
        return made[-1]

    # A hundred times ten steps between the matchings.
    options = {"n_outer": 1, "n_inner": 101, "n_network": 10, "lr_network": 1e-3}
    condense(make, trials(80), per_class=4, method=method, **options)
    for net, before in zip(made, start, strict=True):
        check(ParamSpace(net), before)


@pytest.mark.slow
def test_of_hypergradients(toy, trials):
    data, net = trials(40, dtype=torch.float64), subject(toy, dtype=torch.float64)
    space = ParamSpace(net)
    names = ("frame", "shape")
    start = {n: p for n, p in space.snapshot().items() if n in names}
    space.adapters = {n: space.adapters[n] for n in names}
    space.leaves = {n: space.leaves[n] for n in names}

    def loss(theta, phi, t):
        h = data.x @ theta["frame"] @ theta["shape"]
        return (h.tanh() * phi.exp()).square().mean()

    def outer(theta, phi):
        return (data.x @ theta["frame"] @ theta["shape"])[:, 0].mean()

    phi = torch.zeros(3, dtype=torch.float64)
    inner = gradient_step(loss, 1e-2, space)
    found = tune(inner, outer, start, phi, 1000, n_outer=1, n_directions=1)
    space.assign(found.theta)
    check(space, start)


def signals(n=48, n_times=64):
    g = torch.Generator().manual_seed(0)
    y, domain = torch.arange(n) % 2, torch.arange(n) // 2 % 2
    x = torch.randn(n, 4, n_times, generator=g)
    x[:, 0] *= 1.0 + y[:, None]
    return Batch(x, y, domain)


def tsmnet():
    return TSMNet(
        4, 2, 64, domains=("a", "b"), subspace=3, n_spatial_filters=5, random_state=0
    )


@pytest.mark.slow
def test_of_augmented_trials():
    run(tsmnet(), signals(), batch_size=12, perturbation="augment")


@pytest.mark.slow
def test_of_the_network_that_a_search_trains():
    net, data = tsmnet(), signals()
    space = ParamSpace(net)
    start = space.snapshot()
    # Steps that a candidate makes are undone: each step has four of them, one stays.
    operations = ("channel-dropout", "noise")
    options = {"look_ahead": 1, "n_candidates": 2, "lr": 1e-3, "batch_size": 8}
    search_augmentation(net, data, data, operations, n_steps=1000, **options)
    check(space, start)
