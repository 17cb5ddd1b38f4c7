"""Comp-sum losses against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training.objectives import CompSum, comp_sum


def logits(n=200, k=4, scale=3.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(n, k, generator=g, dtype=torch.float64)
    return z, torch.randint(k, (n,), generator=g)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.3, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("rho", [0.5, 1.0, 4.0])
def test_value_is_that_of_the_definition(call, tau, rho):
    z, y = logits()
    others = torch.stack(
        [z[i, torch.arange(4) != y[i]] - z[i, y[i]] for i in range(len(z))]
    )
    S = (others / rho).exp().sum(dim=1)
    wanted = S.log1p() if tau == 1 else ((1 + S) ** (1 - tau) - 1) / (1 - tau)
    got = call(CompSum(tau=tau, rho=rho), z, y)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_members_of_the_family_by_their_names():
    z, y = logits()
    p = z.softmax(dim=1).gather(1, y[:, None]).squeeze(1)
    torch.testing.assert_close(comp_sum(z, y, 2.0), 1 - p)
    torch.testing.assert_close(comp_sum(z, y, 1.7), (1 - p**0.7) / 0.7)
    torch.testing.assert_close(comp_sum(z, y, 0.0), 1 / p - 1)
    cross = F.cross_entropy(z, y, reduction="none")
    assert torch.equal(comp_sum(z, y, 1.0), cross)


@pytest.mark.parametrize("away", [1e-4, -1e-4, 1e-7, -1e-7, 1e-10, 1e-14])
def test_it_is_smooth_where_tau_passes_one(away):
    z, y = logits()
    cross = F.cross_entropy(z, y, reduction="none")
    # First order in 1 - tau: s - away s^2 / 2.
    wanted = cross - away * cross**2 / 2
    got = comp_sum(z, y, 1.0 + away)
    assert (got - wanted).abs().max() < 1e-8 + 40 * away**2 * float(cross.max()) ** 3


def test_gradients():
    z, y = logits(6)
    z.requires_grad_()
    for tau in (0.0, 1.0, 1.0 + 1e-6, 1.7, 2.0):
        assert torch.autograd.gradcheck(lambda z, tau=tau: comp_sum(z, y, tau), z)


def test_gradients_are_bounded_from_one_on():
    z, y = logits(scale=50.0)
    for tau in (1.0, 1.7, 2.0):
        z.grad = None
        comp_sum(z.requires_grad_(), y, tau).sum().backward()
        assert z.grad.abs().max() <= 1.0


def test_trials_without_a_label_have_no_loss(call):
    z, y = logits(8)
    z.requires_grad_()
    y[:3] = -1
    loss = call(CompSum(tau=1.7), z, y)
    loss.sum().backward()
    assert torch.equal(loss[:3], torch.zeros(3, dtype=loss.dtype))
    assert not z.grad[:3].any() and z.grad[3:].any()


def test_logits_without_end_have_a_finite_loss(call):
    z = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    for tau in (1.0, 1.7, 2.0):
        loss = call(CompSum(tau=tau), z, torch.tensor([0, 0]))
        loss.sum().backward()
        assert torch.isfinite(loss).all() and torch.isfinite(z.grad).all()


@pytest.mark.slow
def test_wrong_labels_hurt_less():
    """TOY-SPD recentred, one person left out, 30 % of the labels drawn anew."""
    import numpy as np
    from _toy_spd import recentred, tangent_vectors, toy_three

    found = {1.0: [], 1.7: []}
    for seed in (0, 1):
        C, truth, people = toy_three(seed)
        x = torch.as_tensor(tangent_vectors(recentred(C, people)), dtype=torch.float32)
        rng = np.random.default_rng(seed)
        flip = rng.random(len(truth)) < 0.3
        y = np.where(flip, (truth + rng.integers(1, 3, len(truth))) % 3, truth)
        y, truth = torch.as_tensor(y), torch.as_tensor(truth)
        for left in range(8):
            test = torch.as_tensor(people == left)
            for tau, scores in found.items():
                net = fitted(x[~test], y[~test], tau)
                scores.append((net(x[test]).argmax(dim=1) == truth[test]).float())
    means = {tau: float(torch.cat(scores).mean()) for tau, scores in found.items()}
    assert means[1.7] > means[1.0] + 0.04, means


def fitted(x, y, tau):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(36, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(25):
        for part in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            comp_sum(net(x[part]), y[part], tau).mean().backward()
            optimizer.step()
    return net


def test_mistakes():
    with pytest.raises(EEGTensorError, match="tau=-1"):
        CompSum(tau=-1)
    with pytest.raises(EEGTensorError, match="rho=0"):
        CompSum(rho=0)


def test_beside_cross_entropy_the_series_is_exact():
    z, y = torch.tensor([[0.0, 5.0]], dtype=torch.float64), torch.tensor([0])
    s = math.log1p(math.exp(5.0))
    for away in (1e-5, -1e-5, 1.9e-5):
        wanted = math.expm1(-away * s) / -away
        assert float(comp_sum(z, y, 1 + away)[0]) == pytest.approx(wanted, rel=5e-12)
