"""Cholesky factors of matrices that may be singular.

A factor costs a tenth of an eigendecomposition and whitens as well as a square
root does: distances and geodesics do not depend on which of the two is used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.geometry._batched_eigh import definite as _definite
from eegtensor.geometry._scalar import IDENTITY
from eegtensor.geometry.spectral import _eager_cpu, spectral, symmetrize


def definite_factor(A: Tensor, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """Return symmetric A, raised where it is singular, and its Cholesky factor.

    Eigenvalues are raised to rounding of the trace, so that matrices which lack
    the same directions (an average reference) stay at a finite distance.

    Parameters
    ----------
    A : Tensor, shape (..., n, n)
    eps : float | None
        Relative rounding of A; by default that of its dtype.

    Returns
    -------
    A : Tensor, shape (..., n, n)
    L : Tensor, shape (..., n, n), lower triangular

    Raises
    ------
    EEGTensorError
        On the CPU, if a matrix is not finite or its trace is not positive.
    """
    A = symmetrize(A)
    L, info = torch.linalg.cholesky_ex(A)
    n = A.shape[-1]
    rounding = 2.0 * math.sqrt(n) * (eps or torch.finfo(A.dtype).eps)
    trace = A.detach().diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    pivot = L.detach().diagonal(dim1=-2, dim2=-1).amin(dim=-1)
    weak = (info > 0) | (pivot**2 <= rounding * trace)
    if not _eager_cpu(A):
        # No look at the values: the trace bounds what rounding took away.
        low = torch.where(weak, rounding * trace, 0.0)
        A = A + low[..., None, None] * torch.eye(n, dtype=A.dtype, device=A.device)
        return A, torch.linalg.cholesky_ex(A)[0]
    if not bool(weak.any()):
        return A, L
    _check_trace(trace)
    raised = spectral(A, IDENTITY, floor=rounding * n)
    A = torch.where(weak[..., None, None], symmetrize(raised), A)
    return A, torch.linalg.cholesky_ex(A)[0]


def definite(X: Tensor, share: float) -> Tensor:
    """Return which symmetric X - share tr(X) I are positive definite, bool (...).

    Without gradient, and a twentieth of the cost of their eigenvalues.
    """
    found = _definite(X, share)
    if found is not None:
        return found
    with torch.no_grad():
        shifted = X.detach().clone()
        diagonal = shifted.diagonal(dim1=-2, dim2=-1)
        diagonal -= share * diagonal.sum(dim=-1, keepdim=True)
        return torch.linalg.cholesky_ex(shifted).info == 0


def _check_trace(trace: Tensor) -> None:
    bad = (trace.flatten() <= 0).nonzero()[:, 0]
    if len(bad):
        fail(
            f"Matrices {listing(bad.tolist())} have no positive trace",
            why="They are no covariance matrices: zero (a constant trial) or negative",
            fix="drop constant trials and check where the matrices come from",
        )


def left_solve(L: Tensor, V: Tensor) -> Tensor:
    """Return L^-1 V of a lower triangular L."""
    if L.ndim == 2 and V.ndim > 2:
        # One factor for many matrices: its inverse makes it one matrix product.
        eye = torch.eye(len(L), dtype=L.dtype, device=L.device)
        return torch.linalg.solve_triangular(L, eye, upper=False) @ V
    return torch.linalg.solve_triangular(L, V, upper=False)


def whiten(L: Tensor, V: Tensor) -> Tensor:
    """Return the symmetric L^-1 V L^-T of a symmetric V."""
    return symmetrize(left_solve(L, left_solve(L, V).mT))


def square(Z: Tensor) -> Tensor:
    """Return the symmetric Z Z'."""
    out: Tensor = symmetrize(Z @ Z.mT)
    return out


def frobenius(X: Tensor) -> Tensor:
    """Return the Frobenius norm, shape (...), with the gradient 0 at X = 0."""
    squared = (X**2).sum(dim=(-1, -2))
    zero = squared == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())
