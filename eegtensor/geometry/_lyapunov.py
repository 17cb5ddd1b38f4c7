"""The Lyapunov equation A X + X A = V of SPD matrices A."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eegtensor.geometry.spectral import eigh, positive, symmetrize


def lyapunov(A: Tensor, V: Tensor) -> Tensor:
    """Return the symmetric X with A X + X A = V, shape (..., n, n).

    Parameters
    ----------
    A : Tensor, shape (..., n, n), SPD
    V : Tensor, shape (..., n, n), symmetric
    """
    return lyapunov_solver(A)(V)


def lyapunov_solver(A: Tensor) -> Callable[[Tensor], Tensor]:
    """Return V -> X for many V from one decomposition of A."""
    A = symmetrize(A)
    values, U = eigh(A)
    values = positive(values)

    def solve(V: Tensor) -> Tensor:
        X: Tensor = _Lyapunov.apply(  # type: ignore[no-untyped-call]
            A, symmetrize(V), values, U
        )
        return X

    return solve


class _Lyapunov(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, A: Tensor, V: Tensor, values: Tensor, U: Tensor) -> Tensor:
        X = _divide(values, U, V)
        ctx.save_for_backward(A, values, U, X)
        return X

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor, Tensor, None, None]:
        A, values, U, X = ctx.saved_tensors
        G = symmetrize(G)
        # The equation is its own adjoint; applied, not computed, for second
        # derivatives.
        Y: Tensor = _Lyapunov.apply(A, G, values, U)  # type: ignore[no-untyped-call]
        return -(Y @ X + X @ Y), Y, None, None


def _divide(values: Tensor, U: Tensor, V: Tensor) -> Tensor:
    # In the eigenbasis of A the equation is one division an entry.
    total = values[..., :, None] + values[..., None, :]
    return symmetrize(U @ ((U.mT @ V @ U) / total) @ U.mT)
