"""LDR and ALDR against their definitions, written as sums."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, ShuffleSampler, build, train
from eegtensor.training.objectives import ALDR, LDR


def logits(n=50, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, k, generator=g, dtype=torch.float64)
    return z, torch.randint(k, (n,), generator=g)


def by_hand(f, y, margin, lam):
    rows = []
    for i in range(len(f)):
        u = [margin * (k != y[i]) + f[i, k] - f[i, y[i]] for k in range(f.shape[1])]
        mean = sum(math.exp(v / lam[i]) for v in u) / len(u)
        rows.append(lam[i] * math.log(mean))
    return torch.tensor(rows, dtype=torch.float64)


def test_ldr_is_its_definition(call):
    z, y = logits()
    f = F.softplus(z)
    f = f / f.mean(dim=1, keepdim=True)
    got = call(LDR(margin=0.7, lam=0.3), z, y)
    torch.testing.assert_close(got, by_hand(f, y, 0.7, [0.3] * 50))


def test_without_margin_it_is_cross_entropy_less_a_constant(call):
    z, y = logits()
    got = call(LDR(margin=0.0, lam=1.0, normalise=False), z, y)
    wanted = F.cross_entropy(z, y, reduction="none") - math.log(4)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_ends_of_the_temperature(call):
    z, y = logits()
    u = 1.0 - F.one_hot(y, 4) + z - z.gather(1, y[:, None])
    largest = call(LDR(lam=1e-5, normalise=False), z, y)
    torch.testing.assert_close(largest, u.amax(dim=1), rtol=0, atol=1e-4)
    mean = call(LDR(lam=1e5, normalise=False), z, y)
    torch.testing.assert_close(mean, u.mean(dim=1), rtol=0, atol=1e-3)


def test_aldr_is_its_definition_over_two_passes(call):
    margin, ref, alpha = 0.5, 3.0, 2.0
    z, y = logits()
    index = torch.randperm(80, generator=torch.Generator().manual_seed(1))[:50]
    objective = ALDR(margin, ref, alpha, n_trials=80)
    lam = torch.full((50,), ref, dtype=torch.float64)
    f = z / (z.abs().sum(dim=1, keepdim=True) / 4)
    for step in (1, 2):
        got = call(objective, z, y, index=index, step=step)
        p = (f / lam[:, None]).softmax(dim=1) + 1e-5
        p = p / p.sum(dim=1, keepdim=True)
        kl = (p * (4 * p).log()).sum(dim=1)
        lam = ref * (1 - kl / (alpha * math.log(4)))
        away = alpha * math.log(4) / (2 * ref) * (lam - ref) ** 2
        wanted = by_hand(f, y, margin, lam.tolist()) - away
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
        # What is remembered has the precision of float32.
        lam = lam.float().double()
    torch.testing.assert_close(objective.temperatures[index].double(), lam)
    untouched = torch.ones(80, dtype=torch.bool)
    untouched[index] = False
    assert (objective.temperatures[untouched] == ref).all()


def test_equal_logits_leave_the_temperature(call):
    objective = ALDR(lam=2.0, n_trials=5)
    z = torch.full((5, 3), 0.7)
    call(objective, z, torch.zeros(5, dtype=torch.int64), index=torch.arange(5))
    torch.testing.assert_close(objective.temperatures, torch.full((5,), 2.0))


def test_evaluation_remembers_nothing(call):
    z, y = logits(10)
    objective = ALDR(n_trials=10)
    with torch.no_grad():
        call(objective, z, y, index=torch.arange(10))
    assert (objective.temperatures == 10.0).all()


def test_logits_of_zero_have_a_gradient(call):
    z = torch.zeros(3, 4, requires_grad=True)
    y = torch.tensor([0, 1, -1])
    for objective in (LDR(), ALDR(n_trials=3)):
        loss = call(objective, z, y, index=torch.arange(3))
        loss.sum().backward()
        # Squares of it, which Adam keeps, must not overflow either.
        assert z.grad.abs().max() < 1e8 and not z.grad[2].any() and loss[2] == 0
        z.grad = None


def test_temperatures_rank_flipped_labels_high():
    def ranked(seed):
        g = torch.Generator().manual_seed(seed)
        y = torch.arange(300) % 3
        x = torch.randn(300, 20, generator=g)
        x[torch.arange(300), y] += 3.0
        flipped = torch.rand(300, generator=g) < 0.3
        other = (y + torch.randint(1, 3, (300,), generator=g)) % 3
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
        )
        data = Batch(x, torch.where(flipped, other, y))
        setup = Setup(net, data, n_classes=3)
        _, objective = build("aldr(lam=1.0)", "objective", setup)
        train(
            net,
            data,
            objective=objective,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            sampler=ShuffleSampler(300),
            epochs=30,
        )
        t = objective.temperatures
        return float((t[flipped][:, None] > t[~flipped][None, :]).float().mean())

    areas = [ranked(seed) for seed in range(3)]
    assert sum(areas) / 3 > 0.7, areas


def test_state_goes_into_checkpoints(call):
    z, y = logits(10)
    first, second = ALDR(n_trials=10), ALDR(n_trials=10)
    call(first, z, y, index=torch.arange(10))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.temperatures, second.temperatures)
    call(first, -z, y, index=torch.arange(10), step=2)
    assert not torch.equal(first.temperatures, second.temperatures)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="alpha=1"):
        ALDR(alpha=1.0, n_trials=3)
    with pytest.raises(EEGTensorError, match="n_trials"):
        ALDR()
    with pytest.raises(EEGTensorError, match="lam=0"):
        LDR(lam=0)


def test_trials_without_a_label_keep_their_temperature(call):
    z, y = logits(6)
    y = y.clone()
    y[2] = -1
    objective = ALDR(lam=1.0, n_trials=6)
    call(objective, z, y, index=torch.arange(6))
    assert objective.temperatures[2] == 1.0 and (objective.temperatures < 1).sum() == 5


def test_temperatures_stay_above_zero_and_no_higher_than_they_must(call):
    """Near alpha = 1 a sure trial's temperature is almost zero."""
    z = torch.tensor([[50.0, -50.0, -50.0]])
    objective = ALDR(lam=0.1, alpha=1.0001, n_trials=1)
    call(objective, z, torch.tensor([0]), index=torch.arange(1))
    assert 0 < objective.temperatures[0] < 0.001
