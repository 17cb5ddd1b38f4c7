"""Leave-one-person-out training of a small network on TOY-SPD."""

from __future__ import annotations

import numpy as np
import torch
from _toy_spd import recentred, tangent_vectors, toy_three
from torch import nn

from eegtensor.training import (
    UNLABELLED,
    Batch,
    DomainBalancedSampler,
    Setup,
    forward_all,
    make_plugs,
    train,
)
from eegtensor.training.registry import build

EPOCHS = 25


class Perceptron(nn.Sequential):
    """36 features, 64 hidden units, three classes; its parts are named."""

    def __init__(self, seed, n=36):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            super().__init__()
            self.hidden = nn.Linear(n, 64)
            self.act = nn.ReLU()
            self.head = nn.Linear(64, 3)


class OfMatrices(nn.Module):
    """The same after the logarithm of SPD matrices, with the parts of an SPDNetwork."""

    ignores_domains = True

    def __init__(self, seed, n=8):
        super().__init__()
        self.tail = LogVectors(n)
        body = Perceptron(seed, n * (n + 1) // 2)
        self.body = nn.Sequential(body.hidden, body.act)
        self.head = body.head

    def spd(self, x):
        return x

    def embed(self, v):
        return self.body(v.to(self.head.weight.dtype))

    def forward(self, x):
        return self.head(self.embed(self.tail(x)))


class LogVectors(nn.Module):
    def __init__(self, n):
        super().__init__()
        i, j = torch.triu_indices(n, n)
        self.i, self.j = i, j
        self.factor = torch.where(i == j, 1.0, 2.0**0.5)

    def forward(self, S, domain=None):
        from eegtensor.geometry import logm

        return logm(S)[:, self.i, self.j] * self.factor


def people_out(
    seed, *, aligned, matrices=False, transductive=False, n_labels=None, **methods
):
    """Mean accuracy over people left out, each training with the same seed."""
    C, y, person = toy_three(seed)
    if aligned:
        C = recentred(C, person)
    scores = []
    for target in range(8):
        mine = person == target
        known = np.where(mine, UNLABELLED, y)
        if n_labels is not None:
            rng = np.random.default_rng([seed, target])
            for c in range(3):
                drop = rng.permutation(np.flatnonzero(known == c))[n_labels:]
                known[drop] = UNLABELLED
        kept = np.ones(len(y), bool) if transductive else ~mine
        if matrices:
            x = torch.from_numpy(C)
            net = OfMatrices(seed)
        else:
            V = tangent_vectors(C)
            V = (V - V[~mine].mean(0)) / V[~mine].std(0)
            x, net = torch.from_numpy(V).float(), Perceptron(seed)
        everyone = Batch(x, torch.from_numpy(known), torch.from_numpy(person))
        data = everyone.pick(torch.from_numpy(np.flatnonzero(kept)))
        data = Batch(data.x, data.y, data.domain)
        fit(net, data, seed, **methods)
        test = everyone.pick(torch.from_numpy(np.flatnonzero(mine)))
        guess = forward_all(net, test).argmax(1).numpy()
        scores.append((guess == y[mine]).mean())
    return float(np.mean(scores))


def fit(net, data, seed=0, epochs=EPOCHS, recipe=None, **methods):
    setup = Setup(net, data, n_classes=3, epochs=epochs, batch_size=50, seed=seed)
    methods = {"optimizer": "adam", "sampler": "domain-balanced"} | methods
    plugs = make_plugs(setup, **methods)
    if recipe is not None:
        plugs["recipe"] = build(recipe, "recipe", setup)
        del plugs["sampler"]
    return train(net, data, epochs=epochs, random_state=seed, **plugs)


__all__ = ["DomainBalancedSampler", "OfMatrices", "Perceptron", "fit", "people_out"]
