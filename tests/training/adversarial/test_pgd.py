"""PGD, FGSM from a random start and Amata, against loops written from the equations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch
from eegtensor.training.perturbations import PGD, Amata, Fast
from eegtensor.training.perturbations.amata import annealed


class Sizes:
    """What is left of trials when a step is made, and how often the network passed."""

    def __init__(self, model):
        self.count = 0
        model.register_forward_pre_hook(self)

    def __call__(self, module, args):
        self.count += 1


def by_hand(model, batch, eps, step, n_steps, d, norm="linf"):
    """Madry's ascent of the mean loss, in units of each channel's deviation."""
    s = batch.x.std(dim=(0, 2), correction=0)[:, None]
    for _ in range(n_steps):
        d = d.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(batch.x + s * d), batch.y)
        loss.backward()
        with torch.no_grad():
            if norm == "linf":
                d = (d + step * d.grad.sign()).clamp(-eps, eps)
            else:
                way = d.grad / d.grad.flatten(1).norm(dim=1)[:, None, None]
                d = d + step * way
                length = d.flatten(1).norm(dim=1)[:, None, None]
                d = d * (eps / length).clamp_max(1)
    return batch.x + s * d


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_trials_are_those_of_the_equations(small, drawn, context, norm):
    net, batch = small(), drawn()
    method = PGD(eps=0.3, n_steps=7, norm=norm, start=False)
    found = method.sample(context(net, batch)).apply()
    wanted = by_hand(net, batch, 0.3, 2.5 * 0.3 / 7, 7, torch.zeros_like(batch.x), norm)
    torch.testing.assert_close(found.x, wanted, rtol=0, atol=1e-12)
    assert not torch.equal(found.x, batch.x)
    # The step's own parts of the batch travel on.
    assert torch.equal(found.y, batch.y)


def test_published_numbers_of_steps(small, drawn, context):
    # 8, 2 and 10 of 255: steps of a quarter of eps.
    assert PGD(eps=8.0, n_steps=10).budget.step_size == 2.0
    assert Fast(eps=8.0).budget.step_size == 10.0
    assert Fast().extra_gradients == 1 and PGD().extra_gradients == 10


def test_on_a_linear_network_one_step_is_the_worst_there_is(context):
    """Of a linear margin the maximum over the ball is eps ||w s||_1, by Hoelder."""
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    x = torch.randn(9, 3, 4, generator=g, dtype=torch.float64)
    batch = Batch(x, torch.arange(9) % 2)
    found = Fast(eps=0.2, step_size=0.4, start=False).sample(context(net, batch))
    w = (net[1].weight[0] - net[1].weight[1]).detach().view(3, 4)
    s = x.std(dim=(0, 2), correction=0)[:, None]
    margin = net(x)[:, 0] - net(x)[:, 1]
    there = net(found.apply().x)
    moved = (there[:, 0] - there[:, 1]) - margin
    sign = torch.where(batch.y == 0, -1.0, 1.0).double()
    torch.testing.assert_close(
        moved.detach(), sign * 0.2 * (w * s).abs().sum(), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budgets_hold_in_standard_deviations_of_channels(small, drawn, context, norm):
    net, batch = small(), drawn(40)
    found = PGD(eps=0.25, n_steps=3, norm=norm).sample(context(net, batch)).apply()
    d = (found.x - batch.x) / batch.x.std(dim=(0, 2), correction=0)[:, None]
    size = d.flatten(1).abs().amax(1) if norm == "linf" else d.flatten(1).norm(dim=1)
    assert (size <= 0.25 + 1e-12).all() and (size > 0.2).any()


@pytest.mark.parametrize("name", ["pgd", "fast", "amata", "kl"])
def test_volts_and_microvolts_are_the_same(drawn, context, name):
    class OfRatios(nn.Module):
        """Knows no unit: channels over their own deviation in the trial."""

        def __init__(self):
            super().__init__()
            g = torch.Generator().manual_seed(0)
            self.w = nn.Parameter(torch.randn(18, 3, generator=g).double())

        def forward(self, x):
            return (x / x.square().mean((1, 2), keepdim=True).sqrt()).flatten(
                1
            ) @ self.w

    batch = drawn()
    method = {"pgd": PGD(), "fast": Fast(), "amata": Amata(), "kl": PGD(loss="kl")}[
        name
    ]
    found = []
    for unit in (1.0, 1e-6):
        scaled = replace(batch, x=batch.x * unit)
        found.append(method.sample(context(OfRatios(), scaled)).apply().x / unit)
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


def test_trials_without_label_are_left_at_the_random_start(small, drawn, context):
    net, batch = small(), drawn()
    batch = replace(batch, y=batch.y.clone().fill_(-1))
    found = PGD(start=False).sample(context(net, batch)).apply()
    assert torch.equal(found.x, batch.x)
    # The divergence needs no label.
    found = PGD(loss="kl").sample(context(net, batch)).apply()
    before = net(batch.x).softmax(1)
    change = nn.functional.kl_div(net(found.x).log_softmax(1), before, reduction="none")
    start = PGD(loss="kl", n_steps=1, step_size=1e-9)
    near = start.sample(context(net, batch)).apply()
    less = nn.functional.kl_div(net(near.x).log_softmax(1), before, reduction="none")
    assert (change.sum(1) > less.sum(1)).all()


def test_gradients_and_modes_are_left_alone(small, drawn, context):
    net, batch = small(), drawn()
    net.train()
    net.head.weight.grad = torch.ones_like(net.head.weight)
    PGD().sample(context(net, batch))
    assert net.training and bool((net.head.weight.grad == 1).all())
    assert net.front.weight.grad is None


def test_the_attack_is_in_evaluation_statistics_that_saw_the_batch(context):
    """A batch norm that nothing has set yet would see volts as zeros."""
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(12, 2)).double()
    x = 1e-5 * torch.randn(20, 3, 4, generator=g, dtype=torch.float64) + 3e-5
    batch = Batch(x, torch.arange(20) % 2)
    seen = []
    net[1].register_forward_pre_hook(
        lambda m, args: seen.append((net[0].training, args[0].detach()))
    )
    state = {k: v.clone() for k, v in net.state_dict().items()}
    PGD(n_steps=2).sample(context(net, batch))
    assert [training for training, _ in seen] == [True, False, False]
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert net.training


@pytest.mark.parametrize(
    ("first", "last", "epochs"), [(2, 10, 9), (1, 7, 30), (3, 3, 4)]
)
def test_amata_makes_exactly_the_steps_of_its_schedule(
    small, drawn, context, first, last, epochs
):
    net, batch = small(), drawn()
    passes, total = Sizes(net), 0
    method = Amata(k_min=first, k_max=last)
    for epoch in range(1, epochs + 1):
        k = round(first + (last - first) * (epoch - 1) / (epochs - 1))
        total += k
        budget = method.budget_of(context(net, batch, epoch=epoch, n_epochs=epochs))
        assert (budget.n_steps, budget.step_size) == (k, pytest.approx(0.25 / k))
        method.sample(context(net, batch, epoch=epoch, n_epochs=epochs))
    assert passes.count == total
    if (first, last) == (2, 10):
        # Specification: at most 60 % of the attack's passes.
        assert total == 0.6 * last * epochs


def test_the_last_epoch_of_amata_is_pgd_with_all_steps(small, drawn, context):
    net, batch = small(), drawn()
    one = Amata().sample(context(net, batch, epoch=6, n_epochs=6)).apply()
    two = PGD(n_steps=10).sample(context(net, batch, epoch=6, n_epochs=6)).apply()
    assert torch.equal(one.x, two.x)
    first = Amata().sample(context(net, batch, epoch=1, n_epochs=6)).apply()
    assert not torch.equal(first.x, two.x)
    assert annealed(2, 10, 1, 1) == 10


def test_training_on_attacked_trials_makes_robust(toy_trained, robust):
    eps = 0.3
    plain = toy_trained(0)
    against = toy_trained(0, perturbation=f"pgd(eps={eps})")
    (clean, attacked), (kept, better) = (
        robust(n, t, eps) for n, _, t in (plain, against)
    )
    # .90 and .43 become .84 and .64 (one person).
    assert better > attacked + 0.1
    assert kept > clean - 0.1


@pytest.mark.slow
def test_amata_is_as_robust_as_all_steps_all_along(toy_trained, robust):
    eps, scores = 0.3, {"pgd(eps=0.3)": [], "amata(eps=0.3)": []}
    for name, found in scores.items():
        for seed in range(4):
            net, _, test = toy_trained(seed, perturbation=name)
            found.append(robust(net, test, eps)[1])
    constant, annealing = (sum(s) / len(s) for s in scores.values())
    assert annealing > constant - 0.01


def test_mistakes(small, drawn, context):
    for make, options in [
        (PGD, {"eps": 0.0}),
        (PGD, {"eps": float("nan")}),
        (PGD, {"n_steps": 0}),
        (PGD, {"step_size": -1.0}),
        (PGD, {"norm": "l1"}),
        (PGD, {"start": "no"}),
        (PGD, {"loss": "margin"}),
        (Fast, {"watch": 1.5}),
        (Amata, {"k_min": 4, "k_max": 3}),
        (Amata, {"tau": 0.0}),
    ]:
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            make(**options)
    pair = Batch((torch.zeros(3, 2), torch.zeros(3, 2)), torch.zeros(3).long())
    with pytest.raises(EEGTensorError, match="one array"):
        PGD().sample(context(small(), pair))
    with pytest.raises(EEGTensorError, match="without labels"):
        PGD().sample(context(small(), replace(drawn(), y=None)))
