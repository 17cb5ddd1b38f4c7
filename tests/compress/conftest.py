"""Trials of TOY-SPD as signals, and a small network that tells their classes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from _toy_spd import recentred, toy_three
from torch import nn

from eegtensor.compress import FineTune
from eegtensor.training import Batch, CrossEntropy, forward_all


class Power(nn.Module):
    """Log powers of spatial filters, then three linear layers with batch norms."""

    def __init__(self, n_chans=8, n_filters=24, seed=0):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            super().__init__()
            self.filters = nn.Conv1d(n_chans, n_filters, 1, bias=False)
            self.body = nn.Sequential(
                nn.BatchNorm1d(n_filters),
                nn.Linear(n_filters, 64),
                nn.BatchNorm1d(64),
                nn.ReLU(),
                nn.Linear(64, 64),
                nn.BatchNorm1d(64),
                nn.ReLU(),
            )
            self.head = nn.Linear(64, 3)

    def forward(self, x):
        power = self.filters(x).square().mean(2)
        return self.head(self.body(power.clamp_min(1e-30).log()))


class Waves(nn.Sequential):
    """Two convolutions, all in one chain."""

    def __init__(self, n_chans=8, seed=0):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            super().__init__(
                nn.Conv1d(n_chans, 16, 5, stride=2, padding=2),
                nn.BatchNorm1d(16),
                nn.ReLU(),
                nn.Conv1d(16, 12, 3, padding=1, dilation=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool1d(1),
                nn.Flatten(),
                nn.Linear(12, 3),
            )


def signals(seed=0, n_times=64):
    """All people's trials with covariances of TOY-SPD; 480 to learn, 2080 to test."""
    C, y, person = toy_three(seed, n_trials=320)
    C = recentred(C, person)
    rng = np.random.default_rng(seed + 100)
    x = np.linalg.cholesky(C) @ rng.standard_normal((len(C), 8, n_times))
    order = rng.permutation(len(y))
    train, test = order[:480], order[480:]
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y)
    return Batch(x[train], y[train]), Batch(x[test], y[test])


@pytest.fixture(scope="session")
def toy():
    """Training and test trials."""
    return signals()


@pytest.fixture(scope="session")
def tuner(toy):
    """Return a function that makes a FineTune."""

    def make(epochs, objective=None, **options):
        options = {"batch_size": 40, "lr": 3e-3} | options
        return FineTune(toy[0], objective or CrossEntropy(), epochs=epochs, **options)

    return make


@pytest.fixture(scope="session")
def _trained(toy, tuner):
    from eegtensor.compress import Compressor

    net = Power()
    tuner(30)(net, Compressor())
    return net


@pytest.fixture
def net(_trained):
    """A trained network: a copy for each test."""
    return copy.deepcopy(_trained)


@pytest.fixture
def power():
    """Return the class of the small network."""
    return Power


@pytest.fixture
def waves():
    """Return the class of the convolutions in a chain."""
    return Waves


def points(model, data):
    """Accuracy in points of a hundred."""
    return 100.0 * float((forward_all(model, data).argmax(1) == data.y).float().mean())


@pytest.fixture
def score():
    """Return the function of a network and trials that gives points."""
    return points
