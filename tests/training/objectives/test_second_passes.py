"""What a second pass of a step, a batch without labels or a small one must not do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    Setup,
    ShuffleSampler,
    StepContext,
    WeightedSum,
    build,
    train,
)
from eegtensor.training.objectives import (
    ALDR,
    NNPU,
    EnsLoss,
    LogitAdjusted,
    SubjectDRO,
    ZLoss,
    decoupled_contrastive,
)
from eegtensor.training.objectives._shared import OncePerStep, unit
from eegtensor.training.objectives.deepcca import eckart_young
from eegtensor.training.objectives.ldr import LDR
from eegtensor.training.perturbations import RWP, SAM


def trials(n=24, n_domains=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g)
    return Batch(x, torch.arange(n) % 3, torch.arange(n) % n_domains)


def one_step(objective, perturbation, data, *, accumulate=1, seed=0):
    """Train one epoch of one batch and return the objective."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    train(
        net,
        data,
        objective=objective,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        sampler=ShuffleSampler(len(data), batch_size=len(data)),
        perturbation=perturbation,
        accumulate=accumulate,
        epochs=1,
    )
    return objective


def test_a_second_pass_teaches_temperatures_and_means_nothing():
    data = trials()
    plain = one_step(ALDR(n_trials=24), (), data)
    for perturbation in (SAM(rho=5.0), RWP(sigma=2.0)):
        other = one_step(ALDR(n_trials=24), perturbation, data)
        assert torch.equal(plain.temperatures, other.temperatures)
    parts = one_step(ALDR(n_trials=24), (), data, accumulate=3)
    torch.testing.assert_close(parts.temperatures, plain.temperatures)
    assert (plain.temperatures < 10).all()
    first, second = (
        one_step(SubjectDRO(3), p, data).state_dict() for p in ((), SAM(rho=5.0))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_both_passes_of_a_step_start_from_the_same_temperatures(call):
    z, y = torch.randn(6, 3), torch.arange(6) % 3
    objective, fresh = (ALDR(lam=1.0, n_trials=6) for _ in range(2))
    call(objective, 3 * z, y, index=torch.arange(6), step=1)
    again = call(objective, z, y, index=torch.arange(6), step=1)
    wanted = call(fresh, z, y, index=torch.arange(6), step=1)
    torch.testing.assert_close(again, wanted)


def test_trials_are_new_once_a_step():
    once, data = OncePerStep(), trials(6)
    clean = data.pick(torch.tensor([1, 2, 3]))
    other = data.pick(torch.tensor([3, 5]))
    context = StepContext(None, None, clean, step=4, clean=clean)
    assert once.begins(context)
    assert once.take(clean.pick(torch.tensor([0, 1])), context).tolist() == [True] * 2
    assert once.take(clean, context).tolist() == [False, False, True]
    assert once.take(other, context).tolist() == [False, False]
    assert not once.begins(context)
    later = StepContext(None, None, other, step=5, clean=other)
    assert once.begins(later) and once.take(other, later).tolist() == [True, True]


def test_counts_of_classes_hold_for_the_batch_that_passes(call):
    z = torch.randn(4, 3, requires_grad=True)
    now = Batch(torch.zeros(4, 1), torch.tensor([0, 0, 1, 1]))
    before = Batch(torch.zeros(4, 1), torch.tensor([0, 1, 2, 0]))
    objective = LogitAdjusted()
    context = StepContext(Network(nn.Linear(1, 1)), None, now, step=1, clean=now)
    objective(nn.Identity(), now, z, context)
    loss = objective(nn.Identity(), before, z, context)
    assert torch.isfinite(loss).all()
    # What is remembered is the step's own batch.
    assert objective.recent[0].tolist() == [2, 2, 0]


def test_a_batch_without_labels_has_no_gradient_of_adjusted_logits(call):
    z = torch.randn(4, 3, requires_grad=True)
    loss = call(LogitAdjusted(), z, torch.full((4,), -1))
    loss.sum().backward()
    assert not loss.any() and not z.grad.any()


def test_targets_that_are_no_codes_are_refused_by_name(call):
    with pytest.raises(EEGTensorError, match="LogitAdjusted got targets"):
        call(LogitAdjusted(), torch.randn(4, 3), torch.rand(4, 3))


def test_heads_that_start_at_zero_train(call):
    y = torch.arange(6) % 3
    for objective in (ZLoss(), LDR(), ALDR(n_trials=6)):
        z = torch.zeros(6, 3, requires_grad=True)
        call(objective, z, y, index=torch.arange(6)).mean().backward()
        assert z.grad.abs().max() < 1e8, objective
    z = torch.full((6, 3), -200.0, requires_grad=True)
    loss = call(LDR(), z, y)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(z.grad).all()


def test_events_alone_say_nothing_of_the_others(call):
    f = torch.randn(5, 2, requires_grad=True)
    model = nn.Linear(1, 1)
    call(NNPU(prior=0.3), f, torch.ones(5, dtype=torch.int64), model=model).backward()
    want = torch.autograd.grad(0.3 * torch.sigmoid(f[:, 0] - f[:, 1]).mean(), f)[0]
    torch.testing.assert_close(f.grad, want)


def test_views_of_one_trial_are_alike_and_finite():
    assert eckart_young([torch.randn(1, 2), torch.randn(1, 2)]) == 0


def test_width_is_a_distance_of_different_trials():
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    wrapped = Network(net, keeps_features=True)
    method = SubjectDRO(3)
    one, two = trials().pick(torch.tensor([0])), trials().pick(torch.tensor([0, 1]))
    for batch, wanted in ((one, 0.0), (two, None)):
        out = wrapped(batch)
        method(net, batch, out, StepContext(wrapped, None, batch, clean=batch))
        if wanted is None:
            h = wrapped.features.detach()
            wanted = float((h[0] - h[1]).norm())
        assert float(method.width) == pytest.approx(wanted, rel=1e-6)
        assert torch.isfinite(method.embeddings).all()


def test_a_second_run_starts_anew(call):
    data = trials()
    for make in (lambda: ALDR(n_trials=24), lambda: SubjectDRO(3), LogitAdjusted):
        objective = one_step(make(), (), data)
        first = copy.deepcopy(objective.state_dict())
        second = one_step(objective, (), data).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
    objective = EnsLoss()
    objective.lam = 0.7
    assert one_step(objective, (), data).lam == 0.0


def test_cosines_are_not_of_half_precision():
    g = torch.Generator().manual_seed(0)
    f = torch.randn(5, 8, generator=g).bfloat16()
    torch.testing.assert_close(unit(f), unit(f.float()))
    assert unit(f.double()).dtype == torch.float64


def test_weights_of_objectives_are_numbers():
    for factor in ("0.3", float("nan"), True):
        with pytest.raises(EEGTensorError, match="weight of CrossEntropy"):
            WeightedSum([(factor, CrossEntropy())])


def test_trials_without_a_label_are_no_part_of_a_bags_shares():
    data = trials(8, n_domains=2)
    y = torch.tensor([0, 1, 0, 1, 0, -1, -1, -1])
    setup = Setup(nn.Linear(4, 3), Batch(data.x, y, data.domain), n_classes=3)
    _, objective = build("aggregate", "objective", setup)
    wanted = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[data.domain]
    torch.testing.assert_close(objective.shares, wanted)


def test_weights_of_pairs_are_held_fixed():
    g = torch.Generator().manual_seed(0)
    z, other = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))
    z.requires_grad_()
    decoupled_contrastive(z, other, sigma=0.5).sum().backward()
    a, b = nn.functional.normalize(z), nn.functional.normalize(other)
    cosine = (a * b).sum(1)
    w = (2 - 5 * (cosine / 0.5).softmax(0)).detach()
    plain = decoupled_contrastive(z, other).sum() + ((1 - w) * cosine / 0.1).sum()
    torch.testing.assert_close(z.grad, torch.autograd.grad(plain, z)[0])
