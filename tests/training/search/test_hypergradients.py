"""Hypergradients pushed forward along random directions."""

from __future__ import annotations

import math

import torch
from torch.func import grad

from eegtensor.geometry import SPD
from eegtensor.training.adapters import Stiefel
from eegtensor.training.recipes import forward_hypergradient, gradient_step, tune
from eegtensor.training.recipes.hypergradients import _moved
from eegtensor.training.space import ParamSpace


def quadratic(p=5, seed=0):
    """An inner quadratic whose targets phi are, and the outer gradient by autograd."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(p, p, generator=g, dtype=torch.float64)
    A = A @ A.mT / p + 0.1 * torch.eye(p)
    theta, phi, target = torch.randn(3, p, generator=g, dtype=torch.float64)

    def loss(th, ph, t):
        return 0.5 * (th - ph) @ A @ (th - ph) + 0.1 * ph.square().sum() * th.sum()

    def outer(th, ph):
        return (th - target).square().sum() + 0.05 * ph.square().sum()

    return gradient_step(loss, 0.1), outer, theta, phi


def whole(inner, outer, theta, phi, n_steps):
    def value(ph):
        th = theta
        for t in range(n_steps):
            th = inner(th, ph, t)
        return outer(th, ph)

    return grad(value)(phi), value(phi)


def test_all_signs_together_give_the_gradient_exactly():
    inner, outer, theta, phi = quadratic(3)
    wanted, value = whole(inner, outer, theta, phi, 20)
    g = torch.Generator().manual_seed(1)
    found = [
        forward_hypergradient(inner, outer, theta, phi, 20, generator=g)
        for _ in range(3)
    ]
    assert all(torch.allclose(f.value, value) for f in found)

    # Along v: <g, v>, for every v there is.
    class Signs:
        pass

    total = torch.zeros_like(phi)
    import itertools

    from eegtensor.training.recipes import hypergradients as module

    for v in itertools.product((-1.0, 1.0), repeat=3):
        v = torch.tensor(v, dtype=phi.dtype)[None]
        tangents, th = theta.new_zeros(1, 3), theta
        for t in range(20):
            th, tangents = module._push(
                lambda a, b, t=t: inner(a, b, t), th, phi, tangents, v
            )
        total += (module._push(outer, th, phi, tangents, v)[1][:, None] * v)[0] / 8
    torch.testing.assert_close(total, wanted, atol=1e-12, rtol=1e-12)


def test_error_is_what_theory_says_and_falls_with_the_root():
    inner, outer, theta, phi = quadratic()
    wanted, _ = whole(inner, outer, theta, phi, 20)
    g = torch.Generator().manual_seed(0)

    def error(b, repeats):
        squares = []
        for _ in range(repeats):
            found = forward_hypergradient(
                inner, outer, theta, phi, 20, n_directions=b, generator=g
            )
            squares.append((found.gradient - wanted).square().sum())
        return float(torch.stack(squares).mean().sqrt() / wanted.norm())

    assert abs(error(20_000, 2) / math.sqrt(4 / 20_000) - 1) < 0.5
    few, many = error(16, 24), error(1024, 8)
    slope = math.log(many / few) / math.log(1024 / 16)
    assert -0.6 < slope < -0.4
    assert abs(few / math.sqrt(4 / 16) - 1) < 0.25


def test_differences_are_the_same_directions():
    inner, outer, theta, phi = quadratic()
    a, b = (
        forward_hypergradient(
            inner,
            outer,
            theta,
            phi,
            20,
            n_directions=3,
            generator=torch.Generator().manual_seed(2),
            difference=mu,
        )
        for mu in (None, 1e-5)
    )
    torch.testing.assert_close(a.gradient, b.gradient, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(a.theta, b.theta)


def test_ridge_is_tuned_to_where_a_grid_finds_it():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(30, generator=g, dtype=torch.float64)
    X = torch.randn(60, 30, generator=g, dtype=torch.float64)
    V = torch.randn(300, 30, generator=g, dtype=torch.float64)
    y = X @ w + 5.0 * torch.randn(60, generator=g, dtype=torch.float64)
    z = V @ w + 5.0 * torch.randn(300, generator=g, dtype=torch.float64)

    def loss(th, ph, t):
        return (X @ th - y).square().mean() / 2 + ph.exp().sum() * th.square().sum() / 2

    def outer(th, ph):
        return (V @ th - z).square().mean()

    inner, start = gradient_step(loss, 0.15), torch.zeros(30, dtype=torch.float64)

    def value(log_ridge):
        th = start
        for t in range(30):
            th = inner(th, log_ridge, t)
        return float(outer(th, log_ridge))

    grid = torch.linspace(-3, 1, 33, dtype=torch.float64)[:, None]
    best = float(grid[int(torch.tensor([value(r) for r in grid]).argmin()), 0])
    phi = torch.full((1,), -3.0, dtype=torch.float64)
    tune(inner, outer, start, phi, 30, n_outer=36, lr=0.25, n_directions=1)
    # The grid's step is .125; 10 % of lambda is .1 of its logarithm.
    assert abs(float(phi) - best) < 0.1 + 0.0625, (float(phi), best)


def test_weights_on_manifolds_stay_there(toy):
    net = toy(dtype=torch.float64, dropout=0.0)
    space = ParamSpace(net)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 8, generator=g, dtype=torch.float64)
    theta = {n: p for n, p in space.snapshot().items() if n in ("frame", "shape")}
    space.adapters = {n: space.adapters[n] for n in theta}

    def loss(th, ph, t):
        h = x @ th["frame"] @ th["shape"]
        return (h.tanh() * ph.exp()).square().mean()

    def outer(th, ph):
        return (x @ th["frame"] @ th["shape"])[:, 0].mean()

    phi = torch.zeros(3, dtype=torch.float64)
    inner = gradient_step(loss, 0.3, space)
    a, b = (
        forward_hypergradient(
            inner,
            outer,
            theta,
            phi,
            5,
            n_directions=2,
            generator=torch.Generator().manual_seed(0),
            difference=mu,
        )
        for mu in (None, 1e-5)
    )
    assert a.gradient.abs().max() > 1e-6
    torch.testing.assert_close(a.gradient, b.gradient, atol=1e-8, rtol=1e-5)
    frame = a.theta["frame"]
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-10
    assert (frame - theta["frame"]).abs().max() > 1e-4


def test_steps_of_matrices_are_of_second_order():
    g = torch.Generator().manual_seed(0)
    a, s = torch.randn(2, 3, 3, generator=g, dtype=torch.float64)
    P, u = a @ a.mT + torch.eye(3), s + s.mT
    frame = torch.linalg.qr(torch.randn(4, 2, generator=g, dtype=torch.float64))[0]
    v = torch.randn(4, 2, generator=g, dtype=torch.float64)
    for kind, p, d, end in (
        ("spd", P, u, SPD().expmap),
        ("stiefel", frame, v, lambda p, d: Stiefel().retract(p, d)),
    ):
        if kind == "stiefel":
            d = d - frame @ (frame.mT @ d + d.mT @ frame) / 2
        errors = [
            float((_moved(kind, p, t * d) - end(p, t * d)).norm()) for t in (0.1, 0.01)
        ]
        # The error falls with the third power; the polar factor has none.
        assert errors[1] < 2e-3 * errors[0] + 1e-12, kind
