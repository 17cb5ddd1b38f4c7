"""The gradient-norm penalty against exact Hessians, and its bound."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training.perturbations import SAM, GradientNorm

START = [1.0, -2.0, 0.5]


def test_gradient_of_the_norm_is_the_hessian_product(quadratic, fit):
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3, 3, generator=g, dtype=torch.float64)
    h = a @ a.T
    model = quadratic(h, START)
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


def test_the_strength_follows_the_bound(quadratic, fit):
    h = torch.diag(torch.tensor([1.0, 2.0, 3.0]).double())
    tight = GradientNorm(rho=0.05, radius=0.1, bound=1e-3, rate=1.0)
    fit(quadratic(h, START), tight, epochs=1)
    # ||g|| = ||(1, -4, 1.5)|| at the start.
    wanted = 1.0 + 0.05 * (1 + 16 + 2.25) ** 0.5 - 1e-3
    assert tight.strength == pytest.approx(wanted, rel=1e-5)
    loose = GradientNorm(rho=0.05, radius=0.1, bound=1e3, rate=1.0)
    w = fit(quadratic(h, START), loose, epochs=3)
    assert loose.strength == 0.0
    # One step with strength 1, then two plain ones.
    x = torch.tensor([1.0, -2.0, 0.5]).double()
    x = x - 0.1 * (h @ x + 0.05 * h @ (h @ x) / (h @ x).norm())
    for _ in range(2):
        x = x - 0.1 * h @ x
    torch.testing.assert_close(w, x, rtol=0, atol=1e-12)


def test_the_norm_falls_to_the_bound(quadratic, fit):
    # L = w'Hw / 2 - b'w on a slope that never ends in one direction.
    class Slope(quadratic):
        def forward(self, x):
            return torch.log1p(torch.exp(self.w[0])) + 0.5 * (self.w**2).sum() * 0.1

    model = Slope(torch.eye(3), START)
    fit(model, GradientNorm(rho=0.5, radius=0.1, bound=0.01, rate=0.5), epochs=200)
    model.zero_grad()
    model(None).backward()
    assert 0.5 * model.w.grad.norm() < 0.011


def test_mistakes():
    with pytest.raises(EEGTensorError, match="radius=0"):
        GradientNorm(radius=0)
    with pytest.raises(EEGTensorError, match="strength=-1"):
        GradientNorm(strength=-1)
