"""SAM against the paper's numbers and a loop written by hand."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import ShuffleSampler, make_optimizer, train
from eegtensor.training.perturbations import SAM


class Quadratic(torch.nn.Module):
    """w' diag(1, 10) w / 2, from (1, 1)."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        return 0.5 * (self.w**2 * torch.tensor([1.0, 10.0])).sum()


class Value:
    per_trial = False

    def __call__(self, model, batch, outputs, context):
        return outputs


def step(perturbation, lr=0.1, epochs=1):
    from eegtensor.training import Batch

    net = Quadratic()
    train(
        net,
        Batch(torch.zeros(1, 1)),
        objective=Value(),
        optimizer=make_optimizer(net, "sgd", lr=lr, weight_decay=0.0),
        sampler=ShuffleSampler(1, batch_size=1),
        epochs=epochs,
        perturbation=perturbation,
    )
    return net.w.detach()


def test_first_step_on_a_quadratic_is_that_worked_out_by_hand():
    # Specification A25: H = diag(1, 10), w = (1, 1), lr .1, rho .05.
    wanted = torch.tensor([0.8995024815, -0.0497518596], dtype=torch.float64)
    torch.testing.assert_close(step(SAM(rho=0.05)), wanted, rtol=0, atol=1e-9)


def test_no_step_size_leaves_the_weights_bit_for_bit():
    assert torch.equal(step(SAM(), lr=0.0), torch.ones(2, dtype=torch.float64))


def test_a_gradient_of_zero_moves_nothing():
    assert torch.isfinite(step(SAM(), lr=0.1, epochs=300)).all()


def test_mistakes():
    with pytest.raises(EEGTensorError, match="rho=0"):
        SAM(rho=0)
