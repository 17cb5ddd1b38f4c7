"""The gradient-norm penalty against exact Hessians, and its bound."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import Batch, ShuffleSampler, make_optimizer, train
from eegtensor.training.perturbations import SAM, GradientNorm


class Quadratic(torch.nn.Module):
    def __init__(self, h):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]).double())
        self.h = h

    def forward(self, x):
        return 0.5 * self.w @ self.h @ self.w


class Value:
    per_trial = False

    def __call__(self, model, batch, outputs, context):
        return outputs


def fit(model, perturbation, epochs=1, lr=0.1):
    train(
        model,
        Batch(torch.zeros(1, 1)),
        objective=Value(),
        optimizer=make_optimizer(model, "sgd", lr=lr, weight_decay=0.0),
        sampler=ShuffleSampler(1, batch_size=1),
        epochs=epochs,
        perturbation=perturbation,
    )
    return model.w.detach()


def test_gradient_of_the_norm_is_the_hessian_product():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3, 3, generator=g, dtype=torch.float64)
    h = a @ a.T
    model = Quadratic(h)
    w = model.w.detach().clone()
    exact = h @ w + 0.07 * h @ (h @ w) / (h @ w).norm()
    moved = fit(model, GradientNorm(rho=0.07, radius=0.1), lr=1.0)
    torch.testing.assert_close(w - moved, exact, rtol=1e-9, atol=1e-9)


def test_with_the_radius_as_weight_it_is_sam(steps, batches):
    a, b = steps(GradientNorm(rho=0.1, radius=0.1)), steps(SAM(rho=0.1))
    for batch in batches(3):
        a.take(batch)
        b.take(batch)
    assert all(map(torch.equal, a.weights, b.weights))


def test_the_strength_follows_the_bound():
    h = torch.diag(torch.tensor([1.0, 2.0, 3.0]).double())
    tight = GradientNorm(rho=0.05, radius=0.1, bound=1e-3, rate=1.0)
    fit(Quadratic(h), tight, epochs=1)
    # ||g|| = ||(1, -4, 1.5)|| at the start.
    wanted = 1.0 + 0.05 * (1 + 16 + 2.25) ** 0.5 - 1e-3
    assert tight.strength == pytest.approx(wanted, rel=1e-5)
    loose = GradientNorm(rho=0.05, radius=0.1, bound=1e3, rate=1.0)
    w = fit(Quadratic(h), loose, epochs=3)
    assert loose.strength == 0.0
    # One step with strength 1, then two plain ones.
    x = torch.tensor([1.0, -2.0, 0.5]).double()
    x = x - 0.1 * (h @ x + 0.05 * h @ (h @ x) / (h @ x).norm())
    for _ in range(2):
        x = x - 0.1 * h @ x
    torch.testing.assert_close(w, x, rtol=0, atol=1e-12)


def test_the_norm_falls_to_the_bound():
    # L = w'Hw / 2 - b'w on a slope that never ends in one direction.
    class Slope(Quadratic):
        def forward(self, x):
            return torch.log1p(torch.exp(self.w[0])) + 0.5 * (self.w**2).sum() * 0.1

    model = Slope(torch.eye(3).double())
    fit(model, GradientNorm(rho=0.5, radius=0.1, bound=0.01, rate=0.5), epochs=200)
    model.zero_grad()
    model(None).backward()
    assert 0.5 * model.w.grad.norm() < 0.011


def test_mistakes():
    with pytest.raises(EEGTensorError, match="radius=0"):
        GradientNorm(radius=0)
    with pytest.raises(EEGTensorError, match="strength=-1"):
        GradientNorm(strength=-1)
