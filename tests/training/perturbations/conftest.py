"""One step of the loop on a small Euclidean network, and on a quadratic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    ShuffleSampler,
    StepContext,
    WeightedSum,
    make_optimizer,
    train,
)
from eegtensor.training.plugs import Plugs
from eegtensor.training.step import take_step


def small_network(seed=0):
    """Convolution, hidden layer and head in float64, without statistics."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)
        ).double()


def small_batches(count=1, n=12, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randn(n, 3, 6, generator=g, dtype=torch.float64),
            torch.randint(2, (n,), generator=g),
        )
        for _ in range(count)
    ]


class Steps:
    """Steps of SGD with a perturbation, and what a referee needs."""

    def __init__(self, perturbation, lr=0.3, seed=5, model=None, epochs=1):
        self.model = small_network() if model is None else model
        self.perturbation, self.n_epochs = perturbation, epochs
        self.network = Network(self.model)
        self.loss = WeightedSum(CrossEntropy())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)
        self.generator = torch.Generator().manual_seed(seed)
        self.count = 0

    def take(self, batch, epoch=1):
        self.count += 1
        context = StepContext(
            self.network,
            self.loss,
            batch,
            epoch=epoch,
            step=self.count,
            generator=self.generator,
            n_epochs=self.n_epochs,
        )
        take_step(context, self.optimizer, Plugs.sort(self.perturbation))
        return self

    @property
    def weights(self):
        return [p.detach().clone() for p in self.model.parameters()]


def gradients_at(model, weights, batch):
    """Return gradients of the mean loss at other weights; the model stays."""
    named = dict(zip((n for n, _ in model.named_parameters()), weights, strict=True))
    leaves = {n: w.detach().clone().requires_grad_() for n, w in named.items()}
    out = torch.func.functional_call(model, leaves, (batch.x,))
    loss = nn.functional.cross_entropy(out, batch.y)
    return list(torch.autograd.grad(loss, list(leaves.values())))


class Quadratic(nn.Module):
    """w'Hw / 2 of a matrix, or of a diagonal."""

    def __init__(self, h, start):
        super().__init__()
        h = torch.as_tensor(h, dtype=torch.float64)
        self.h = h if h.ndim == 2 else h.diag()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, x):
        return 0.5 * self.w @ self.h @ self.w


class Value:
    per_trial = False

    def __call__(self, model, batch, outputs, context):
        return outputs


def descend(model, perturbation, epochs=1, lr=0.1):
    """Steps of SGD on the value that a model without trials returns; its weights."""
    train(
        model,
        Batch(torch.zeros(1, 1)),
        objective=Value(),
        optimizer=make_optimizer(model, "sgd", lr=lr, weight_decay=0.0),
        sampler=ShuffleSampler(1, batch_size=1),
        epochs=epochs,
        perturbation=perturbation,
    )
    return model.w.detach()


@pytest.fixture
def quadratic():
    return Quadratic


@pytest.fixture
def fit():
    return descend


@pytest.fixture
def steps():
    return Steps


@pytest.fixture
def batches():
    return small_batches


@pytest.fixture
def gradients():
    return gradients_at


@pytest.fixture
def network():
    return small_network
