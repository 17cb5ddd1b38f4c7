"""Equity weights and the sampler that gives them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, build, make_plugs, train
from eegtensor.training.samplers import EquitySampler, equity_weights


def test_formula_and_what_follows_from_it():
    codes = ["a"] * 6 + ["b"] * 3 + ["c"]
    p = np.repeat([0.6, 0.3, 0.1], [6, 3, 1])
    np.testing.assert_allclose(equity_weights(codes), (1 + (1 - p) ** 5) / 2)
    got = equity_weights(codes, eta=0.5, gamma=2.0)
    np.testing.assert_allclose(got, (0.5 + (1 - p) ** 2) / 1.5)
    # Rarer kinds weigh more, kinds of the same size the same.
    assert got[0] < got[6] < got[9]
    assert np.ptp(equity_weights(np.arange(12) % 4)) == 0


def test_sampler_by_name_takes_domains_or_clusters():
    g = torch.Generator().manual_seed(0)
    kind = (torch.arange(90) % 9 == 0).long()
    x = torch.randn(90, 4, generator=g) + 40.0 * kind[:, None]
    data = Batch(x, kind, kind)
    net = torch.nn.Linear(4, 2)
    setup = Setup(net, data, batch_size=30, seed=1)
    by_domain = build("equity(gamma=2.0)", "sampler", setup)
    wanted = equity_weights(kind, gamma=2.0)
    np.testing.assert_allclose(by_domain.weights(1), wanted, rtol=1e-6)
    found = build("equity(clusters=2, gamma=2.0)", "sampler", setup)
    np.testing.assert_allclose(found.weights(1), wanted, rtol=1e-6)
    drawn = torch.cat(by_domain.indices(1))
    assert torch.equal(drawn.sort().values, torch.arange(90))
    other = Setup(net, Batch(x, kind))
    with pytest.raises(EEGTensorError, match="no domains"):
        build("equity", "sampler", other)


def test_rare_people_are_fitted_better():
    """One person of eight with an eighth of the trials and a boundary of their own."""
    g = torch.Generator().manual_seed(0)
    person = torch.cat([torch.arange(7).repeat_interleave(80), torch.full((10,), 7)])
    y = torch.randint(2, (570,), generator=g)
    x = torch.randn(570, 6, generator=g) * 0.7
    common = 2.0 * (y - 0.5)
    x[:, 0] += torch.where(person == 7, -0.5 * common, common)
    x[:, 1] += torch.where(person == 7, 1.5 * common, 0 * common)

    def loss(sampler):
        torch.manual_seed(0)
        net = torch.nn.Linear(6, 2)
        data = Batch(x, y, person)
        setup = Setup(net, data, epochs=30, batch_size=57, lr=0.02)
        train(net, data, epochs=30, **make_plugs(setup, sampler=sampler))
        z = net(x)[person == 7]
        return float(torch.nn.functional.cross_entropy(z, y[person == 7]).detach())

    assert loss("equity(eta=0.0, gamma=20.0)") < loss("equity") < loss("shuffle")


def test_mistakes():
    with pytest.raises(EEGTensorError, match="eta=-1"):
        EquitySampler([0, 1], eta=-1)
