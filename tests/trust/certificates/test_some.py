"""SOME: weights and pace by their formulas; heads that differ; a radius no smaller."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor._check import EEGTensorError
from eegtensor.training import Batch, forward_all, train
from eegtensor.training.samplers import ShuffleSampler
from eegtensor.trust.certificates import (
    SOME,
    HeadSum,
    SmoothingNoise,
    Votes,
    certify,
    with_heads,
)
from eegtensor.trust.certificates.some import pace, peer_weights

ONE = np.ones((1, 1, 1))


class Small(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.ReLU())
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.body(x))


def trials(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    basis = np.linalg.qr(np.random.default_rng(9).standard_normal((12, 12)))[0]
    x = 1.2 * basis[y] + 0.6 * rng.standard_normal((n, 12))
    return torch.from_numpy(x).float().reshape(n, 2, 6), torch.from_numpy(y)


def test_pace_has_its_end_points():
    """Check of A16: ln K in the first epoch, the last value in the last."""
    for K, last in ((2, 0.8), (4, 1.2), (10, 0.8)):
        assert pace(1, 30, K, last) == pytest.approx(math.log(K), abs=1e-12)
        assert pace(30, 30, K, last) == pytest.approx(last, abs=1e-12)
        a = (10 ** -math.log(K) - 10**-last) / (1 - 30)
        b = 10 ** -math.log(K) - a
        assert pace(7, 30, K, last) == pytest.approx(-math.log10(7 * a + b), abs=1e-12)
    assert pace(1, 1, 3, 0.8) == pytest.approx(0.8)


def test_weights_by_hand():
    losses = torch.tensor([[0.2, 2.0], [1.5, 3.0], [0.4, 0.1]], dtype=torch.float64)
    lam = 1.0
    found = peer_weights(losses, lam)

    def soft(v):
        return (1 + math.exp(-lam)) / (1 + math.exp(v - lam))

    # Head 0 looks at head 2, head 1 at head 0, head 2 at head 1.
    expected = [[1.0, 1.0], [1.0, soft(3.0)], [soft(0.4), soft(0.1)]]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))
    assert soft(0.0) == pytest.approx(1.0)


def test_the_sum_of_heads_and_their_cosines():
    net = with_heads(Small(), 4, generator=torch.Generator().manual_seed(0))
    x, _ = trials(5, 0)
    h = net.body(x)
    assert isinstance(net.head, HeadSum)
    assert torch.allclose(net(x), sum(head(h) for head in net.head.heads))
    rows = [
        torch.cat([p.flatten() for p in head.parameters()]) for head in net.head.heads
    ]
    expected = [
        torch.cosine_similarity(rows[i], rows[j], dim=0)
        for i in range(4)
        for j in range(i + 1, 4)
    ]
    assert torch.allclose(net.head.cosines(), torch.stack(expected), atol=1e-6)
    one = with_heads(Small(), 1)
    assert torch.equal(one(x), Small()(x))


def radii(net):
    x, y = trials(40, 5)

    def decide(X):
        with torch.no_grad():
            return net(torch.from_numpy(X)).argmax(1).numpy()

    found = certify(
        decide,
        x.numpy(),
        scale=ONE,
        noise=SmoothingNoise("l2", 0.5, 12),
        n_classes=3,
        votes=Votes(50, 1000, batch_size=1000),
    )
    return float(np.mean(found.radius * (found.codes == y.numpy())))


def fitted(net, objective, epochs=40, data=None, batch_size=50):
    data = Batch(*trials(300, 1)) if data is None else data
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    train(
        net,
        data,
        objective=objective,
        optimizer=optimizer,
        epochs=epochs,
        sampler=ShuffleSampler(len(data), batch_size=batch_size),
        random_state=0,
    )
    return net.eval()


def test_heads_end_apart_and_certify_no_less_than_one():
    """Check of A16: |cos| of heads below .1; mean radius of one head or more."""
    several = with_heads(Small(), 5, generator=torch.Generator().manual_seed(1))
    several = fitted(several, SOME(sigma=0.5, last=0.8))
    assert several.head.cosines().abs().max() < 0.1
    single = fitted(with_heads(Small(), 1), SOME(sigma=0.5, last=0.8))
    x, y = trials(200, 7)
    right = forward_all(several, Batch(x)).argmax(1) == y
    assert right.float().mean() > 0.7
    assert radii(several) >= radii(single) - 0.01


def test_other_heads_are_refused():
    with pytest.raises(EEGTensorError, match="with_heads"):
        fitted(Small(), SOME(), epochs=1)


def test_statistics_move_once_a_step():
    net = Small()
    net.body.add_module("norm", nn.BatchNorm1d(32))
    net = with_heads(net, 2)
    fitted(net, SOME(), epochs=1)
    assert int(net.body.norm.num_batches_tracked) == 6


def test_trials_without_a_label_count_for_nothing():
    x, y = trials(60, 1)
    y[50:] = -1
    # Other places for trials without a label: channels keep their size.
    order = torch.cat([torch.arange(50), 50 + torch.randperm(10)])
    weights = []
    for inputs in (x, x[order]):
        net = with_heads(Small(), 2)
        fitted(net, SOME(), epochs=2, data=Batch(inputs, y), batch_size=60)
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.allclose(*weights, atol=1e-6)
    assert torch.isfinite(weights[0]).all()
