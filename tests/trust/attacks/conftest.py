"""Trials with planted waveforms and powers, networks trained on them, decoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn

from eegtensor.pipelines import make_pipeline
from eegtensor.simulate import simulate_trials


def waveforms(n, seed, *, size=0.08):
    """Noise and a waveform for each of three classes, in volts."""
    planted = torch.Generator().manual_seed(99)
    mixing = torch.randn(3, 6, 4, generator=planted)
    time = torch.linspace(0, 1, 64)
    basis = torch.stack([torch.sin(2 * torch.pi * (k + 2) * time) for k in range(4)])
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=g)
    x = torch.randn(n, 6, 64, generator=g) + size * (mixing @ basis)[y]
    return 1e-5 * x, y


class WaveNet(nn.Module):
    """A small convolutional network with batch norm and dropout."""

    def __init__(self, act=nn.ELU):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(6),
            nn.Conv1d(6, 8, 9, padding=4),
            act(),
            nn.AvgPool1d(4),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(128, 16),
            act(),
        )
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(1e5 * x))


def trained(network, x, y, steps=80, lr=5e-3):
    """Return a network after full batches of Adam, in training mode."""
    adam = torch.optim.Adam(network.parameters(), lr=lr)
    for _ in range(steps):
        adam.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        adam.step()
    return network


def made(kind, seed, *args, **options):
    """Return a network with weights of its own seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return kind(*args, **options)


@pytest.fixture(scope="session")
def wave_trials():
    """Trials for attacks, and their classes."""
    return waveforms(200, 2)


@pytest.fixture(scope="session")
def wave_net():
    """A network trained on such trials, left in training mode on purpose."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        return trained(made(WaveNet, 0), *waveforms(400, 1))


class PowerNet(nn.Module):
    """Spatial filters, powers or amplitudes over time, two hidden layers."""

    def __init__(self, n_filters=16, power=True):
        super().__init__()
        self.front = nn.Conv1d(8, n_filters, 1)
        self.power = power
        act = nn.ReLU if power else nn.Tanh
        self.body = nn.Sequential(nn.Linear(n_filters, 32), act(), nn.Linear(32, 32))
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        z = self.front(x)
        z = (z.square() if self.power else z.relu()).mean(-1)
        return self.head(self.body((z + 1e-3).log()).relu())


def toy_signals(seed=0, *, n_people=4, n_trials=60, n_times=128):
    """Signals of TOY-SPD: classes by the power of two sources, people by a mixing."""
    rng = np.random.default_rng(seed)
    n = 8
    common = rng.standard_normal((n, n)) / np.sqrt(n)
    trials, labels = [], []
    for _ in range(n_people):
        turn = expm(0.6 * rng.standard_normal((n, n)) / np.sqrt(n))
        mixing = common @ turn * np.exp(0.3 * rng.standard_normal())
        y = rng.permutation(np.arange(n_trials) % 3)
        power = np.ones((n_trials, n))
        power[np.arange(n_trials), y] *= 2.6
        power[np.arange(n_trials), 3 + y] /= 1.8
        size = np.sqrt(power) * np.exp(0.25 * rng.standard_normal((n_trials, n)))
        sources = size[:, :, None] * rng.standard_normal((n_trials, n, n_times))
        noise = 0.3 * rng.standard_normal((n_trials, n, n_times))
        trials.append(mixing @ sources + noise)
        labels.append(y)
    x = torch.tensor(np.concatenate(trials), dtype=torch.float32)
    return x, torch.from_numpy(np.concatenate(labels))


@pytest.fixture(scope="session")
def power_pair():
    """Two networks of different kinds on TOY-SPD, and trials that neither saw."""
    x, y = toy_signals()
    new = torch.arange(len(y)) % 4 == 0
    nets = [
        trained(made(PowerNet, seed, *size), x[~new], y[~new], lr=1e-2).eval()
        for seed, size in ((0, ()), (1, (24, False)))
    ]
    return *nets, x[new], y[new]


class Decoders:
    """Pipelines fitted to simulated people, and the trials of one more person."""

    def __init__(self):
        trials = simulate_trials(
            n_subjects=4, n_sessions=1, n_trials=30, n_channels=6, random_state=0
        )
        who = np.asarray(trials.subjects)
        new = who == np.unique(who)[-1]
        self.X, self.y = trials.X, np.asarray(trials.y)
        self.train, self.names = ~new, {"subjects": who}
        self.test = self.X[new], self.y[new]
        self.new = {"subjects": who[new]}
        self._kept = {}

    def get(self, name, align=None, *, adapt=True, **params):
        """Return a fitted pipeline, adapted to the new person."""
        key = (name, align, adapt, tuple(sorted(params.items())))
        if key not in self._kept:
            pipeline = make_pipeline(name, align=align, **params)
            given = {"subjects": self.names["subjects"][self.train]}
            pipeline.fit(self.X[self.train], self.y[self.train], **given)
            if adapt:
                pipeline.adapt(self.test[0], **self.new)
            self._kept[key] = pipeline
        return self._kept[key]

    def tsmnet(self):
        """Return a TSMNet after few epochs."""
        return self.get("tsmnet", epochs=4, random_state=0)


@pytest.fixture(scope="session")
def decoders():
    """Fitted decoders by name."""
    return Decoders()
