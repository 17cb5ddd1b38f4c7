"""The monitor of catastrophic overfitting: what it measures, and when it stops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Setup,
    ShuffleSampler,
    build,
    make_optimizer,
    train,
)
from eegtensor.training.monitors import SelfFitting, self_fitting
from eegtensor.training.perturbations import PGD, Fast
from eegtensor.training.perturbations._adversary import Budget

MODULE = "eegtensor.training.monitors.selffitting"
COLUMNS = ("fgsm_accuracy", "pgd_accuracy", "self_information", "channel_share")


class Border(nn.Module):
    """Class 1 where the first number is positive; a buffer and a weight to restore."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2).double()
        self.register_buffer("seen", torch.zeros(1))
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(x)


class Wave(Border):
    """A margin that is back where it was after 1.2, and crosses zero on the way."""

    def forward(self, x):
        z = x[:, :1]
        margin = z.sign() * (2 * torch.pi * (z.abs() - 3) / 1.2 + 0.3).cos()
        return self.head(torch.cat([margin, x[:, 1:]], 1))


def probe(n=40):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    x = torch.randn(n, 2, generator=g, dtype=torch.float64)
    x[:, 0] = 2.0 * y - 1
    return Batch(x, y)


def budgets(eps):
    return (
        Budget.checked(eps, 1, eps, "linf", False),
        Budget.checked(eps, 10, None, "linf", False),
    )


@pytest.mark.parametrize(("eps", "accuracy"), [(0.2, 1.0), (1.5, 0.0)])
def test_of_an_honest_network_both_attacks_say_the_same(eps, accuracy):
    found = self_fitting(Border(), probe(), *budgets(eps))
    assert tuple(sorted(found)) == tuple(sorted(COLUMNS))
    assert found["fgsm_accuracy"] == found["pgd_accuracy"] == accuracy
    # Of a linear margin the displacement points away from its class.
    assert found["self_information"] == 0.0


def test_what_one_step_jumps_over_many_steps_find():
    data = probe()
    data.x[:, 0] *= 3.0
    # The deviation of the first channel is 3: one step of 0.4 of it is a whole wave.
    found = self_fitting(Wave(), data, *budgets(0.4))
    assert found["fgsm_accuracy"] == 1.0 and found["pgd_accuracy"] == 0.0


def test_shares_by_hand():
    """Features (3, 1, 0, ...) before the head: the strongest tenth has 3/4 of all."""

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(10, 2).double()

        def forward(self, x):
            h = torch.zeros(len(x), 10, dtype=torch.float64)
            h[:, 0], h[:, 1] = 3 * x[:, 0].detach().sign(), 1.0
            return self.head(h + 0 * x.sum(1, keepdim=True))

    found = self_fitting(Fixed(), probe(), *budgets(0.1))
    assert found["channel_share"] == pytest.approx(0.75)


def test_modes_statistics_and_gradients_are_left_alone(toy, trials, equal):
    net, data = toy(), trials(40)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    self_fitting(net, data, *budgets(0.2))
    assert equal(before, dict(net.state_dict()))
    assert net.training and all(p.grad is None for p in net.parameters())


class Idle:
    """Nothing is learned; each epoch leaves its number in the network."""

    per_trial = True

    def __call__(self, model, batch, outputs, context):
        return outputs.sum(1) * 0.0

    def on_epoch_start(self, state):
        state.model.seen.fill_(state.epoch)


def run(net, monitor, epochs):
    return train(
        net,
        probe(),
        objective=Idle(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        sampler=ShuffleSampler(40, batch_size=20),
        epochs=epochs,
        callbacks=[monitor],
    )


@pytest.fixture
def said(monkeypatch):
    """Let the monitor measure what a test says, (one step, many steps) an epoch."""

    def say(values):
        calls = iter(values)

        def fake(model, *rest):
            one, many = next(calls)
            measured = {"fgsm_accuracy": one, "pgd_accuracy": many}
            return dict.fromkeys(COLUMNS, 0.0) | measured

        monkeypatch.setattr(f"{MODULE}.self_fitting", fake)

    return say


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([(0.6, 0.5), (0.65, 0.6), (0.95, 0.6)], 2),
        ([(0.6, 0.5), (0.5, 0.5), (0.3, 0.24)], 1),
        ([(0.6, 0.5), (0.8, 0.51), (0.51, 0.26), (0.9, 0.59)], 2),
    ],
    ids=["apart", "fallen", "later"],
)
def test_a_collapse_stops_the_run_at_its_best_epoch(said, values, best):
    net, monitor = Border(), SelfFitting(probe())
    said(values)
    history = run(net, monitor, epochs=len(values) + 3)
    assert monitor.collapsed_ == len(history) == len(values)
    assert float(net.seen) == best
    assert [row["pgd_accuracy"] for row in history] == [v[1] for v in values]


def test_watching_alone_lets_the_run_go_on(said):
    net, monitor = Border(), SelfFitting(probe(), stop=False)
    said([(0.9, 0.1)] * 6)
    assert len(run(net, monitor, epochs=6)) == 6
    assert monitor.collapsed_ == 1 and float(net.seen) == 6


def test_a_run_without_collapse_keeps_its_last_weights(said):
    net, monitor = Border(), SelfFitting(probe())
    said([(0.6, 0.6), (0.6, 0.5), (0.6, 0.5)])
    assert len(run(net, monitor, epochs=3)) == 3
    assert monitor.collapsed_ == 0 and float(net.seen) == 3


def test_fast_brings_it_by_name(toy, trials):
    net, data = toy(), trials(300)
    setup = Setup(net, data)
    method = build("fast(eps=0.2, watch=True)", "perturbation", setup)
    assert len(method.monitor.probe) == 200 and method.monitor.many.eps == 0.2
    assert build("fast", "perturbation", setup).monitor is None
    history = train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-adam", lr=1e-3),
        sampler=ShuffleSampler(300, batch_size=50),
        epochs=2,
        perturbation=method,
    )
    assert set(COLUMNS) <= set(history.names)
    again = build("fast(watch=True)", "perturbation", setup)
    again.load_state_dict(method.state_dict())
    assert again.monitor._best == method.monitor._best


def overfitting(perturbation, eps, strength, lr, epochs):
    """A wide network on 200 trials whose classes differ by a pattern."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (200,), generator=g)
    pattern = torch.sign(torch.randn(4, 24, generator=g))
    x = torch.randn(200, 4, 24, generator=g)
    x += strength * (2.0 * y - 1)[:, None, None] * pattern
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(96, 128), nn.ReLU(),
            nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2),
        )  # fmt: skip
    monitor = SelfFitting(Batch(x, y), eps=eps, stop=False)
    history = train(
        net,
        Batch(x, y),
        objective=CrossEntropy(),
        optimizer=torch.optim.Adam(net.parameters(), lr=lr),
        sampler=ShuffleSampler(200, batch_size=50),
        epochs=epochs,
        perturbation=perturbation,
        callbacks=[monitor],
        random_state=0,
    )
    return monitor, history


@pytest.mark.slow
def test_it_fires_on_single_steps_and_is_silent_on_many():
    one = Fast(0.5, step_size=0.5, start=False)
    monitor, _ = overfitting(one, 0.5, 0.4, 2e-3, epochs=25)
    assert monitor.collapsed_ > 0
    monitor, _ = overfitting(PGD(0.5, n_steps=7), 0.5, 0.4, 2e-3, epochs=25)
    assert monitor.collapsed_ == 0


@pytest.mark.slow
def test_a_collapsed_network_reads_the_class_in_its_own_attack():
    # .98 under one step, .14 under ten, .81 on displacements without trials.
    one = Fast(0.8, step_size=0.8, start=False)
    monitor, history = overfitting(one, 0.8, 0.6, 5e-3, epochs=20)
    assert monitor.collapsed_ > 0
    last = history[-1]
    assert last["fgsm_accuracy"] > 0.9 and last["pgd_accuracy"] < 0.4
    assert last["self_information"] > 0.6
    assert history[0]["self_information"] < 0.6


def test_mistakes():
    for options in ({"eps": 0.0}, {"gap": 0.0}, {"drop": -1.0}, {"stop": "no"}):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            SelfFitting(probe(), **options)
    with pytest.raises(EEGTensorError, match="without labels"):
        SelfFitting(Batch(torch.zeros(3, 2)))
