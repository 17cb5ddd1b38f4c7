"""The angle of a step in equilibrium, and what is watched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, ShuffleSampler, train
from eegtensor.training.optimizers.sphericalmotion import (
    SphericalMotion,
    equilibrium_angle,
)


def fit(momentum, epochs, callback):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(10, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 2),
        )
        # Labels without a rule: gradients never end.
        x, y = torch.randn(512, 10), torch.randint(2, (512,))
    train(
        net,
        Batch(x, y),
        objective=CrossEntropy(),
        optimizer=torch.optim.SGD(
            net.parameters(), lr=0.1, momentum=momentum, weight_decay=5e-3
        ),
        sampler=ShuffleSampler(512, batch_size=16),
        epochs=epochs,
        callbacks=[callback],
    )
    return callback


def test_momentum_settles_at_the_angle_of_the_formula():
    watched = fit(0.9, 80, SphericalMotion())
    assert {row.name for row in watched.rows} == {"0.weight"}
    last = watched.rows[-30:]
    mean = sum(row.angle**2 for row in last) / 30
    assert last[0].expected == pytest.approx((2 * 0.1 * 5e-3 / 1.9) ** 0.5)
    assert mean**0.5 == pytest.approx(last[0].expected, rel=0.05)


def test_too_few_steps_are_said_to_be_too_few():
    watched = fit(0.0, 2, SphericalMotion(names=("0.weight",)))
    assert not watched.rows[-1].settled
    assert "not by 0.032" in watched.warnings[0]


def test_formula_and_mistakes():
    assert equilibrium_angle(0.1, 5e-3) == pytest.approx(0.0316, abs=1e-4)
    with pytest.raises(EEGTensorError, match="no parameter 'w'"):
        fit(0.0, 1, SphericalMotion(names=("w",)))
