"""DONE: weights against the gradient of their log-mean-exp, and what r does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from _toy_spd import recentred, tangent_vectors, toy_three
from _toy_training import Perceptron, fit

from eegtensor import EEGTensorError
from eegtensor.training import Batch, forward_all
from eegtensor.training.objectives import DoublyRobust


def losses_of(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.mark.parametrize("r", [0.3, 1.0, 10.0])
def test_gradient_is_that_of_r_log_mean_exp(small, drawn, context, r):
    net, batch = small(), drawn(20)
    method = DoublyRobust(r=r, rate=1.0, normalise=False, most=1e6)
    context(net, batch, method).loss(batch).backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    (r * (torch.logsumexp(losses_of(net, batch) / r, 0))).backward()
    for a, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=0, atol=1e-12)


def test_a_large_r_leaves_all_alike_and_a_small_one_the_worst(small, drawn, context):
    losses, known = torch.rand(9).double(), torch.ones(9, dtype=torch.bool)
    for rate in (0.1, 1.0):
        w = DoublyRobust(r=1e9, rate=rate).weights(losses, known)
        torch.testing.assert_close(w, torch.ones(9).double(), rtol=0, atol=1e-8)
    w = DoublyRobust(r=1e-3, rate=1.0, most=9.0).weights(losses, known)
    assert w.argmax() == losses.argmax() and w.sum() == pytest.approx(9.0, abs=1e-3)
    net, batch = small(), drawn(20)
    plain = losses_of(net, batch)
    found = DoublyRobust(r=1e9)(net, batch, net(batch.x), context(net, batch))
    torch.testing.assert_close(found, plain, rtol=1e-7, atol=0)


def test_large_losses_do_not_overflow():
    losses = torch.tensor([1.0, 500.0, 2000.0]).double()
    for rate in (0.1, 1.0):
        method = DoublyRobust(r=1.0, rate=rate, normalise=False)
        w = method.weights(losses, torch.ones(3, dtype=torch.bool))
        assert torch.isfinite(w).all() and w.argmax() == 2 and (w <= 10).all()


def test_a_running_mean_takes_out_the_bias_of_small_batches():
    """Weights of batches of two, summed over many: those of the whole set."""
    g = torch.Generator().manual_seed(0)
    losses = torch.rand(400, generator=g).double() * 3
    wanted = losses.exp() / losses.exp().mean()
    errors = {}
    for rate in (1.0, 0.02):
        method = DoublyRobust(r=1.0, rate=rate, normalise=False, most=1e6)
        two = torch.ones(2, dtype=torch.bool)
        for _ in range(2):
            order = torch.randperm(400, generator=g)
            found = torch.zeros(400, dtype=torch.float64)
            for index in order.split(2):
                found[index] = method.weights(losses[index], two)
        errors[rate] = float((found - wanted).abs().mean())
    assert errors[0.02] < 0.3 * errors[1.0]


def test_domains_are_weighed_as_one(small):
    losses = torch.tensor([1.0, 3.0, 0.0, 0.0, 2.0]).double()
    known = torch.tensor([True, True, True, False, True])
    domain = torch.tensor([0, 0, 1, 1, 2])
    method = DoublyRobust(r=1.0, groups="domain", rate=1.0, normalise=False)
    w = method.weights(losses, known, domain)
    mean = torch.tensor([2.0, 2.0, 0.0, 0.0, 2.0]).double().exp()
    torch.testing.assert_close(w, mean / ((3 * mean[0] + mean[2]) / 4))
    with pytest.raises(EEGTensorError, match="domains"):
        method.weights(losses, known)


def test_losses_are_measured_in_their_own_mean():
    losses, known = torch.rand(9).double(), torch.ones(9, dtype=torch.bool)
    one = DoublyRobust(rate=1.0).weights(losses, known)
    two = DoublyRobust(rate=1.0).weights(100 * losses, known)
    torch.testing.assert_close(one, two)


def test_running_means_move_once_a_step_and_are_saved(small, drawn, context):
    net, batch = small(), drawn(20)
    method = DoublyRobust()
    c = context(net, batch, method, step=3)
    c.loss(batch)
    before = method.state_dict()
    c.loss(batch)
    assert torch.equal(before["s"], method.s) and float(method.s) > 0
    with torch.no_grad():
        torch.testing.assert_close(
            method(net, batch, net(batch.x), c), losses_of(net, batch)
        )
    again = DoublyRobust()
    again.load_state_dict(before)
    assert torch.equal(again.level, method.level)


def test_unlabelled_trials_have_no_part(small, drawn, context):
    net, batch = small(), drawn(20)
    y = batch.y.clone()
    y[::2] = -1
    half = Batch(batch.x, y)
    method = DoublyRobust(rate=1.0)
    found = method(net, half, net(batch.x), context(net, half))
    odd = Batch(batch.x[1::2], batch.y[1::2])
    wanted = DoublyRobust(rate=1.0)(net, odd, net(odd.x), context(net, odd))
    torch.testing.assert_close(found[1::2], wanted)
    assert not found[::2].any()
    none = Batch(batch.x, torch.full_like(y, -1))
    assert not DoublyRobust()(net, none, net(batch.x), context(net, none)).any()


@pytest.mark.slow
def test_the_worst_person_is_not_worse_off():
    """TOY-SPD with one person harder than the others: alone not recentred.

    .763 becomes .775. Where a person is harder by noise, which larger weights fit
    instead of the classes, it does not hold: .706 became .669.
    """
    worst = {}
    for name in ("cross-entropy", "doubly-robust(groups='domain', r=0.5)"):
        scores = []
        for seed in range(4):
            C, y, person = toy_three(seed)
            matrices = recentred(C, person)
            matrices[person == 2] = C[person == 2]
            V = tangent_vectors(matrices)
            x = torch.from_numpy((V - V.mean(0)) / V.std(0)).float()
            y, person = torch.from_numpy(y), torch.from_numpy(person)
            # Half of each person's trials are held out.
            train = torch.arange(len(x)) % 2 == 0
            net = Perceptron(seed)
            fit(net, Batch(x[train], y[train], person[train]), seed, objective=name)
            right = forward_all(net, Batch(x[~train])).argmax(1) == y[~train]
            who = person[~train]
            each = [float(right[who == d].double().mean()) for d in who.unique()]
            scores.append(min(each))
        worst[name] = sum(scores) / len(scores)
    plain, robust = worst.values()
    assert robust >= plain


def test_mistakes():
    for options in (
        {"r": 0.0},
        {"groups": "people"},
        {"rate": 0.0},
        {"rate": 1.5},
        {"normalise": 1.5},
        {"most": 0.5},
    ):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            DoublyRobust(**options)
