"""The affine-invariant metric: <U, V>_A = tr(A^-1 U A^-1 V).

With any factor A = L L' every formula holds as with the square root: what lies
between L and L' changes by a rotation only. A Cholesky factor saves an
eigendecomposition in each function (Pennec et al. 2006; Bhatia 2007, ch. 6).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor.geometry._cholesky import (
    definite_factor,
    frobenius,
    left_solve,
    whiten,
)
from eegtensor.geometry._scalar import EXP, LOG, SQRT
from eegtensor.geometry.spectral import (
    _eager_cpu,
    congruence,
    eigvalsh,
    positive,
    powm,
    spectral,
    symmetrize,
)


def _relative(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor L of A and L^-1 B L^-T."""
    A, L = definite_factor(A)
    B, factor = definite_factor(B)
    half = left_solve(L, factor)
    Y = symmetrize(half @ half.mT)
    n = A.shape[-1]
    eye = torch.eye(n, dtype=Y.dtype, device=Y.device)
    near = (Y.detach() - eye).abs().amax(dim=(-1, -2), keepdim=True) < 0.5 / n
    if not _eager_cpu(Y) or bool(near.any()):
        # Close points: the difference has the digits that the quotient loses, and
        # equal points give the identity without rounding.
        Y = torch.where(near, eye + whiten(L, B - A), Y)
    return L, Y


def distance(A: Tensor, B: Tensor) -> Tensor:
    """Return ||log(L^-1 B L^-T)||, shape (...)."""
    Y = _relative(A, B)[1]
    # Eigenvalues alone are cheaper, but have no gradient where they repeat.
    if Y.requires_grad:
        return frobenius(spectral(Y, LOG))
    return positive(eigvalsh(Y)).log().square().sum(dim=-1).sqrt()


def inner(A: Tensor, U: Tensor, V: Tensor) -> Tensor:
    """Return tr(A^-1 U A^-1 V), shape (...)."""
    L = definite_factor(A)[1]
    return (whiten(L, U) * whiten(L, V)).sum(dim=(-1, -2))


def exp_map(A: Tensor, V: Tensor) -> Tensor:
    """Return L exp(L^-1 V L^-T) L'."""
    L = definite_factor(A)[1]
    return congruence(L, spectral(whiten(L, symmetrize(V)), EXP))


def log_map(A: Tensor, B: Tensor) -> Tensor:
    """Return L log(L^-1 B L^-T) L'."""
    L, Y = _relative(A, B)
    return congruence(L, spectral(Y, LOG))


def geodesic(A: Tensor, B: Tensor, t: float | Tensor) -> Tensor:
    """Return L (L^-1 B L^-T)^t L'."""
    L, Y = _relative(A, B)
    return congruence(L, powm(Y, t))


def transport(A: Tensor, B: Tensor, V: Tensor) -> Tensor:
    """Return T V T' with T = (B A^-1)^(1/2) = L (L^-1 B L^-T)^(1/2) L^-1."""
    L, Y = _relative(A, B)
    root = L @ spectral(Y, SQRT)
    return congruence(root, whiten(L, symmetrize(V)))


def exp_transport(A: Tensor, V: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp_A(V) and W carried there, from one decomposition."""
    L = definite_factor(A)[1]
    half = L @ spectral(0.5 * whiten(L, symmetrize(V)), EXP)
    return symmetrize(half @ half.mT), congruence(half, whiten(L, symmetrize(W)))


def from_frame(A: Tensor, N: Tensor) -> Tensor:
    """Return the tangent vector at A with coordinates N in an orthonormal frame."""
    return congruence(definite_factor(A)[1], symmetrize(N))


def gradient(A: Tensor, G: Tensor) -> Tensor:
    """Return the Riemannian gradient A G A of a Euclidean gradient G."""
    return congruence(A, symmetrize(G))
