"""The Bures-Wasserstein metric: optimal transport between centred Gaussians.

A tangent vector V at A has one symmetric X with A X + X A = V (Lyapunov), and
<U, V>_A = tr(X_U A X_V) = tr(X_U V) / 2 (Takatsu 2011; Bhatia et al. 2019).
Distances scale with the square root of the unit of A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor.geometry._cholesky import definite_factor, frobenius, square
from eegtensor.geometry._lyapunov import lyapunov, lyapunov_solver
from eegtensor.geometry._scalar import INV_SQRT
from eegtensor.geometry._search import Move, search, with_gradient
from eegtensor.geometry._segments import Segments
from eegtensor.geometry._transport import carry
from eegtensor.geometry.spectral import (
    congruence,
    eigh,
    positive,
    spectral,
    symmetrize,
)


def horizontal(L: Tensor, B: Tensor) -> Tensor:
    """Return H = (T - I) L of the optimal map T from L L' to B, for any square L.

    T is the SPD matrix with T L L' T = B. The geodesic is (L + t H) (L + t H)' and
    the distance the norm of H. No inverse of L is needed: T L = B L S^-1 with
    S = (L' B L)^(1/2).
    """
    inverse_root = spectral(congruence(L.mT, B), INV_SQRT)
    return B @ (L @ inverse_root) - L


def _lift(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor L of A and H."""
    L = definite_factor(A)[1]
    return L, horizontal(L, definite_factor(B)[0])


def distance(A: Tensor, B: Tensor) -> Tensor:
    """Return (tr A + tr B - 2 tr (L' B L)^(1/2))^(1/2), shape (...).

    Computed as ||H||, which does not cancel where A and B are close.
    """
    # Equal points: exactly 0, and a gradient of 0 where there is none.
    same = (A == B).all(dim=-1).all(dim=-1)[..., None, None]
    return frobenius(torch.where(same, 0.0, _lift(A, B)[1]))


def inner(A: Tensor, U: Tensor, V: Tensor) -> Tensor:
    """Return tr(X_U V) / 2, shape (...)."""
    return 0.5 * (lyapunov(A, U) * symmetrize(V)).sum(dim=(-1, -2))


def exp_map(A: Tensor, V: Tensor) -> Tensor:
    """Return (I + X) A (I + X); the geodesic is the shortest while I + X is SPD."""
    X = lyapunov(A, V)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return congruence(eye + X, A)


def log_map(A: Tensor, B: Tensor) -> Tensor:
    """Return (T - I) A + A (T - I)."""
    L, H = _lift(A, B)
    half = H @ L.mT
    return half + half.mT


def geodesic(A: Tensor, B: Tensor, t: float | Tensor) -> Tensor:
    """Return (L + t H) (L + t H)'."""
    L, H = _lift(A, B)
    weight = torch.as_tensor(t, dtype=L.dtype, device=L.device)[..., None, None]
    return square(L + weight * H)


def transport(A: Tensor, B: Tensor, V: Tensor) -> Tensor:
    """Return V carried in parallel from A to B.

    There is no closed form; the equation of parallel transport along the geodesic
    is integrated by Gauss collocation, to rounding unless A or B is singular.
    """
    L, H = _lift(A, B)
    # X = H L^-1 from the right.
    X = torch.linalg.solve_triangular(L, H, upper=False, left=False)
    A = square(L)
    half = carry(A, symmetrize(X), lyapunov(A, V)) @ symmetrize(B)
    return half + half.mT


def exp_transport(A: Tensor, V: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp_A(V) and W carried there."""
    A = definite_factor(A)[0]
    solve = lyapunov_solver(A)
    X = solve(V)
    B = congruence(torch.eye(A.shape[-1], dtype=A.dtype, device=A.device) + X, A)
    half = carry(A, X, solve(W)) @ B
    return B, half + half.mT


def barycenter(
    X: Tensor, segments: Segments, start: Tensor, tol: float, max_iter: int
) -> Tensor:
    """Return the mean of each segment, shape (n_segments, n, n), with its gradient.

    Parameters
    ----------
    X : Tensor, shape (n_matrices, n, n)
    segments : Segments
    start : Tensor, shape (n_segments, n, n)
    tol : float
    max_iter : int
    """
    X = definite_factor(X)[0]
    lift = definite_factor(start)[1]
    lift = search(lift_move, X, segments, lift, tol, max_iter, longest=2.0)
    return with_gradient(_mean_move, square(lift), X, segments)


def lift_move(Z: Tensor, X: Tensor, segments: Segments) -> Move:
    """Return the mean velocity of lifts from means Z Z' to matrices.

    Its size is the distance moved, relative to the square root of the trace.
    """
    H = segments.total(horizontal(segments.spread(Z), X))
    return Move(H, lambda S: Z + S, frobenius(H) / frobenius(Z))


def _mean_move(mean: Tensor, X: Tensor, segments: Segments) -> Move:
    L = definite_factor(mean)[1]
    move = lift_move(L, X, segments)
    return move._replace(reach=lambda S: square(L + S))


def from_frame(A: Tensor, N: Tensor) -> Tensor:
    """Return the tangent vector at A with coordinates N in an orthonormal frame."""
    values, U = eigh(symmetrize(A))
    values = positive(values)
    total = values[..., :, None] + values[..., None, :]
    return symmetrize(U @ ((2.0 * total).sqrt() * symmetrize(N)) @ U.mT)


def gradient(A: Tensor, G: Tensor) -> Tensor:
    """Return the Riemannian gradient 2 (G A + A G) of a Euclidean gradient G."""
    half = 2.0 * symmetrize(G) @ A
    return half + half.mT
