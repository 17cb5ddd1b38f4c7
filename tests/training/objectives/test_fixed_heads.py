"""Grassmann and equiangular heads in training: what their entries ask of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor.nn import EquiangularHead, GrassmannHead, make_head
from eegtensor.training import Batch, Setup, ShuffleSampler, make_plugs, train


class Net(nn.Module):
    def __init__(self, head, n_in=12, d=10, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(n_in, 32), nn.ReLU(), nn.Linear(32, d))
        self.head = head

    def forward(self, x):
        return self.head(self.body(x))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(net, x, y, epochs, batch_size=64, lr=1e-2):
    data = Batch(x, y)
    setup = Setup(net, data, n_classes=3, epochs=epochs, lr=lr, weight_decay=0.0)
    sampler = ShuffleSampler(len(x), batch_size=batch_size)
    plugs = make_plugs(setup) | {"sampler": sampler}
    train(net, data, epochs=epochs, **plugs)


def test_subspaces_stay_orthonormal_for_a_thousand_steps():
    x = torch.randn(64, 12, generator=seeded())
    y = torch.arange(64) % 3
    head = GrassmannHead(10, 3, n_dims=3, generator=seeded())
    before = head.weight.detach().clone()
    fit(Net(head), x, y, 1000)
    S = head.weight.detach().as_subclass(torch.Tensor).double()
    assert (S.mT @ S - torch.eye(3).double()).abs().max() < 1e-5
    assert (S - before).abs().max() > 0.05


def test_one_dimension_is_the_absolute_cosine():
    head = GrassmannHead(10, 4, n_dims=1, generator=seeded(), dtype=torch.float64)
    h = torch.randn(9, 10, generator=seeded(1), dtype=torch.float64)
    S = head.weight.detach().as_subclass(torch.Tensor)[:, :, 0]
    wanted = 25.0 * F.cosine_similarity(h[:, None], S[None], dim=2).abs()
    torch.testing.assert_close(head(h).detach(), wanted)


def test_vectors_are_not_trained_and_new_classes_leave_the_others():
    x = torch.randn(64, 12, generator=seeded())
    y = torch.arange(64) % 3
    head = EquiangularHead(10, 3, vectors="orthogonal", generator=seeded())
    before = head.vectors.clone()
    net = Net(head)
    fit(net, x, y, 5)
    assert torch.equal(head.vectors, before) and not list(head.parameters())
    more = EquiangularHead(10, 7, vectors="orthogonal", generator=seeded())
    with torch.no_grad():
        h = net.body(x)
        torch.testing.assert_close(more(h)[:, :3], head(h))


@pytest.mark.parametrize("name", ["simplex", "orthogonal"])
def test_a_class_of_few_trials_is_found_sooner(name):
    """One class with a twentieth of the trials of the other two, a few epochs."""

    def recall(head_name):
        found = []
        for seed in range(3):
            g = seeded(seed)
            means = 0.8 * torch.randn(3, 12, generator=g)
            y = torch.cat([torch.zeros(400), torch.ones(400), torch.full((20,), 2)])
            y = y.long()
            x = means[y] + torch.randn(820, 12, generator=g)
            test_y = torch.arange(900) % 3
            test_x = means[test_y] + torch.randn(900, 12, generator=g)
            net = Net(make_head(head_name, 10, 3, generator=seeded(seed)), seed=seed)
            fit(net, x, y, 8, lr=3e-3)
            with torch.no_grad():
                right = net(test_x).argmax(dim=1) == test_y
            found.append(float(right[test_y == 2].float().mean()))
        return sum(found) / 3

    # After 30 epochs both are alike: .62 and .62 over eight draws.
    assert recall(name) > recall("linear") + 0.1
