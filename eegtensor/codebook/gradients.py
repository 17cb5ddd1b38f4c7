"""What gradient a vector gets through its code, which has none."""

from __future__ import annotations

import torch
from torch import Tensor

GRADIENTS = ("straight-through", "rotation")


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """Return the codes, with the gradient of the identity.

    Source: van den Oord et al. 2017, "Neural discrete representation learning",
    section 3.2.

    Parameters
    ----------
    z, quantised : Tensor, shape (..., dim)
    """
    # Zero with a gradient: the value stays the code to the last digit.
    return quantised.detach() + (z - z.detach())


def rotate_through(z: Tensor, quantised: Tensor) -> Tensor:
    """Return the codes, as the vectors turned and stretched onto them.

    The turn R and the stretch s = ||q|| / ||z|| count as constants, so that a
    gradient g arrives at z as s R^T g: its angle to z is what it was to the code.
    Source: Fifty et al. 2024, "Restructuring vector quantization with the rotation
    trick", equation 4.

    Parameters
    ----------
    z, quantised : Tensor, shape (..., dim)
        A vector or a code of norm zero cannot be turned: there the gradient is that
        of the identity.
    """
    q = quantised.detach()
    size, reach = (x.detach().norm(dim=-1, keepdim=True) for x in (z, q))
    turns = (size > 0) & (reach > 0)
    start = z.detach() / torch.where(turns, size, 1.0)
    end = q / torch.where(turns, reach, 1.0)
    between = torch.nn.functional.normalize(start + end, dim=-1)
    turned = (
        z
        - 2 * between * (between * z).sum(dim=-1, keepdim=True)
        + 2 * end * (start * z).sum(dim=-1, keepdim=True)
    )
    moved = turned * torch.where(turns, reach, 1.0) / torch.where(turns, size, 1.0)
    moved = torch.where(turns, moved, z)
    return q + (moved - moved.detach())


def pass_gradient(z: Tensor, quantised: Tensor, gradient: str) -> Tensor:
    """Return the codes with one of the `GRADIENTS`."""
    if gradient == "rotation":
        return rotate_through(z, quantised)
    return straight_through(z, quantised)
