"""A small network with every kind of parameter and statistic, and trials for it."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import nn

from eegtensor.training import Batch


class MomentumNorm(nn.Module):
    """Centres by a running mean a domain that moves with the batch, as SPDDSMBN."""

    def __init__(self, n_domains, n, eta=0.3):
        super().__init__()
        self.eta = self.eta_test = eta
        self.register_buffer("mean", torch.zeros(n_domains, n))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def set_momentum(self, eta, eta_test):
        self.eta, self.eta_test = eta, eta_test

    def forward(self, z, domain):
        if not self.training:
            return z - self.mean[domain]
        one_hot = nn.functional.one_hot(domain, len(self.mean)).to(z)
        count = one_hot.sum(0)[:, None]
        batch = one_hot.T @ z / count.clamp_min(1)
        moved = (1 - self.eta) * self.mean + self.eta * batch
        mean = torch.where(count > 0, moved, self.mean)
        self.mean = mean.detach()
        self.seen += 1
        return z - mean[domain]


class Toy(nn.Module):
    """Stiefel, SPD and Euclidean leaves, domain statistics and dropout."""

    def __init__(self, *, n_domains=4, dropout=0.3, dtype=torch.float32, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        frame = torch.linalg.qr(torch.randn(8, 3, generator=g, dtype=dtype))[0]
        self.frame = geoopt.ManifoldParameter(
            frame.contiguous(), manifold=geoopt.EuclideanStiefel()
        )
        self.shape = geoopt.ManifoldParameter(
            torch.eye(3, dtype=dtype), manifold=geoopt.SymmetricPositiveDefinite()
        )
        self.norm = MomentumNorm(n_domains, 3).to(dtype)
        self.batch_norm = nn.BatchNorm1d(3, dtype=dtype)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(3, 2, dtype=dtype)
        with torch.no_grad():
            self.head.weight.copy_(0.3 * torch.randn(2, 3, generator=g, dtype=dtype))
            self.head.bias.zero_()

    def forward(self, x, domain):
        z = self.norm(x @ self.frame @ self.shape, domain)
        return self.head(self.dropout(self.batch_norm(z)))


@pytest.fixture
def toy():
    """Return the class of the small network."""
    return Toy


def simulate(n=160, *, n_domains=4, dtype=torch.float32, device="cpu", seed=0):
    g = torch.Generator().manual_seed(seed)
    domain = torch.arange(n) % n_domains
    y = torch.randint(2, (n,), generator=g)
    offset = torch.randn(n_domains, 8, generator=g, dtype=dtype)
    x = torch.randn(n, 8, generator=g, dtype=dtype) + 2 * offset[domain]
    x[:, :2] += 1.5 * (2.0 * y[:, None] - 1)
    return Batch(x, y, domain).to(device)


@pytest.fixture
def trials():
    """Return a function that simulates a `Batch` of trials of some domains."""
    return simulate


def same_state(a, b):
    """Whether two state_dicts, or dicts of tensors, hold the same bits."""
    # As bytes: NaN stands for what a norm has not seen, and equals itself here.
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape
        and a[k].dtype == b[k].dtype
        and a[k].detach().cpu().numpy().tobytes()
        == b[k].detach().cpu().numpy().tobytes()
        for k in a
    )


@pytest.fixture
def equal():
    """Return the comparison of dicts of tensors, bit for bit."""
    return same_state
