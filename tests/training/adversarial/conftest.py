"""A small network on trials whose channels differ a hundredfold; people to train."""

from __future__ import annotations

import pytest
import torch
from _toy_spd import recentred, tangent_vectors, toy_three
from _toy_training import Perceptron, fit
from torch import nn

from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    StepContext,
    WeightedSum,
    forward_all,
)
from eegtensor.training.perturbations._adversary import Budget, moved, worst
from eegtensor.training.perturbations.scales import channel_scale


class Small(nn.Module):
    """A convolution, a hidden layer and a head in float64; no statistics."""

    def __init__(self, seed=0, n_classes=3):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.front = nn.Conv1d(3, 4, 3)
            self.hidden = nn.Linear(16, 8)
            self.head = nn.Linear(8, n_classes)
        self.double()

    def forward(self, x):
        return self.head(self.hidden(self.front(x).tanh().flatten(1)).tanh())


def small_trials(n=12, seed=1, gains=(0.1, 1.0, 10.0)):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 6, generator=g, dtype=torch.float64)
    return Batch(
        x * torch.tensor(gains, dtype=torch.float64)[:, None],
        torch.randint(3, (n,), generator=g),
    )


@pytest.fixture
def small():
    return Small


@pytest.fixture
def drawn():
    return small_trials


def context_of(model, batch, objective=None, *, epoch=1, n_epochs=1, step=1, seed=7):
    keeps = "features" in getattr(objective, "needs", ())
    return StepContext(
        Network(model, keeps_features=keeps),
        WeightedSum(CrossEntropy() if objective is None else objective),
        batch,
        epoch=epoch,
        step=step,
        generator=torch.Generator(batch.device).manual_seed(seed),
        clean=batch,
        n_epochs=n_epochs,
    )


@pytest.fixture
def context():
    return context_of


def person_out(seed, target=7, shuffled=0.0):
    """Tangent vectors of TOY-SPD: trials of seven people, and of the eighth."""
    C, y, person = toy_three(seed)
    V = tangent_vectors(recentred(C, person))
    mine = person == target
    V = (V - V[~mine].mean(0)) / V[~mine].std(0)
    y = torch.from_numpy(y)
    x, domain = torch.from_numpy(V).float(), torch.from_numpy(person)
    train, test = torch.from_numpy(~mine), torch.from_numpy(mine)
    return Batch(x[train], y[train], domain[train]), Batch(x[test], y[test])


def accuracies(net, data, eps, n_steps=20):
    """Accuracy of clean trials and of those attacked by PGD, in evaluation mode."""
    net.eval()
    budget = Budget.checked(eps, n_steps, None, "linf")
    d = worst(Network(net), data, budget, generator=torch.Generator().manual_seed(0))
    there = moved(data, d, channel_scale(data.x))
    return tuple(
        float((forward_all(net, b).argmax(1) == data.y).double().mean())
        for b in (data, there)
    )


def trained(seed, epochs=25, **methods):
    """A network trained on seven people, and its accuracies on the eighth."""
    data, test = person_out(seed)
    net = Perceptron(seed)
    fit(net, data, seed, epochs=epochs, **methods)
    return net, data, test


@pytest.fixture
def toy_person():
    return person_out


@pytest.fixture
def toy_trained():
    return trained


@pytest.fixture
def robust():
    return accuracies
