"""EnsLoss: what makes a random loss convex and calibrated."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Checkpoint, ShuffleSampler, train
from eegtensor.training.objectives import EnsLoss
from eegtensor.training.objectives.ensloss import derivatives


def draws(n=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, generator=g, dtype=torch.float64)
    return z, torch.randn(n, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("lam", [-1.0, -0.9, -0.3, -1e-3, 0.0, 1e-3, 0.4, 1.0])
def test_derivatives_are_negative_and_do_not_fall(lam):
    for seed in range(5):
        z, u = draws(seed=seed)
        d = derivatives(z, u, lam)[z.argsort()]
        assert torch.isfinite(d).all() and (d < 0).all() and (d.diff() >= 0).all()
        assert d.min() >= -1 - 1e-6


@pytest.mark.parametrize("lam", [-0.8, 0.0, 0.5])
def test_derivatives_are_the_drawn_ones(lam):
    z, u = draws(60)
    z = -z.abs()
    v = u.exp() if lam == 0 else (1 + lam * u).clamp_min(0) ** (1 / lam)
    wanted = -v.nan_to_num(posinf=9.0).clamp_max(1.0).sort(descending=True).values
    got = derivatives(z, u, lam)[z.argsort()] + 1e-6
    torch.testing.assert_close(got, wanted)


def test_beyond_one_they_fall_off_as_one_over_the_margin():
    z, u = torch.linspace(-3, 5, 9).double(), torch.ones(9).double()
    wanted = torch.where(z > 1, -1 / z, -torch.ones(9).double())
    torch.testing.assert_close(derivatives(z, u, 0.0), wanted - 1e-6)


def test_gradient_is_that_of_a_convex_loss_with_these_derivatives(call):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(30, 2, generator=g, dtype=torch.float64, requires_grad=True)
    y = torch.arange(30) % 2
    margin = (2.0 * y - 1) * (z[:, 1] - z[:, 0])
    call(EnsLoss(), z, y, seed=5).sum().backward()
    u = torch.randn(30, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # Piecewise linear, convex: phi' between margins are the derivatives.
    d = derivatives(margin.detach(), u, 0.0)
    (wanted,) = torch.autograd.grad((d * margin).sum(), z)
    torch.testing.assert_close(z.grad, wanted)
    assert ((z.grad * F.one_hot(y, 2)) <= 0).all()


def test_more_classes_take_the_margin_to_the_best_other(call):
    z = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    call(EnsLoss(), z, torch.tensor([0])).sum().backward()
    assert z.grad[0, 0] < 0 and z.grad[0, 1] == 0 and z.grad[0, 2] > 0


def test_trials_without_a_label_change_no_other(call):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(20, 2, generator=g, dtype=torch.float64, requires_grad=True)
    y = torch.arange(20) % 2
    y[5:9] = -1
    loss = call(EnsLoss(), z, y, seed=1)
    loss.sum().backward()
    assert not loss[5:9].any() and not z.grad[5:9].any()
    z2 = z.detach().clone()
    z2[5:9] += 100
    torch.testing.assert_close(call(EnsLoss(), z2, y, seed=1), loss.detach())


def test_what_unlabelled_trials_drew_is_dropped():
    z, u = draws(40)
    out = torch.arange(40) % 4 == 1
    got = derivatives(z.masked_fill(out, torch.inf), u, 0.3)
    torch.testing.assert_close(got[~out], derivatives(z[~out], u[~out], 0.3))


def test_evaluation_is_the_logistic_loss(call):
    z, y = torch.randn(9, 2), torch.arange(9) % 2
    with torch.no_grad():
        wanted = F.cross_entropy(z, y, reduction="none")
        torch.testing.assert_close(call(EnsLoss(), z, y), wanted)


def linear_run(tmp_path=None, epochs=25):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    x = torch.randn(120, 5, generator=g)
    x[:, 0] = x[:, 0].abs() * (2.0 * y - 1) + (y - 0.5)
    torch.manual_seed(0)
    net, objective = torch.nn.Linear(5, 2), EnsLoss(period=3)
    seen = []

    class Watch:
        def on_epoch_end(self, state):
            seen.append(objective.lam)

    train(
        net,
        Batch(x, y),
        objective=objective,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9),
        sampler=ShuffleSampler(120),
        epochs=epochs,
        callbacks=[Watch()],
        checkpoint=None if tmp_path is None else Checkpoint(tmp_path / "run"),
    )
    right = (net(x).argmax(dim=1) == y).float().mean()
    return net.weight.detach(), seen, float(right)


def test_separable_trials_are_separated_and_lambda_changes_every_period():
    _, seen, right = linear_run()
    assert right == 1.0
    assert seen[:3] == [0.0] * 3 and len(set(seen)) == 9
    assert all(len(set(seen[k : k + 3])) == 1 for k in range(0, 24, 3))
    assert min(seen) >= -1 and max(seen) <= 1 and min(seen) < 0


def test_a_run_that_stopped_goes_on_with_its_lambda(tmp_path):
    whole, _, _ = linear_run(epochs=8)
    linear_run(tmp_path, epochs=5)
    resumed, seen, _ = linear_run(tmp_path, epochs=8)
    assert len(seen) == 3 and torch.equal(whole, resumed)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="period=0"):
        EnsLoss(period=0)
