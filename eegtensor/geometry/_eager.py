"""What can be spared where nothing is traced and no gradient is wanted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eegtensor._check import fail


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Return whether what is made of these tensors now is to be differentiated."""
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )


def refuse_tangents(X: Tensor) -> None:
    """Raise for a matrix, or a power, that carries a forward-mode derivative.

    What is compiled, or detached, would silently go on with a derivative of zero.
    """
    # One look at a counter where no forward mode is on.
    if torch.compiler.is_compiling() or forward_ad.unpack_dual(X).tangent is None:
        return
    fail(
        "A function of eigenvalues has no derivative in forward mode",
        why="Its exact derivatives, first and second, come by backward passes",
        fix="use torch.autograd.functional.jvp(strict=True), which takes two of them, "
        "in place of torch.func.jvp, jacfwd or forward_ad",
    )


def times(A: Tensor, B: Tensor) -> Tensor:
    """Return A @ B without what matmul does before: for small matrices a third."""
    plain = A.ndim == B.ndim == 3 and not torch.compiler.is_compiling()
    return torch.bmm(A, B) if plain and A.shape[0] == B.shape[0] else A @ B
