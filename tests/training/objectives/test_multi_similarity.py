"""Multi-similarity and UNPG against their definitions, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.nn import EquiangularHead, GrassmannHead
from eegtensor.training import Batch, ShuffleSampler, train
from eegtensor.training.objectives import UNPG, CrossEntropy, MultiSimilarity


def drawn(n=24, d=6, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % k
    h = torch.randn(n, d, generator=g, dtype=torch.float64)
    h[torch.arange(n), y] += 1.0
    return h, y


def by_hand(h, y, alpha=2.0, beta=40.0, base=0.5, epsilon=0.1):
    f = h / h.norm(dim=1, keepdim=True)
    losses = []
    for i in range(len(y)):
        S = f @ f[i]
        others = [j for j in range(len(y)) if j != i and y[i] >= 0 and y[j] >= 0]
        pos = [S[j] for j in others if y[j] == y[i] and S[j] < 1 - 1e-5]
        neg = [S[j] for j in others if y[j] != y[i]]
        total = torch.zeros((), dtype=h.dtype)
        if pos and neg:
            kept_neg = [s for s in neg if s > min(pos) - epsilon]
            kept_pos = [s for s in pos if s < max(neg) + epsilon]
            if kept_neg and kept_pos:
                pull = sum(torch.exp(-alpha * (s - base)) for s in kept_pos)
                push = sum(torch.exp(beta * (s - base)) for s in kept_neg)
                total = (1 + pull).log() / alpha + (1 + push).log() / beta
        losses.append(total)
    return torch.stack(losses)


@pytest.mark.parametrize("options", [(2.0, 40.0, 0.5, 0.1), (3.0, 2.0, 0.1, 0.3)])
def test_multi_similarity_is_its_definition(call, options):
    h, y = drawn()
    y[3] = -1
    h.requires_grad_()
    got = call(MultiSimilarity(*options), torch.zeros(24, 4), y, features=h)
    wanted = by_hand(h, y, *options)
    assert (wanted > 0).sum() > 10
    torch.testing.assert_close(got, wanted)
    for a, b in zip(
        torch.autograd.grad(got.sum(), h),
        torch.autograd.grad(wanted.sum(), h),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_anchors_without_pairs_have_no_loss(call):
    h, _ = drawn(5)
    h.requires_grad_()
    # One class; a class of one; and trials that are copies.
    for y in ([0] * 5, [0, 1, 2, 3, 4], [-1] * 5):
        loss = call(MultiSimilarity(), h, torch.tensor(y), features=h)
        loss.sum().backward()
        assert not loss.any() and torch.isfinite(h.grad).all()


def test_gradient_pulls_a_class_together_and_others_apart(call):
    h = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.9, -0.4]], requires_grad=True)
    y = torch.tensor([0, 0, 1])
    call(MultiSimilarity(), h, y, features=h).sum().backward()
    step = (h - 1e-3 * h.grad).detach()
    cos = lambda a, b: float(F.cosine_similarity(a, b, dim=0))  # noqa: E731
    assert cos(step[0], step[1]) > cos(h[0], h[1])
    assert cos(step[0], step[2]) < cos(h[0], h[2])


class Net(nn.Module):
    def __init__(self, head=None, d=6, k=4):
        super().__init__()
        g = torch.Generator().manual_seed(1)
        self.head = nn.Linear(d, k, dtype=torch.float64) if head is None else head
        if head is None:
            self.head.weight.data = torch.randn(k, d, generator=g).double()

    def forward(self, x):
        return self.head(x)


def unpg_by_hand(h, W, y, m=0.35, s=30.0, whisker=1.5):
    f, w = F.normalize(h), F.normalize(W)
    pairs = [
        f[i] @ f[j]
        for i in range(len(y))
        for j in range(i + 1, len(y))
        if y[i] != y[j] and min(y[i], y[j]) >= 0
    ]
    ordered = sorted(float(p) for p in pairs)
    n = len(ordered)
    low, high = ordered[int(0.25 * n)], ordered[int(0.75 * n)]
    gap = whisker * (high - low)
    kept = [p for p in pairs if low - gap <= p <= high + gap]
    losses = []
    for i in range(len(y)):
        cos = [f[i] @ w[c] - m * (c == y[i]) for c in range(len(W))]
        everything = torch.stack([s * c for c in cos] + [s * p for p in kept])
        losses.append(everything.logsumexp(0) - s * cos[y[i]])
    return torch.stack(losses), len(pairs) - len(kept)


def test_unpg_is_its_definition(call):
    net, (h, y) = Net(), drawn()
    h[0] *= 100.0
    h.requires_grad_()
    got = call(UNPG(whisker=0.4), net(h), y, model=net, features=h)
    wanted, n_out = unpg_by_hand(h, net.head.weight, y, whisker=0.4)
    assert n_out > 3
    torch.testing.assert_close(got, wanted)
    got.sum().backward()
    assert torch.isfinite(h.grad).all() and net.head.weight.grad is not None


def test_without_pairs_it_is_cosface(call):
    net, (h, _) = Net(), drawn()
    y = torch.full((24,), 2)
    cos = F.normalize(h) @ F.normalize(net.head.weight).mT
    cos = cos - 0.35 * F.one_hot(y, 4)
    wanted = F.cross_entropy(30 * cos, y, reduction="none")
    got = call(UNPG(), net(h), y, model=net, features=h)
    torch.testing.assert_close(got, wanted)
    y = torch.arange(24) % 4
    cos = F.normalize(h) @ F.normalize(net.head.weight).mT - 0.35 * F.one_hot(y, 4)
    wanted = F.cross_entropy(30 * cos, y, reduction="none")
    got = call(UNPG(whisker=-1), net(h), y, model=net, features=h)
    torch.testing.assert_close(got, wanted)


def test_further_negatives_never_lower_the_loss(call):
    net, (h, y) = Net(), drawn()
    plain = call(UNPG(whisker=-1), net(h), y, model=net, features=h)
    for whisker in (0.0, 0.5, 1.5, 10.0):
        more = call(UNPG(whisker=whisker), net(h), y, model=net, features=h)
        assert (more >= plain).all() and more.sum() > plain.sum()


def test_unlabelled_trials_and_fixed_heads(call):
    head = EquiangularHead(6, 4, dtype=torch.float64)
    net, (h, y) = Net(head), drawn()
    y[:5] = -1
    loss = call(UNPG(), net(h), y, model=net, features=h)
    assert not loss[:5].any()
    part = call(UNPG(), net(h[5:]), y[5:], model=net, features=h[5:])
    torch.testing.assert_close(loss[5:], part)
    with pytest.raises(EEGTensorError, match="no vector of each class"):
        grassmann = Net(GrassmannHead(6, 4, dtype=torch.float64))
        call(UNPG(), net(h), y, model=grassmann, features=h)


def equal_error_rate(f, y):
    S = F.normalize(f) @ F.normalize(f).mT
    i, j = torch.triu_indices(len(y), len(y), 1)
    same = y[i] == y[j]
    thresholds = S[i, j].quantile(torch.linspace(0, 1, 400, dtype=S.dtype))
    miss = (S[i, j][same][:, None] < thresholds).double().mean(dim=0)
    false = (S[i, j][~same][:, None] >= thresholds).double().mean(dim=0)
    return float(((miss + false) / 2)[(miss - false).abs().argmin()])


def verified(objective, seed):
    """People told apart: trained on ten, verified on ten others."""
    g = torch.Generator().manual_seed(seed)
    people = torch.randn(20, 16, generator=g)
    mix = torch.randn(16, 40, generator=g) / 4
    y = torch.arange(600) % 20
    x = (people[y] + 0.9 * torch.randn(600, 16, generator=g)) @ mix
    x = x + 0.5 * torch.randn(600, 40, generator=g)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 12))
    model = nn.Sequential(net, nn.Linear(12, 10, bias=False))
    known = y < 10
    train(
        model,
        Batch(x[known], y[known]),
        objective=objective,
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
        sampler=ShuffleSampler(int(known.sum()), batch_size=100),
        epochs=30,
    )
    with torch.no_grad():
        return equal_error_rate(net(x[~known]).double(), y[~known])


@pytest.mark.slow
def test_verification_of_new_people():
    rates = {
        name: sum(verified(objective, seed) for seed in range(3)) / 3
        for name, objective in {
            "cross entropy": CrossEntropy(),
            "cosface": UNPG(whisker=-1),
            "unpg": UNPG(),
            "multi-similarity": MultiSimilarity(),
        }.items()
    }
    assert rates["unpg"] < rates["cosface"] + 0.005, rates
    assert rates["multi-similarity"] < rates["cross entropy"] + 0.01, rates


def test_mistakes():
    with pytest.raises(EEGTensorError, match="scale=0"):
        UNPG(scale=0)
    with pytest.raises(EEGTensorError, match="alpha=nan"):
        MultiSimilarity(alpha=math.nan)


def test_copies_of_a_trial_are_no_positives(call):
    h = torch.tensor([[1.0, 0, 0], [2, 0, 0], [1, 0.2, 0], [0, 1, 1]]).double()
    y = torch.tensor([0, 0, 1, 1])
    got = call(MultiSimilarity(), torch.zeros(4, 2), y, features=h)
    torch.testing.assert_close(got, by_hand(h, y))
    # Nothing else is of their class, though a negative is all but as near.
    assert not got[:2].any()
