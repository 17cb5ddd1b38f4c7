"""What can be spared where nothing is traced and no gradient is wanted."""

from __future__ import annotations

import torch
from torch import Tensor


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Return whether what is made of these tensors now is to be differentiated."""
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )


def times(A: Tensor, B: Tensor) -> Tensor:
    """Return A @ B without what matmul does before: for small matrices a third."""
    plain = A.ndim == B.ndim == 3 and not torch.compiler.is_compiling()
    return torch.bmm(A, B) if plain and A.shape[0] == B.shape[0] else A @ B
