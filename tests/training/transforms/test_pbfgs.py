"""P-BFGS on quadratics, and the calibration of a new person."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, Network, ParamSpace
from eegtensor.training.subspace import orthonormal_frame
from eegtensor.training.transforms import bfgs, calibrate_in_subspace


def quadratic(k, top, seed=0):
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(k, k, generator=g).double())[0]
    h = (
        q
        @ torch.diag(torch.logspace(0, torch.log10(torch.tensor(top)), k).double())
        @ q.T
    )
    b = torch.randn(k, generator=g).double()

    def function(a, wants_gradient):
        value = float(0.5 * a @ h @ a - b @ a)
        return value, (h @ a - b if wants_gradient else None)

    return function, torch.linalg.solve(h, b)


@pytest.mark.parametrize("k", [5, 20, 40])
def test_a_quadratic_is_at_its_minimum_after_as_many_steps_as_numbers(k):
    function, best = quadratic(k, 100.0)
    lowest = function(best, False)[0]
    found = bfgs(
        function, torch.zeros(k), n_steps=k + 5, search="interpolation", tol=1e-12
    )
    assert len(found.losses) <= k + 6
    assert found.losses[-1] - lowest < 1e-8 * abs(lowest)


def test_one_interpolated_step_is_a_line_search():
    function, _ = quadratic(6, 30.0)
    found = bfgs(function, torch.zeros(6), n_steps=1, search="interpolation")
    g = function(torch.zeros(6).double(), True)[1]
    # At the minimum along the first gradient the new one is orthogonal to it.
    new = function(found.coefficients, True)[1]
    assert abs(float(g @ new)) < 1e-10 * float(g @ g)


def test_published_search_gets_there_too():
    function, best = quadratic(10, 5.0)
    found = bfgs(function, torch.zeros(10), n_steps=40)
    torch.testing.assert_close(found.coefficients, best, rtol=0, atol=1e-5)
    assert all(b < a for a, b in zip(found.losses, found.losses[1:], strict=False))


def test_first_steps_of_the_published_rule():
    # Two steps by hand: B = I, step 1, then the BFGS matrix.
    h, b = torch.diag(torch.tensor([0.5, 0.8])).double(), torch.ones(2).double()

    def function(a, wants_gradient):
        return float(0.5 * a @ h @ a - b @ a), h @ a - b if wants_gradient else None

    found = bfgs(function, torch.zeros(2), n_steps=2)
    a1 = b
    s, y = a1, h @ a1
    eye, r = torch.eye(2).double(), 1 / (s @ y)
    left = eye - r * torch.outer(s, y)
    B = left @ left.T + r * torch.outer(s, s)
    torch.testing.assert_close(found.coefficients, a1 - B @ (h @ a1 - b))


def test_rising_everywhere_ends_the_search():
    def function(a, wants_gradient):
        # The gradient lies: nothing falls along it.
        return float(a.abs().sum()), torch.ones(2).double() if wants_gradient else None

    found = bfgs(function, torch.zeros(2), n_steps=5)
    assert found.losses == [0.0] and found.coefficients.tolist() == [0.0, 0.0]


def person(toy, trials):
    """A trained network, a frame of two directions and trials of a new person."""
    net = toy(dropout=0.0, dtype=torch.float64)
    space, g = ParamSpace(net), torch.Generator().manual_seed(0)
    frame = orthonormal_frame(
        space, space.snapshot(), [space.random_tangent(g) for _ in range(6)]
    )
    return net, frame, trials(48, dtype=torch.float64, seed=4)


def loss_of(net, data):
    net.eval()
    return float(nn.functional.cross_entropy(net(data.x, data.domain), data.y).detach())


def test_a_person_is_fitted_by_a_few_numbers(toy, trials):
    net, frame, data = person(toy, trials)
    before = loss_of(net, data)
    statistics = {n: b.clone() for n, b in net.named_buffers()}
    found = calibrate_in_subspace(Network(net), data, frame, ridge=0.0, n_steps=15)
    assert loss_of(net, data) == pytest.approx(found.losses[-1], rel=1e-9)
    assert found.losses[-1] < before - 0.01
    assert all(torch.equal(statistics[n], b) for n, b in net.named_buffers())
    points = frame.points(found.coefficients)
    for n, p in frame.space.points().items():
        torch.testing.assert_close(p, points[n], rtol=0, atol=1e-12)
    eye = torch.eye(3).double()
    torch.testing.assert_close(net.frame.mT @ net.frame, eye, rtol=0, atol=1e-10)
    # The base takes it back.
    frame.space.assign(frame.base)
    assert loss_of(net, data) == before


def test_a_strong_ridge_keeps_the_network(toy, trials):
    net, frame, data = person(toy, trials)
    found = calibrate_in_subspace(Network(net), data, frame, ridge=1e8)
    assert found.coefficients.abs().max() < 1e-4
    with pytest.raises(EEGTensorError, match="ridge=-1"):
        calibrate_in_subspace(Network(net), data, frame, ridge=-1)


def test_the_gradient_is_gone_at_the_end_of_a_convex_calibration():
    g = torch.Generator().manual_seed(0)
    net = nn.Linear(6, 2).double()
    space = ParamSpace(net)
    frame = orthonormal_frame(
        space, space.snapshot(), [space.random_tangent(g) for _ in range(3)]
    )
    x = torch.randn(40, 6, generator=g).double()
    data = Batch(x, (x[:, 0] + torch.randn(40, generator=g) > 0).long())
    found = calibrate_in_subspace(
        Network(net), data, frame, objective=CrossEntropy(), ridge=0.1, n_steps=40
    )
    net.zero_grad()
    nn.functional.cross_entropy(net(x), data.y).backward()
    size = sum(float(p.square().sum()) for p in frame.base.values())
    total = frame.gradient(found.coefficients, space.gradients())
    total = total + 0.1 * 3 / size * found.coefficients
    assert total.norm() < 1e-6


def test_backtracking_by_hand():
    def function(a, wants_gradient):
        # f(0) = 0 and f'(0) = -1: lengths 1, 0.4, 0.16 and 0.064 are tried.
        value = float(5 * a @ a - a.sum())
        return value, 10 * a - 1 if wants_gradient else None

    found = bfgs(function, torch.zeros(1), n_steps=1)
    # Of these the first with 5 L^2 - L < -0.4 L, that is L < 0.12.
    assert float(found.coefficients) == pytest.approx(0.4**3)
    assert found.n_evaluations == 6
    with pytest.raises(EEGTensorError, match="shrink"):
        bfgs(function, torch.zeros(1), shrink=1.0)
    with pytest.raises(EEGTensorError, match="n_steps"):
        bfgs(function, torch.zeros(1), n_steps=2.5)


def test_a_network_in_training_is_calibrated_in_its_statistics(toy, trials):
    net, frame, data = person(toy, trials)
    net.dropout.p = 0.5
    net.train()
    statistics = {n: b.clone() for n, b in net.named_buffers()}
    found = calibrate_in_subspace(Network(net), data, frame, n_steps=3, ridge=0.0)
    assert net.training
    assert all(torch.equal(statistics[n], b) for n, b in net.named_buffers())
    assert loss_of(net, data) == pytest.approx(found.losses[-1], rel=1e-9)
