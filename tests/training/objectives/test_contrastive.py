"""Decoupled contrastive and group-ordering objectives, and the views they share."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Network, ShuffleSampler, StepContext, train
from eegtensor.training.objectives import (
    DecoupledContrastive,
    GroupOrder,
    decoupled_contrastive,
)
from eegtensor.training.objectives.grouporder import group_order, soft_sort
from eegtensor.training.objectives.views import Views


def drawn(n=12, d=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    return z, z + 0.3 * torch.randn(n, d, generator=g, dtype=torch.float64)


def by_hand(z, other, t=0.1, sigma=None, allowed=None):
    a, b = F.normalize(z), F.normalize(other)
    n = len(a)
    w = torch.ones(n, dtype=z.dtype)
    if sigma is not None:
        w = 2 - n * ((a * b).sum(dim=1) / sigma).softmax(dim=0)
    total = torch.zeros(n, dtype=z.dtype)
    for one, two in ((a, b), (b, a)):
        for i in range(n):
            negatives = [
                j for j in range(n) if j != i and (allowed is None or allowed[i, j])
            ]
            if not negatives:
                continue
            below = sum(
                torch.exp(one[i] @ one[j] / t) + torch.exp(one[i] @ two[j] / t)
                for j in negatives
            )
            total[i] += (below.log() - w[i] * (one[i] @ two[i]) / t) / 2
    return total


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_decoupled_contrastive_is_its_definition(sigma):
    z, other = drawn()
    got = decoupled_contrastive(z, other, sigma=sigma)
    torch.testing.assert_close(got, by_hand(z, other, sigma=sigma))
    allowed = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.4
    allowed[3] = False
    got = decoupled_contrastive(z, other, sigma=sigma, negatives=allowed)
    torch.testing.assert_close(got, by_hand(z, other, sigma=sigma, allowed=allowed))
    assert got[3] == 0


def test_difference_to_nt_xent_is_the_positive_term():
    z, other = drawn()
    a, b = F.normalize(z), F.normalize(other)
    both = torch.cat([a, b])
    S = (both @ both.mT / 0.1).masked_fill(torch.eye(24, dtype=torch.bool), -torch.inf)
    place = torch.arange(24).roll(12)
    nt_xent = F.cross_entropy(S, place, reduction="none")
    nt_xent = (nt_xent[:12] + nt_xent[12:]) / 2
    positive = (a * b).sum(dim=1) / 0.1
    # log sum with the positive - log sum without it.
    with_it = S.logsumexp(dim=1)
    without = torch.log(with_it.exp() - torch.cat([positive, positive]).exp())
    gap = ((with_it - without)[:12] + (with_it - without)[12:]) / 2
    torch.testing.assert_close(nt_xent - decoupled_contrastive(z, other), gap)


def test_pull_of_the_positive_does_not_depend_on_the_others():
    """NT-Xent multiplies it by a factor that vanishes with few, easy negatives."""
    for seed in range(3):
        z, other = drawn(seed=seed)
        a = F.normalize(z).requires_grad_()
        b = F.normalize(other)
        positive = (a * b).sum(dim=1)
        (pull,) = torch.autograd.grad(-(positive / 0.1).sum(), a, retain_graph=True)
        torch.testing.assert_close(pull, -b / 0.1)


def test_gradients_are_finite_where_a_trial_has_no_negative():
    z, other = drawn()
    z.requires_grad_()
    allowed = torch.zeros(12, 12, dtype=torch.bool)
    loss = decoupled_contrastive(z, other, negatives=allowed)
    loss.sum().backward()
    assert not loss.any() and torch.isfinite(z.grad).all()


class Encoder(nn.Module):
    def __init__(self, C=6, T=20, d=4):
        super().__init__()
        self.norm = nn.BatchNorm1d(C)
        self.body = nn.Linear(C * T, d)
        self.head = nn.Linear(d, 2)

    def forward(self, x):
        return self.head(self.body(self.norm(x).flatten(1)))


@pytest.mark.parametrize("objective", [DecoupledContrastive(), GroupOrder()])
def test_in_a_run_statistics_move_by_the_plain_pass_alone(call, objective, equal):
    torch.manual_seed(0)
    net, x = Encoder(), torch.randn(16, 6, 20)
    net.train()
    outputs = net(x)
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    features = torch.zeros(16, 4)
    loss = call(objective, outputs, model=net, x=x, features=features)
    assert loss.shape == (16,) and equal(kept, dict(net.state_dict()))
    loss.mean().backward()
    assert net.body.weight.grad.any() and net.head.weight.grad is None


def test_negatives_are_of_the_domain_and_not_next_to_each_other():
    domain = torch.tensor([0, 0, 0, 1, 1, 1])
    index = torch.tensor([0, 1, 5, 6, 9, 8])
    batch = Batch(torch.zeros(6, 1), None, domain, index)
    near = DecoupledContrastive(guard=1)._negatives(batch)
    wanted = domain[:, None] == domain[None, :]
    assert torch.equal(DecoupledContrastive()._negatives(batch), wanted)
    wanted = wanted & ((index[:, None] - index[None, :]).abs() > 1)
    assert torch.equal(near, wanted)
    # Of another domain 5 and 6 are no neighbours.
    far = DecoupledContrastive(guard=1, within_domain=False)._negatives(batch)
    assert far[2, 3] and not far[0, 1]


def test_views_have_the_size_they_say_in_any_unit():
    x = torch.randn(400, 5, 50) * torch.logspace(-2, 2, 5)[:, None]
    for unit in (1.0, 1e-6):
        g = torch.Generator().manual_seed(0)
        noisy = Views(noise=0.3, drop=0.0, amplitude=0.0).draw(unit * x, g)
        share = (noisy - unit * x).std(dim=(0, 2)) / (unit * x).std(dim=(0, 2))
        torch.testing.assert_close(share, torch.full((5,), 0.3), rtol=0.02, atol=0)
    g = torch.Generator().manual_seed(0)
    dropped = Views(noise=0.0, drop=0.25, amplitude=0.0).draw(x, g)
    silent = (dropped == 0).all(dim=2)
    assert abs(float(silent.float().mean()) - 0.25) < 0.03
    assert torch.equal(dropped[~silent], x[~silent])
    louder = Views(noise=0.0, drop=0.0, amplitude=0.2).draw(x, g)
    factor = (louder / x).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert abs(float(factor[:, 0].log().std()) - 0.2) < 0.02


def test_trials_of_a_kind_come_together_without_labels():
    """Nearest neighbours in the features, before and after."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 6
    kinds = torch.randn(6, 6, generator=g)
    rhythm = torch.sin(torch.arange(20) * 0.9)
    x = kinds[y][:, :, None] * rhythm + 0.9 * torch.randn(240, 6, 20, generator=g)

    def right(net):
        with torch.no_grad():
            net.eval()
            f = F.normalize(net.body(net.norm(x).flatten(1)))
        S = f @ f.mT
        S.fill_diagonal_(-1)
        return float((y[S.argmax(dim=1)] == y).float().mean())

    for objective in (
        DecoupledContrastive(noise=0.9),
        DecoupledContrastive(noise=0.9, weighted=True),
        GroupOrder(noise=0.9),
    ):
        torch.manual_seed(0)
        net = Encoder(d=8)
        before = right(net)
        train(
            net,
            Batch(x),
            objective=objective,
            optimizer=torch.optim.Adam(net.parameters(), lr=3e-3),
            sampler=ShuffleSampler(240, batch_size=60),
            epochs=12,
        )
        assert right(net) > before + 0.05, (type(objective).__name__, before)


def permutation_by_hand(values, steepness):
    """The odd-even network, one exchange after the other."""
    n = len(values)
    x, P = list(values), [[float(i == j) for j in range(n)] for i in range(n)]
    for layer in range(n):
        for low in range(layer % 2, n - 1, 2):
            a, b = x[low], x[low + 1]
            keep = math.atan(steepness * (b - a)) / math.pi + 0.5
            x[low], x[low + 1] = keep * a + (1 - keep) * b, (1 - keep) * a + keep * b
            top, bottom = P[low], P[low + 1]
            P[low] = [keep * u + (1 - keep) * v for u, v in zip(top, bottom)]  # noqa: B905
            P[low + 1] = [(1 - keep) * u + keep * v for u, v in zip(top, bottom)]  # noqa: B905
    return torch.tensor(P, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_soft_sort_is_the_network(n):
    g = torch.Generator().manual_seed(n)
    values = torch.randn(4, n, generator=g, dtype=torch.float64)
    P = soft_sort(values, 2.0)
    wanted = torch.stack([permutation_by_hand(v.tolist(), 2.0) for v in values])
    torch.testing.assert_close(P, wanted)
    ones = torch.ones(4, n, dtype=torch.float64)
    torch.testing.assert_close(P.sum(dim=1), ones)
    torch.testing.assert_close(P.sum(dim=2), ones)
    sharp = soft_sort(values, 1e9) @ values[:, :, None]
    in_order = values.sort(dim=1).values
    torch.testing.assert_close(sharp[..., 0], in_order, rtol=0, atol=1e-6)
    if n > 1:
        values.requires_grad_()
        assert torch.autograd.gradcheck(lambda v: soft_sort(v, 2.0), values)


def test_order_with_a_gap_has_no_loss_and_the_inverse_a_large_one():
    low = torch.linspace(-1, -0.5, 10, dtype=torch.float64)[None]
    high = torch.linspace(0.5, 1, 2, dtype=torch.float64)[None]
    right = [float(group_order(high, low, steepness=s)) for s in (1, 10, 100, 1e4)]
    assert right == sorted(right, reverse=True) and right[-1] < 1e-3
    assert float(group_order(low, high, steepness=100.0)) > 1.0
    x = high.clone().requires_grad_()
    group_order(x, low).sum().backward()
    assert (x.grad < 0).all()


def test_mistakes(call):
    with pytest.raises(EEGTensorError, match="drop=1"):
        DecoupledContrastive(drop=1.0)
    with pytest.raises(EEGTensorError, match="n_negatives=0"):
        GroupOrder(n_negatives=0)
    with pytest.raises(EEGTensorError, match="temperature=0"):
        DecoupledContrastive(temperature=0)


def test_group_order_compares_within_people_with_others_held_fixed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(7, 4, generator=g, dtype=torch.float64)
    batch = Batch(x, None, torch.tensor([0, 0, 0, 1, 1, 1, 2]))

    def context():
        generator = torch.Generator().manual_seed(2)
        return StepContext(
            Network(net, keeps_features=True), None, batch, generator=generator
        )

    got = GroupOrder(n_negatives=2)(net, batch, None, context())
    first, second = (F.normalize(z) for z in Views()(batch, context()))
    wanted = torch.zeros(7, dtype=torch.float64)
    for a, b in ((first, second.detach()), (second, first.detach())):
        for i in range(7):
            others = [j for j in range(7) if j != i]
            same = [bool(batch.domain[i] == batch.domain[j]) for j in others]
            cosines = torch.stack([a[i] @ a[j].detach() for j in others])
            cosines = cosines.where(torch.tensor(same), -1.0)
            negative = cosines.sort().values[None, -2:]
            loss = group_order((a[i] @ b[i]).reshape(1, 1), negative)
            wanted = wanted + loss * torch.eye(7, dtype=torch.float64)[i] / 2
    torch.testing.assert_close(got, wanted)
    weights = list(net.parameters())[:2]
    for one, two in zip(
        torch.autograd.grad(got.sum(), weights),
        torch.autograd.grad(wanted.sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def test_features_of_the_steps_own_pass_are_kept():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    batch = Batch(torch.randn(6, 4))
    network = Network(net, keeps_features=True)
    context = StepContext(network, None, batch, generator=torch.Generator())
    network(batch)
    own = context.features
    first, second = Views()(batch, context)
    assert context.features is own
    assert not torch.equal(first, second) and not torch.equal(first, own)


def test_both_views_start_from_the_same_statistics(toy, trials):
    net, data = toy(dropout=0.0), trials(24)
    network = Network(net, keeps_features=True)
    context = StepContext(network, None, data, generator=torch.Generator())
    first, second = Views(noise=0.0, drop=0.0, amplitude=0.0)(data, context)
    assert torch.equal(first, second)
