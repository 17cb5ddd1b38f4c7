"""The Bures-Wasserstein metric: optimal transport between centred Gaussians.

A tangent vector V at A has one symmetric X with A X + X A = V (Lyapunov), and
<U, V>_A = tr(X_U A X_V) = tr(X_U V) / 2 (Takatsu 2011; Bhatia et al. 2019).
Distances scale with the square root of the unit of A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor.geometry._cholesky import definite_factor, frobenius
from eegtensor.geometry._lyapunov import lyapunov, lyapunov_solver
from eegtensor.geometry._scalar import SQRT
from eegtensor.geometry._search import Step
from eegtensor.geometry._segments import Segments
from eegtensor.geometry._transport import carry
from eegtensor.geometry.spectral import (
    congruence,
    eigh,
    positive,
    spectral,
    symmetrize,
)


def optimal_map(A: Tensor, B: Tensor) -> Tensor:
    """Return the SPD matrix T with T A T = B."""
    L = definite_factor(A)[1]
    S = _root(L, definite_factor(B)[0])
    return congruence(_inverse(L).mT, S)


def _root(L: Tensor, B: Tensor) -> Tensor:
    """Return (L' B L)^(1/2)."""
    return spectral(congruence(L.mT, B), SQRT)


def horizontal(L: Tensor, B: Tensor) -> Tensor:
    """Return (T - I) L, whose Frobenius norm is the distance of B from L L'."""
    moved = _root(L, B) - L.mT @ L
    return torch.linalg.solve_triangular(L.mT, moved, upper=True)


def _inverse(L: Tensor) -> Tensor:
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    return torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False)


def distance(A: Tensor, B: Tensor) -> Tensor:
    """Return (tr A + tr B - 2 tr (L' B L)^(1/2))^(1/2), shape (...).

    Computed as ||(T - I) L||, which does not cancel where A and B are close.
    """
    same = (A == B).all(dim=-1).all(dim=-1)[..., None, None]
    move = horizontal(definite_factor(A)[1], definite_factor(B)[0])
    return frobenius(torch.where(same, 0.0, move))


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
    T = optimal_map(A, B)
    eye = torch.eye(A.shape[-1], dtype=T.dtype, device=T.device)
    half = (T - eye) @ symmetrize(A)
    return half + half.mT


def geodesic(A: Tensor, B: Tensor, t: float | Tensor) -> Tensor:
    """Return W A W with W = (1 - t) I + t T."""
    T = optimal_map(A, B)
    eye = torch.eye(A.shape[-1], dtype=T.dtype, device=T.device)
    weight = torch.as_tensor(t, dtype=T.dtype, device=T.device)[..., None, None]
    return congruence(eye + weight * (T - eye), symmetrize(A))


def transport(A: Tensor, B: Tensor, V: Tensor) -> Tensor:
    """Return V carried in parallel from A to B.

    There is no closed form; the equation of parallel transport along the geodesic
    is integrated by Gauss collocation, to rounding unless A or B is singular.
    """
    A = definite_factor(A)[0]
    moved = carry(A, optimal_map(A, B), lyapunov(A, V))
    half = moved @ definite_factor(B)[0]
    return half + half.mT


def exp_transport(A: Tensor, V: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp_A(V) and W carried there."""
    A = definite_factor(A)[0]
    solve = lyapunov_solver(A)
    T = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device) + solve(V)
    B = congruence(T, A)
    half = carry(A, T, solve(W)) @ B
    return B, half + half.mT


def barycenter_step(mean: Tensor, X: Tensor, segments: Segments) -> Step:
    """Return T M T with the mean map T = sum_i w_i T_i, and how far that moves.

    Parameters
    ----------
    mean : Tensor, shape (n_segments, n, n)
    X : Tensor, shape (n_matrices, n, n)
    segments : Segments

    Returns
    -------
    mean : Tensor, shape (n_segments, n, n)
    size : Tensor, shape (n_segments,)
        Distance moved, relative to the square root of the trace.
    """
    L = definite_factor(mean)[1]
    S = segments.total(_root(segments.spread(L), X))
    moved = torch.linalg.solve_triangular(L.mT, S, upper=True)
    size = (moved - L).flatten(1).norm(dim=1) / L.flatten(1).norm(dim=1)
    return symmetrize(moved @ moved.mT), size


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
