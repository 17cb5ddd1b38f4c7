"""Balls of displacements: nearest points, directions, and even starts."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training.perturbations._ascent import (
    ascend,
    ascent_direction,
    project,
    random_start,
)

NORM = {
    "linf": lambda d: d.flatten(1).abs().amax(1),
    "l2": lambda d: d.flatten(1).norm(dim=1),
}


@pytest.fixture
def d():
    g = torch.Generator().manual_seed(0)
    # From well inside of the balls to far outside.
    size = torch.linspace(0.05, 2.0, 40, dtype=torch.float64)[:, None, None]
    return size * torch.randn(40, 3, 7, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_is_the_nearest_point_of_the_ball(d, norm):
    found = project(d, 1.5, norm)
    assert (NORM[norm](found) <= 1.5 + 1e-12).all()
    inside = NORM[norm](d) <= 1.5
    assert 0 < inside.sum() < 40
    assert torch.equal(found[inside], d[inside])
    # No other point of the ball is nearer: <d - found, z - found> <= 0 for all z.
    z = random_start(d, 1.5, norm, torch.Generator().manual_seed(1))
    assert (((d - found) * (z - found)).flatten(1).sum(1) <= 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_direction_of_size_1_raises_a_linear_loss_more(d, norm):
    g = torch.Generator().manual_seed(2)
    up = ascent_direction(d, norm)
    assert torch.allclose(NORM[norm](up), torch.ones(40, dtype=d.dtype))
    others = torch.randn(500, *d.shape, generator=g, dtype=d.dtype)
    others /= torch.stack([NORM[norm](o) for o in others])[:, :, None, None]
    best = (others * d).flatten(2).sum(2).amax(0)
    assert ((up * d).flatten(1).sum(1) > best).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_fill_the_ball_evenly(norm):
    like = torch.zeros(20_000, 1, 3)
    eps = torch.linspace(0.1, 2.0, len(like))
    start = random_start(like, eps, norm, torch.Generator().manual_seed(3))
    # The share of the volume that is nearer than the point is uniform.
    share = (NORM[norm](start) / eps) ** 3
    assert share.max() <= 1 + 1e-5
    wanted = torch.linspace(0, 1, len(like))
    assert (share.sort().values - wanted).abs().max() < 1.63 / len(like) ** 0.5


def test_each_trial_may_have_its_own_radius_and_step(d):
    eps = torch.linspace(0, 1, len(d), dtype=d.dtype)
    end = ascend(lambda x: d, torch.zeros_like(d), eps=eps, step_size=eps, n_steps=3)
    assert torch.equal(end, eps[:, None, None] * d.sign())


def test_a_gradient_of_zero_and_a_radius_of_zero_give_no_nan():
    zero = torch.zeros(2, 3, 4)
    for norm in ("linf", "l2"):
        assert torch.equal(ascent_direction(zero, norm), zero)
        assert torch.equal(project(zero + 1, 0.0, norm), zero)
        assert torch.equal(project(zero, 0.0, norm), zero)


def test_gradients_that_would_underflow_have_a_direction():
    g = torch.full((1, 2, 2), 1e-30)
    assert torch.allclose(ascent_direction(g, "l2"), torch.full((1, 2, 2), 0.5))


def test_unknown_norms_are_refused(d):
    with pytest.raises(EEGTensorError, match="norm='l1'"):
        project(d, 1.0, "l1")
