"""What is kept of a run, and how much."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    ShuffleSampler,
    make_optimizer,
    train,
)
from eegtensor.training.averagers import Trajectory


def fit(callback, epochs=6, **options):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        x, y = torch.randn(40, 3), torch.randint(2, (40,))
    train(
        net,
        Batch(x, y),
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "sgd", lr=0.1),
        sampler=ShuffleSampler(40, batch_size=10),
        epochs=epochs,
        callbacks=[callback],
        **options,
    )
    return net


def test_epochs_and_steps():
    kept = Trajectory(initial=True)
    net = fit(kept)
    assert len(kept.states) == 7
    assert torch.equal(kept.states[-1]["weight"], net.weight)
    steps = Trajectory(start=0.5, every=2)
    fit(steps)
    assert len(steps.states) == 6


def test_a_long_run_stays_within_the_limit_and_spread():
    marks = Trajectory(limit=4)
    net = nn.Linear(1, 1)
    for i in range(23):
        nn.init.constant_(net.weight, float(i))
        marks.record(net)
    kept = [int(s["weight"]) for s in marks.states]
    assert kept == [0, 8, 16]


def test_a_run_that_goes_on_has_the_same(tmp_path):
    whole, first = Trajectory(), Trajectory()
    fit(whole)

    class Stop(Exception):
        pass

    def end(state):
        if state.epoch == 4:
            raise Stop

    first.on_epoch_start = end
    with pytest.raises(Stop):
        fit(first, checkpoint=Checkpoint(tmp_path / "run"))
    again = Trajectory()
    fit(again, checkpoint=Checkpoint(tmp_path / "run"))
    assert len(again.states) == 6
    for a, b in zip(whole.states, again.states, strict=True):
        assert torch.equal(a["weight"], b["weight"])


def test_mistakes():
    for options in ({"start": 1.0}, {"every": 0}, {"limit": 1}):
        with pytest.raises(EEGTensorError, match="What to do"):
            Trajectory(**options)
