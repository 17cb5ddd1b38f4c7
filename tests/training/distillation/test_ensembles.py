"""MEAL V2 and the mix of soft and hard targets."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, Setup, build, make_plugs, train
from eegtensor.training.evaluation import evaluate
from eegtensor.training.network import Network
from eegtensor.training.objectives import MEALV2, SoftHardKD, teacher_share
from eegtensor.training.objectives._teachers import trained_teachers
from eegtensor.training.protocols import StepContext


def loss_of(objective, net, data):
    network = Network(net)
    outputs = network(data)
    return objective(net, data, outputs, StepContext(network, objective, data))


def task(n=400, seed=0, noise=0.0):
    g = torch.Generator().manual_seed(seed)
    true = torch.randn(10, 3, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, 10, generator=g)
    y = (x @ true + 0.5 * torch.randn(n, 3, generator=g)).argmax(1)
    flip = torch.rand(n, generator=g) < noise
    return Batch(x, torch.where(flip, (y + 1) % 3, y))


def small(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 3))


def fit(net, data, objective, epochs=30, seed=0):
    setup = Setup(net, data, n_classes=3, epochs=epochs, lr=0.01, seed=seed)
    plugs = make_plugs(setup, objective=objective)
    train(net, data, epochs=epochs, random_state=seed, **plugs)
    return net


def accuracy(net, data):
    return float((net(data.x).argmax(1) == data.y).double().mean())


def test_student_who_is_the_teacher_stays():
    net, data = small(0), task(50)
    objective = MEALV2(copy.deepcopy(net), 3)
    loss_of(objective, net, data).mean().backward()
    assert max(p.grad.abs().max() for p in net.parameters()) < 1e-7


def test_loss_against_its_formula_and_both_players():
    net, data = small(0), task(40)
    teachers = [small(1), small(2)]
    objective = MEALV2(teachers, 3, adversary=0.7)
    with torch.no_grad():
        for p in objective.judge.parameters():
            p.normal_()
    got = loss_of(objective, net, data)
    q = torch.stack([t(data.x).softmax(1) for t in teachers]).mean(0).detach()
    s = net(data.x).log_softmax(1)
    judge = copy.deepcopy(objective.judge)
    on_student = F.binary_cross_entropy_with_logits(
        judge(s), torch.tensor([[1.0, 0.0]]).expand(40, 2)
    )
    on_teacher = F.binary_cross_entropy_with_logits(
        judge(q.log()), torch.tensor([[0.0, 1.0]]).expand(40, 2)
    )
    ce = -(q * s).sum(1).mean()
    total = ce + 0.35 * (on_student + on_teacher)
    torch.testing.assert_close(got.mean(), total)
    got.mean().backward()
    # The judge descends on telling them apart, the student ascends.
    wanted = torch.autograd.grad(total, list(judge.parameters()), retain_graph=True)
    for p, g in zip(objective.judge.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g)
    against = ce - 0.35 * on_student
    for p, g in zip(
        net.parameters(),
        torch.autograd.grad(against, list(net.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(p.grad, g, atol=1e-6, rtol=1e-4)


def test_student_is_as_good_as_the_mean_teacher_without_labels():
    data, test = task(150, noise=0.2), task(2000, seed=7)
    teachers = [fit(small(s), data, "cross-entropy", seed=s) for s in (1, 2, 3)]
    blind = Batch(data.x, torch.full_like(data.y, -1))
    mean = sum(accuracy(t, test) for t in teachers) / 3
    found = {
        weight: accuracy(
            fit(small(9), blind, MEALV2(teachers, 3, adversary=weight), 60), test
        )
        for weight in (0.0, 0.3)
    }
    assert min(found.values()) >= mean
    assert abs(found[0.0] - found[0.3]) < 0.03


def test_evaluation_is_by_labels():
    net, data = small(0), task(50)
    for objective in (MEALV2(small(1), 3), SoftHardKD(small(1))):
        got = evaluate(net, data, objective)["loss"]
        assert got == pytest.approx(evaluate(net, data, CrossEntropy())["loss"])


def test_soft_hard_target_and_its_corrections():
    net, data = small(0), task(60)
    y = data.y.clone()
    y[:10] = -1
    data = Batch(data.x, y, torch.arange(60) % 2, torch.arange(60))
    table = 2.0 * torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    got = loss_of(SoftHardKD(table, torch.tensor([0.3, 0.9])), net, data)
    z, q = net(data.x), table.softmax(1)
    rho = torch.tensor([0.3, 0.9])[data.domain]
    wrong = (table.argmax(1) != y) & (y >= 0)
    hard = F.one_hot(y.clamp_min(0), 3).float() * (y >= 0)[:, None]
    rho = torch.where(wrong, 0.0, rho)[:, None]
    target = rho * q + (1 - rho) * hard
    torch.testing.assert_close(got, -(target * z.log_softmax(1)).sum(1))
    assert wrong.any() and not wrong.all()


def test_share_of_the_teacher_by_domain():
    logits = F.one_hot(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 2).float()
    y = torch.tensor([0, 0, 0, 1, 0, 0, 1, -1])
    d = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    got = teacher_share(logits, y, d, n_domains=3)
    # 3 of 4; 1 of 3; the third domain has none: 4 of 7.
    torch.testing.assert_close(got, torch.tensor([0.5, 0.0, 1 / 7]).double())
    with pytest.raises(EEGTensorError, match="label"):
        teacher_share(logits, torch.full((8,), -1))


def test_mix_is_no_worse_than_either_where_the_teacher_is_wrong():
    """A teacher that is wrong on 30 % of trials; labels of 20 % are wrong as well."""
    test = task(2000, seed=7)
    scores = {}
    for rho in (0.0, 0.4, 1.0):
        found = []
        for seed in range(3):
            clean, noisy = task(150, seed=seed), task(150, seed=seed, noise=0.2)
            g = torch.Generator().manual_seed(seed)
            off = torch.rand(150, generator=g) < 0.3
            said = torch.where(off, (clean.y + 2) % 3, clean.y)
            table = 3.0 * F.one_hot(said, 3).float()
            plain = SoftHardKD(table, rho)
            found.append(accuracy(fit(small(seed), noisy, plain), test))
        scores[rho] = sum(found) / 3
    assert scores[0.4] >= max(scores[0.0], scores[1.0]) - 0.01, scores


def test_by_name_with_rho_from_validation(toy, trials):
    data, valid = trials(80), trials(40, seed=3)
    net = toy()
    setup = Setup(
        net, data, epochs=2, batch_size=20, domains_per_batch=4, validation=valid
    )
    _, plug = build("soft-hard-kd", "objective", setup)
    assert plug.rho.shape == (4,)
    for name in ("soft-hard-kd(rho=0.5)", "meal-v2(teachers=2)"):
        net = toy()
        setup = Setup(net, data, epochs=2, batch_size=20, domains_per_batch=4)
        plugs = make_plugs(setup, objective=name)
        train(net, data, epochs=2, validation=valid, **plugs)
        assert all(torch.isfinite(p).all() for p in net.parameters())


def test_soft_targets_have_the_temperature_and_its_square():
    net, data = small(0), task(12)
    data = data.pick(torch.arange(12))
    # A teacher that is right: its share counts in full.
    table = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    table = table + 9.0 * F.one_hot(data.y, 3)
    net.train()
    got = loss_of(SoftHardKD(table, 1.0, temperature=3.0), net, data)
    own = (net(data.x) / 3).log_softmax(1)
    torch.testing.assert_close(got, -9.0 * ((table / 3).softmax(1) * own).sum(1))


def test_teachers_by_name_differ_from_one_another_and_learn_by_other_seeds():
    data = task(60)
    setup = Setup(small(0), data, n_classes=3, epochs=2, batch_size=10, lr=0.01)
    one, two = trained_teachers(setup, 2)
    own = fit_like(copy.deepcopy(setup.model), setup)
    for a, b in ((one, two), (one, own), (two, own)):
        assert not torch.equal(a[0].weight, b[0].weight)


def fit_like(net, setup):
    plugs = make_plugs(Setup(**{**vars(setup), "model": net}))
    train(net, setup.data, epochs=setup.epochs, random_state=setup.seed, **plugs)
    return net
