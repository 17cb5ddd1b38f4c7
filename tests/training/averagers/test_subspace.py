"""Frames: orthonormal, exact gradients, on manifolds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import ParamSpace
from eegtensor.training.subspace import (
    cross_gram,
    lower,
    orthonormal_frame,
    trajectory_frame,
)


@pytest.fixture
def space(toy):
    net = toy(dtype=torch.float64)
    net.gain = nn.Parameter(torch.tensor(0.7).double())
    a = torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        net.shape.copy_(a @ a.mT + 0.3 * torch.eye(3))
    return ParamSpace(net)


@pytest.fixture
def frame(space):
    g = torch.Generator().manual_seed(0)
    tangents = [space.random_tangent(g) for _ in range(5)]
    return orthonormal_frame(space, space.snapshot(), tangents)


def test_directions_are_orthonormal_in_the_metric(space, frame):
    assert len(frame) == 5
    for i in range(5):
        u = {n: d[i] for n, d in frame.directions.items()}
        for j in range(5):
            v = {n: d[j] for n, d in frame.directions.items()}
            found = float(space.inner(u, v, frame.base))
            assert found == pytest.approx(float(i == j), abs=1e-10)
    gram = cross_gram(space, frame.base, frame.directions, frame.directions)
    torch.testing.assert_close(gram, torch.eye(5).double(), rtol=0, atol=1e-10)


def test_coefficients_come_back(frame):
    a = 0.3 * torch.randn(5, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(
        frame.coefficients(frame.points(a)), a, rtol=0, atol=1e-9
    )


def test_gradients_of_coefficients_are_those_of_finite_differences(space, frame):
    g = torch.Generator().manual_seed(2)
    force = {
        n: torch.randn(p.shape, generator=g).double() for n, p in frame.base.items()
    }

    def value(a):
        return sum(float((force[n] * p).sum()) for n, p in frame.points(a).items())

    a = 0.3 * torch.randn(5, generator=g).double()
    found = frame.gradient(a, force)
    for j in range(5):
        e = torch.zeros(5).double()
        e[j] = 1e-5
        slope = (value(a + e) - value(a - e)) / 2e-5
        assert float(found[j]) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_projection_is_that_of_the_metric(space, frame):
    g = torch.Generator().manual_seed(2)
    force = {
        n: torch.randn(p.shape, generator=g).double() for n, p in frame.base.items()
    }
    kept = space.rgrad(frame.project(force), frame.base)
    whole = space.rgrad(force, frame.base)
    rest = {n: whole[n] - kept[n] for n in whole}
    for j in range(5):
        u = {n: d[j] for n, d in frame.directions.items()}
        assert float(space.inner(rest, u, frame.base)) == pytest.approx(0, abs=1e-9)
    again = space.rgrad(frame.project(frame.project(force)), frame.base)
    for n in kept:
        torch.testing.assert_close(again[n], kept[n], rtol=0, atol=1e-9)


def test_lowered_tangents_are_raised_by_the_gradient(space):
    u = space.random_tangent(torch.Generator().manual_seed(0))
    for n, p in space.points().items():
        back = space.adapters[n].rgrad(p, lower(space, n, p, u[n]))
        torch.testing.assert_close(back, u[n], rtol=0, atol=1e-10)


def test_principal_directions_are_those_of_a_singular_value_decomposition():
    net = nn.Linear(6, 3).double()
    space, g = ParamSpace(net), torch.Generator().manual_seed(0)
    states = [
        {n: torch.randn(p.shape, generator=g).double() for n, p in space.leaves.items()}
        for _ in range(8)
    ]
    frame = trajectory_frame(space, states, n_components=3)
    rows = torch.stack(
        [torch.cat([s[n].ravel() for n in space.leaves]) for s in states]
    )
    v = torch.linalg.svd(rows - rows.mean(dim=0))[2][:3]
    found = torch.cat([frame.directions[n].flatten(1) for n in space.leaves], dim=1)
    torch.testing.assert_close((found @ v.T).abs(), torch.eye(3).double())


def test_weights_that_do_not_move_have_no_direction(space):
    states = [space.snapshot()] * 3
    with pytest.raises(EEGTensorError, match="no direction"):
        trajectory_frame(space, states)
    with pytest.raises(EEGTensorError, match="1 recorded"):
        trajectory_frame(space, states[:1])
