"""Dual-head distillation against its formula, and what its second head is for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor.training import Batch, CrossEntropy, Setup, build, make_plugs, train
from eegtensor.training.network import Network
from eegtensor.training.objectives import DualHeadKD, WeightedSum, binary_kl
from eegtensor.training.protocols import StepContext
from eegtensor.training.space import ParamSpace
from eegtensor.training.statistics import StatisticsGuard


def context_of(net, data, objective):
    network = Network(net, keeps_features=True)
    context = StepContext(network, objective, data)
    # Three gradients are compared: statistics must not move between them.
    with StatisticsGuard(net, "transient"):
        context.outputs = network(data)
    return context


def test_loss_is_the_divergence_of_halves_from_sigmoids():
    g = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 30, 4, generator=g, dtype=torch.float64)
    for T in (0.5, 2.0, 4.0):
        u = torch.sigmoid((s - t) / T)
        kl = 0.5 * torch.log(0.5 / u) + 0.5 * torch.log(0.5 / (1 - u))
        torch.testing.assert_close(
            binary_kl(s, t, T), T**2 * kl.sum(1), atol=1e-12, rtol=1e-12
        )
    huge = binary_kl(torch.tensor([[1e6, 0.0]]), torch.zeros(1, 2), 2.0)
    assert torch.isfinite(huge).all()
    s.requires_grad_()
    binary_kl(s, t, 2.0).sum().backward()
    torch.testing.assert_close(s.grad, 2.0 * (torch.sigmoid((s - t) / 2) - 0.5))


def test_weight_zero_is_cross_entropy_and_the_head_stays_outside(toy, trials):
    data = trials(80)
    table = torch.randn(80, 2)
    states = []
    for objective in (
        CrossEntropy(),
        [CrossEntropy(), (0.0, DualHeadKD(table, 3, 2))],
    ):
        net = toy()
        plugs = make_plugs(Setup(net, data, batch_size=20))
        plugs["objective"] = objective
        train(net, data, epochs=2, **plugs)
        states.append(net.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0)


def test_alignment_takes_the_opposing_part_out_and_no_other(toy, trials):
    data = trials(60, dtype=torch.float64)
    net = toy(dropout=0.0, dtype=torch.float64)
    table = 6.0 * (0.5 - nn.functional.one_hot(data.y, 2).double())
    data = data.pick(torch.arange(60))
    seen = set()
    for sign in (1.0, -1.0):
        plain = DualHeadKD(sign * table, 3, 2).double()
        with torch.no_grad():
            # A head that agrees with the network's: gradients then oppose or agree.
            plain.head[0].load_state_dict(net.head.state_dict())
        shared = [p for n, p in net.named_parameters() if not n.startswith("head")]

        def gradients(objective, shared=shared):
            context = context_of(net, data, objective)
            loss = objective(net, data, context.outputs, context).mean()
            return torch.autograd.grad(
                loss, [*shared, *net.head.parameters()], allow_unused=True
            )

        kd = gradients(plain)
        task = gradients(CrossEntropy())
        plain.align = True
        got = gradients(plain)
        # The referee: projection in the metric, leaf by leaf.
        space = ParamSpace(net)
        names = [n for n in space.leaves if not n.startswith("head")]
        zero = {n: torch.zeros_like(p) for n, p in space.points().items()}
        a, b = ({**zero, **dict(zip(names, x, strict=False))} for x in (kd, task))
        ra, rb = space.rgrad(a), space.rgrad(b)
        dot = space.inner(ra, rb)
        seen.add(bool(dot < 0))
        c = min(float(dot / space.inner(rb, rb)), 0.0)
        for g, x, y in zip(got[: len(shared)], kd, task, strict=False):
            torch.testing.assert_close(g, x - c * y, atol=1e-10, rtol=1e-8)
        assert all(g is None or not g.any() for g in got[len(shared) :])
        after = {**zero, **dict(zip(names, got, strict=False))}
        assert float(space.inner(space.rgrad(after), rb)) > -1e-9
    assert seen == {True, False}


def test_student_learns_more_from_a_teacher_of_all_trials():
    g = torch.Generator().manual_seed(0)
    true = torch.randn(12, 3, generator=g)
    x = torch.randn(1000, 12, generator=g)
    logits = 1.5 * x @ true
    y = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    few, test = Batch(x[:120], y[:120]), Batch(x[200:], logits[200:].argmax(1))

    def accuracy(extra):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
        setup = Setup(net, few, n_classes=3, epochs=60, batch_size=30, lr=0.01)
        plugs = make_plugs(setup, objective=("cross-entropy", *extra))
        train(net, few, epochs=60, **plugs)
        return float((net(test.x).argmax(1) == test.y).double().mean())

    teacher = DualHeadKD(logits[:120], 16, 3)
    assert accuracy([teacher]) > accuracy([]) + 0.02


def test_by_name_and_where_trials_have_no_class(toy, trials):
    data = trials(80)
    y = data.y.clone()
    y[::3] = -1
    data = Batch(data.x, y, data.domain)
    net = toy()
    setup = Setup(net, data, epochs=2, batch_size=20, domains_per_batch=4)
    before = {n: p.clone() for n, p in net.state_dict().items()}
    weight, plug = build("0.5 * dual-head-kd(hidden=8, align=True)", "objective", setup)
    # Neither the teacher's training nor the search for widths touched the network.
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    loss = WeightedSum([CrossEntropy(), (weight, plug)])
    assert loss.evaluated().scalar_terms == []
    plugs = make_plugs(setup) | {"objective": [CrossEntropy(), (weight, plug)]}
    train(net, data, epochs=2, **plugs)
    assert not any("teacher" in n for n, _ in plug.named_parameters())
    assert all(torch.isfinite(p).all() for p in net.parameters())


@pytest.mark.parametrize("bad", [torch.zeros(4), torch.zeros(4, 2).long(), []])
def test_teachers_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="teacher"):
        DualHeadKD(bad, 3, 2)


def test_alignment_is_of_the_weighted_losses():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    x, y = torch.randn(9, 4).double(), torch.arange(9) % 2
    weight = torch.arange(1.0, 10.0).double()
    data = Batch(x, y, index=torch.arange(9), weight=weight)
    plain = DualHeadKD(6.0 * nn.functional.one_hot(1 - y, 2).double(), 3, 2).double()
    with torch.no_grad():
        plain.head[0].load_state_dict(net[1].state_dict())
    shared = list(net[0].parameters())

    def gradient(objective):
        context = context_of(net, data, objective)
        loss = objective(net, data, context.outputs, context)
        found = torch.autograd.grad((loss * weight).mean(), shared)
        return torch.cat([g.flatten() for g in found])

    kd, task = gradient(plain), gradient(CrossEntropy())
    assert kd @ task < 0
    plain.align = True
    torch.testing.assert_close(gradient(plain), kd - (kd @ task) / (task @ task) * task)
