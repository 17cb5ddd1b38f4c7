"""Random subsets that repeat."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, build, make_plugs, train
from eegtensor.training.samplers import RS2Sampler, ShuffleSampler


@pytest.mark.parametrize(
    ("n", "ratio"), [(100, 0.1), (97, 0.3), (53, 0.07), (10, 0.9), (7, 1.0), (30, 0.1)]
)
def test_every_trial_is_seen_and_counts_differ_by_one(n, ratio):
    sampler = RS2Sampler(n, ratio=ratio, batch_size=8, random_state=3)
    counts = np.zeros(n, int)
    for epoch in range(1, 60):
        drawn = torch.cat(sampler.indices(epoch)).numpy()
        assert len(drawn) == math.ceil(round(ratio * n, 9))
        assert len(set(drawn)) == len(drawn)
        counts[drawn] += 1
        assert np.ptp(counts) <= 1
        if epoch == math.ceil(1 / ratio):
            assert counts.min() == 1
    # The same for the same epoch, in whatever order they are asked for.
    late, early = sampler.indices(41), sampler.indices(2)
    fresh = RS2Sampler(n, ratio=ratio, batch_size=8, random_state=3)
    assert all(map(torch.equal, fresh.indices(2), early))
    assert all(map(torch.equal, fresh.indices(41), late))


def test_epochs_have_their_share_of_each_group():
    groups = np.repeat([0, 1, 2], [100, 60, 40])
    sampler = RS2Sampler(200, ratio=0.2, groups=groups)
    for epoch in range(1, 30):
        found = np.bincount(groups[torch.cat(sampler.indices(epoch))], minlength=3)
        assert (abs(found - np.array([20, 12, 8])) <= 2).all()


def test_with_replacement_epochs_are_independent():
    sampler = RS2Sampler(100, ratio=0.2, replacement=True)
    drawn = [set(torch.cat(sampler.indices(e)).tolist()) for e in (1, 2, 3, 4, 5)]
    assert all(len(d) == 20 for d in drawn)
    assert len(set().union(*drawn)) < 100


def test_better_than_one_random_subset_for_the_same_steps():
    g = torch.Generator().manual_seed(0)
    true = torch.randn(30, 3, generator=g)
    x = torch.randn(1500, 30, generator=g)
    y = (x @ true + torch.randn(1500, 3, generator=g)).argmax(1)
    data, test = Batch(x[:600], y[:600]), Batch(x[600:], y[600:])

    def accuracy(trials, sampler):
        torch.manual_seed(0)
        net = nn.Linear(30, 3)
        plugs = make_plugs(Setup(net, trials, n_classes=3, lr=0.02))
        train(net, trials, epochs=100, **(plugs | {"sampler": sampler}))
        return float((net(test.x).argmax(1) == test.y).double().mean())

    some = data.pick(torch.randperm(600, generator=g)[:60])
    some = Batch(some.x, some.y)
    fixed = accuracy(some, ShuffleSampler(60, batch_size=30))
    assert accuracy(data, RS2Sampler(600, ratio=0.1, batch_size=30)) > fixed + 0.03


def test_by_name_with_people_times_classes(toy, trials):
    data = trials(80)
    setup = Setup(toy(), data, batch_size=10, seed=1)
    sampler = build("rs2(ratio=0.25)", "sampler", setup)
    assert len(set(sampler._group)) == 8
    with pytest.raises(EEGTensorError, match="at most 1"):
        RS2Sampler(10, ratio=1.5)
