"""Logit-adjusted softmax: what counts do, and that batches are counted once."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, ShuffleSampler, build, train
from eegtensor.training.objectives import LogitAdjusted
from eegtensor.training.perturbations import SAM


def test_equal_counts_are_cross_entropy(call):
    z = torch.randn(12, 3, dtype=torch.float64)
    y = torch.arange(12) % 3
    wanted = F.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(call(LogitAdjusted(), z, y), wanted)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_definition(call, tau):
    z = torch.randn(10, 3, dtype=torch.float64)
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    counts = torch.tensor([6.0, 3.0, 1.0]).double()
    wanted = F.cross_entropy(z + tau * counts.log(), y, reduction="none")
    torch.testing.assert_close(call(LogitAdjusted(tau=tau), z, y), wanted)


def test_absent_classes_get_no_gradient(call):
    z = torch.randn(8, 4, requires_grad=True)
    y = torch.tensor([0, 2, 0, 2, 2, 0, 0, 2])
    loss = call(LogitAdjusted(), z, y)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert not z.grad[:, [1, 3]].any() and z.grad[:, [0, 2]].all()


def test_evaluation_and_tau_zero_are_cross_entropy(call):
    z, y = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, -1])
    wanted = F.cross_entropy(z, y, reduction="none", ignore_index=-1)
    with torch.no_grad():
        assert torch.equal(call(LogitAdjusted(), z, y), wanted)
    assert torch.equal(call(LogitAdjusted(tau=0.0), z, y), wanted)


def test_counts_of_the_last_batches(call):
    z = torch.zeros(4, 3)
    objective = LogitAdjusted(batches=2)
    labels = [[0, 0, 0, 1], [1, 1, 2, 2], [2, 2, 2, 2]]
    for step, y in enumerate(labels, 1):
        for _ in range(2):
            # A second pass of the same step counts nothing twice.
            call(objective, z, torch.tensor(y), step=step)
    assert objective.recent.sum(dim=0).tolist() == [0, 2, 6]


def test_sam_and_parts_of_a_batch_see_the_same_counts():
    x, y = torch.randn(40, 3), (torch.arange(40) % 4 == 0).long()
    for more in ({"perturbation": SAM()}, {"accumulate": 4}):
        net, objective = torch.nn.Linear(3, 2), LogitAdjusted(batches=3)
        train(
            net,
            Batch(x, y),
            objective=objective,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            sampler=ShuffleSampler(40, batch_size=40),
            epochs=5,
            **more,
        )
        assert objective.recent.tolist() == [[30.0, 10.0]] * 3


def boundary(objective):
    """Of two Gaussians at -1 and 1 with priors .9 and .1."""
    n = 8000
    y = (torch.arange(n) % 10 == 0).long()
    # Quantiles of a normal, not a sample: the boundary is that of the populations.
    noise = torch.empty(n, 1)
    for c in (0, 1):
        m = int((y == c).sum())
        share = (torch.arange(m) + 0.5) / m
        noise[y == c, 0] = torch.special.ndtri(share)
    x = (2.0 * y[:, None] - 1) + noise
    net = torch.nn.Linear(1, 2)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.zeros_(net.bias)
    train(
        net,
        Batch(x, y),
        objective=objective,
        optimizer=torch.optim.Adam(net.parameters(), lr=0.1),
        sampler=ShuffleSampler(n, batch_size=n),
        epochs=120,
    )
    w = net.weight[1] - net.weight[0]
    return float((-(net.bias[1] - net.bias[0]) / w).detach())


def test_boundary_is_that_of_balanced_classes():
    assert abs(boundary(LogitAdjusted())) < 0.05
    plain = boundary(LogitAdjusted(tau=0.0))
    assert abs(plain - math.log(9) / 2) < 0.05


def test_counts_of_all_trials(call):
    y = torch.tensor([0] * 6 + [1] * 2)
    setup = Setup(torch.nn.Linear(1, 2), Batch(torch.zeros(8, 1), y))
    _, objective = build("logit-adjusted(batches=None, tau=2.0)", "objective", setup)
    z = torch.randn(3, 2)
    part = torch.tensor([1, 1, 0])
    counts = torch.tensor([6.0, 2.0])
    wanted = F.cross_entropy(z + 2 * counts.log(), part, reduction="none")
    torch.testing.assert_close(call(objective, z, part), wanted)


def test_state_goes_into_checkpoints(call):
    first, second = LogitAdjusted(batches=2), LogitAdjusted(batches=2)
    second.load_state_dict(first.state_dict())
    call(first, torch.zeros(4, 3), torch.tensor([0, 1, 1, 2]))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.recent, second.recent)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="all training trials"):
        LogitAdjusted(batches=None)
    with pytest.raises(EEGTensorError, match="tau=-1"):
        LogitAdjusted(tau=-1)


def test_a_class_that_no_training_trial_has_keeps_a_finite_logit(call):
    z, y = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([0, 1])
    objective = LogitAdjusted(batches=None, counts=torch.tensor([5.0, 0.0]))
    loss = call(objective, z, y)
    wanted = torch.tensor([1 + 2e-7, 1 + 5e6], dtype=torch.float64).log()
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-12)
