"""Made-up trials that stand for many."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, make_plugs, train
from eegtensor.training.recipes import condense, gradient_distance
from eegtensor.training.space import ParamSpace


def make(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))


def task(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    centre = 0.8 * torch.randn(3, 16, generator=torch.Generator().manual_seed(77))
    y = torch.arange(n) % 3
    return Batch(centre[y] + torch.randn(n, 16, generator=g), y)


def test_distance_by_rows():
    net = make(0)
    space = ParamSpace(net)
    g = torch.Generator().manual_seed(0)
    a, b = (
        {n: torch.randn(p.shape, generator=g) for n, p in space.leaves.items()}
        for _ in range(2)
    )
    wanted = sum(
        (1 - F.cosine_similarity(a[n], b[n], dim=1)).sum()
        for n in ("0.weight", "2.weight")
    )
    torch.testing.assert_close(
        gradient_distance(a, b, space), wanted, atol=1e-4, rtol=1e-5
    )
    # The size of gradients does not matter, and they are at distance 0 of themselves.
    tiny = {n: 1e-9 * x for n, x in a.items()}
    assert abs(float(gradient_distance(tiny, a, space))) < 1e-3


def test_one_class_makes_both_methods_the_same():
    data = task(90)
    one = data.pick(torch.arange(0, 90, 3))
    one = Batch(one.x, one.y)
    found = [
        condense(
            make,
            one,
            per_class=2,
            method=m,
            n_outer=2,
            n_inner=3,
            n_network=1,
            outer_warmup=0,
            inner_warmup=0,
        )
        for m in ("dcc", "dc")
    ]
    torch.testing.assert_close(found[0].x, found[1].x)
    several = [
        condense(
            make,
            data,
            per_class=2,
            method=m,
            n_outer=2,
            n_inner=3,
            n_network=1,
            outer_warmup=0,
            inner_warmup=0,
        )
        for m in ("dcc", "dc")
    ]
    assert (several[0].x - several[1].x).abs().max() > 1e-3


def accuracy(few, test):
    found = []
    for seed in range(3):
        net = make(900 + seed)
        data = Batch(few.x, few.y)
        setup = Setup(net, data, n_classes=3, batch_size=16, lr=0.01)
        train(net, data, epochs=60, **make_plugs(setup))
        found.append(float((net(test.x).argmax(1) == test.y).double().mean()))
    return sum(found) / 3


def test_better_than_as_many_real_trials():
    data, test = task(600), task(1500, seed=9)
    made = condense(
        make,
        data,
        per_class=2,
        n_outer=25,
        n_inner=5,
        n_network=3,
        outer_warmup=5,
        lr_network=0.05,
    )
    assert made.y.tolist() == [0, 0, 1, 1, 2, 2] and made.x.shape == (6, 16)
    real = []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        rows = [torch.nonzero(data.y == c).flatten() for c in range(3)]
        i = torch.cat([r[torch.randperm(len(r), generator=g)[:2]] for r in rows])
        real.append(accuracy(data.pick(i), test))
    assert accuracy(made, test) > sum(real) / 4 + 0.03


def test_unit_does_not_matter_for_the_start_and_the_steps():
    data = task(90)

    class Scaled(nn.Module):
        def __init__(self, inner, factor):
            super().__init__()
            self.inner, self.factor = inner, factor

        def forward(self, x):
            return self.inner(x * self.factor)

    found = [
        condense(
            lambda seed, f=f: Scaled(make(seed), 1 / f),
            Batch(data.x * f, data.y),
            n_outer=2,
            n_inner=2,
        ).x
        / f
        for f in (1.0, 1e-6)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_batch_norms_keep_the_statistics_of_real_trials():
    def with_norm(seed):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
        )

    made = condense(with_norm, task(90), n_outer=2, n_inner=2, n_network=2)
    assert torch.isfinite(made.x).all()
    with pytest.raises(EEGTensorError, match="several arrays"):
        condense(make, Batch((task(9).x, task(9).x), task(9).y))


def test_as_many_trials_as_asked_or_none():
    data = task(90)
    data = Batch(data.x[:5], data.y[:5])
    with pytest.raises(EEGTensorError, match="a class has 1"):
        condense(make, data, per_class=2)


def test_either_of_the_two_warm_ups_is_enough():
    data = task(30)

    def made(method, outer, inner):
        return condense(
            make,
            data,
            per_class=2,
            method=method,
            n_outer=1,
            n_inner=2,
            n_network=1,
            outer_warmup=outer,
            inner_warmup=inner,
        ).x

    together, alone = made("dcc", 0, 0), made("dc", 0, 0)
    assert torch.equal(made("dcc", 0, 9), together)
    assert torch.equal(made("dcc", 9, 0), together)
    assert torch.equal(made("dcc", 9, 9), alone)
    assert not torch.equal(together, alone)
