"""Gradients through codes, against what they are defined to be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eegtensor.codebook import VectorQuantizer, rotate_through, straight_through


def pairs(dim: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(40, dim, generator=g, dtype=torch.float64) for _ in range(3)
    )


def test_straight_through_is_the_identity() -> None:
    z, q, incoming = pairs()
    z.requires_grad_()
    out = straight_through(z, q)
    torch.testing.assert_close(out, q)
    out.backward(incoming)
    assert torch.equal(z.grad, incoming)


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_rotation_turns_the_gradient_with_the_vector(scale: float) -> None:
    z, q, incoming = pairs()
    z, q = scale * z, 3 * scale * q
    z.requires_grad_()
    out = rotate_through(z, q)
    assert torch.equal(out, q)
    out.backward(incoming)
    # Referee: the turn in the plane of z and q, by its angle, in a basis of it.
    for v, c, g, got in zip(z.detach(), q, incoming, z.grad, strict=True):
        a, b = v / v.norm(), c / c.norm()
        cos = a @ b
        w = (b - cos * a) / (b - cos * a).norm()
        sin = b @ w
        turn = (
            torch.eye(5, dtype=v.dtype)
            + (cos - 1) * (torch.outer(a, a) + torch.outer(w, w))
            + sin * (torch.outer(w, a) - torch.outer(a, w))
        )
        torch.testing.assert_close(turn @ v * c.norm() / v.norm(), c)
        torch.testing.assert_close(got, c.norm() / v.norm() * turn.T @ g)


def test_rotation_where_there_is_nothing_to_turn() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 0.0]], requires_grad=True)
    q = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-2.0, 0.0]])
    out = rotate_through(z, q)
    assert torch.equal(out, q)
    out.sum().backward()
    assert torch.equal(z.grad[:2], torch.ones(2, 2))
    # Opposite: any half turn in a plane is as good, but finite.
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("gradient", ["straight-through", "rotation"])
def test_the_module_passes_it(gradient: str) -> None:
    z, _, incoming = pairs()
    module = VectorQuantizer(5, 8, gradient=gradient).double().eval()
    z.requires_grad_()
    out = module(z)
    out.values.backward(incoming)
    got, z.grad = z.grad.clone(), None
    pass_on = rotate_through if gradient == "rotation" else straight_through
    pass_on(z, module.decode(out.ids)).backward(incoming)
    torch.testing.assert_close(got, z.grad)
