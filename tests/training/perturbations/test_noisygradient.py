"""Noisy gradient descent: mean and covariance of its gradient."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, Network, StepContext, WeightedSum
from eegtensor.training.perturbations import NoisyGradient
from eegtensor.training.plugs import check_needs


@pytest.mark.parametrize("noise", ["normal", "signs"])
def test_covariance_is_that_of_small_batches(noise):
    g = torch.Generator().manual_seed(0)
    n, b, draws = 40, 4, 20000
    trials = torch.randn(n, 3, generator=g, dtype=torch.float64)
    network = Network(torch.nn.Linear(3, 2))
    context = StepContext(network, None, Batch(trials), generator=g)
    method = NoisyGradient(ghost_batch=b, noise=noise)
    weights = torch.stack(
        [method.sample(context).apply().weight for _ in range(draws)]
    ).double()
    found = weights @ trials / n
    centred = trials - trials.mean(dim=0)
    # Of b trials drawn with replacement.
    wanted = centred.T @ centred / n / b
    assert (found.T.cov() - wanted).norm() < 0.03 * wanted.norm()
    assert (found.mean(dim=0) - trials.mean(dim=0)).norm() < 0.01
    assert (weights.mean(dim=1) - 1.0).abs().max() < 1e-6


def test_a_trials_own_weight_stays(steps, batches):
    batch = batches()[0]
    method = NoisyGradient(ghost_batch=3)
    free = Batch(batch.x, batch.y)
    none = Batch(batch.x, batch.y, weight=torch.zeros(len(batch)))
    before = steps(method).weights
    assert all(map(torch.equal, steps(method).take(none).weights, before))
    assert not all(map(torch.equal, steps(method).take(free).weights, before))


def test_it_refuses_losses_of_a_whole_batch():
    class Scalar(CrossEntropy):
        per_trial = False

    with pytest.raises(EEGTensorError, match="NoisyGradient needs a loss of each"):
        check_needs(WeightedSum(Scalar()), [NoisyGradient()])
    with pytest.raises(EEGTensorError, match="ghost_batch=0"):
        NoisyGradient(ghost_batch=0)


def test_the_usual_small_batch_is_a_tenth():
    batch = Batch(torch.zeros(200, 1))
    g = torch.Generator().manual_seed(0)
    context = StepContext(None, None, batch, generator=g)
    for noise in ("normal", "signs"):
        method = NoisyGradient(noise=noise)
        drawn = torch.stack([method.sample(context).apply().weight for _ in range(200)])
        assert float(drawn.mean()) == pytest.approx(1.0, abs=1e-5)
        assert float(drawn.var()) == pytest.approx(10.0, rel=0.05)
