"""The affine-invariant mean: an inexact Newton method and its exact gradient."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from eegtensor.geometry._cholesky import definite_factor, square
from eegtensor.geometry._scalar import LOG
from eegtensor.geometry._search import Move, search
from eegtensor.geometry._segments import Segments
from eegtensor.geometry.spectral import (
    congruence,
    eigh,
    from_eig,
    positive,
    symmetrize,
)

# Singular matrices are raised above what rounding makes of their mean's zeros.
SINGULAR = 8.0 * torch.finfo(torch.float64).eps


def karcher_mean(
    X: Tensor, segments: Segments, start: Tensor, tol: float, max_iter: int
) -> Tensor:
    """Return the affine-invariant mean of each segment, shape (n_segments, n, n).

    Gradients with respect to X and the weights are those of the exact mean, by
    the implicit function theorem: they do not depend on start or iterations.

    Parameters
    ----------
    X : Tensor, shape (n_matrices, n, n)
    segments : Segments
    start : Tensor, shape (n_segments, n, n)
    tol : float
    max_iter : int
    """
    X, factors = definite_factor(X, SINGULAR)
    mean: Tensor = _KarcherMean.apply(  # type: ignore[no-untyped-call]
        X, segments.share, factors.detach(), segments, start, tol, max_iter
    )
    return mean


class _KarcherMean(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        X: Tensor,
        share: Tensor,
        factors: Tensor,
        segments: Segments,
        start: Tensor,
        tol: float,
        max_iter: int,
    ) -> Tensor:
        mover = functools.partial(_move, tol=tol)
        frames = search(mover, factors, segments, frames_at(start), tol, max_iter)
        mean = square(frames[:, 0])
        ctx.segments = segments._replace(share=share.detach())
        ctx.save_for_backward(factors, frames)
        return mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, G: Tensor) -> Any:
        factors, frames = ctx.saved_tensors
        segments = ctx.segments
        root, whitener = frames[:, 0], segments.spread(frames[:, 1])
        values, U = _whitened(frames, factors, segments)
        logs = values.log()
        # At the mean sum_i share_i log(Y_i) = 0 with Y_i = L^-1 X_i L^-T, M = L L'.
        # Its differential is -Hessian(L^-1 dM L^-T) + sum_i share_i Dlog(dY_i).
        right = congruence(root.mT, symmetrize(G))
        goal = 1e-14 * right.flatten(1).norm(dim=1)
        push, _ = _solve(_Hessian(logs, U, segments), right, goal, 100)
        turned = U.mT @ segments.spread(push) @ U
        by_share = (turned.diagonal(dim1=-2, dim2=-1) * logs).sum(-1)
        a, b = values[:, :, None], values[:, None, :]
        by_Y = U @ (LOG.divided(a, b, a - b) * turned) @ U.mT
        by_X = congruence(whitener.mT, by_Y * segments.share[:, None, None])
        return by_X, by_share, None, None, None, None, None


def frames_at(centers: Tensor) -> Tensor:
    """Return factors L of centers L L' and their inverses, (n_segments, 2, n, n)."""
    L = definite_factor(centers)[1]
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    inverse = torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False)
    return torch.stack([L, inverse], dim=1)


def move_frames(frames: Tensor, V: Tensor) -> Tensor:
    """Return the frames of L exp(V) L', carried along without a new factor.

    A factor of the product would lose the digits of its small eigenvalues.
    """
    values, U = eigh(V)
    root = from_eig((0.5 * values).exp(), U)
    inverse = from_eig((-0.5 * values).exp(), U)
    return torch.stack([frames[:, 0] @ root, inverse @ frames[:, 1]], dim=1)


def _whitened(
    frames: Tensor, factors: Tensor, segments: Segments
) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues and eigenvectors of L^-1 X_i L^-T."""
    half = segments.spread(frames[:, 1]) @ factors
    values, vectors = eigh(half @ half.mT)
    return positive(values), vectors


def _move(frames: Tensor, factors: Tensor, segments: Segments, tol: float) -> Move:
    values, vectors = _whitened(frames, factors, segments)
    logs = values.log()
    gradient = segments.total(from_eig(logs, vectors))
    squared = (gradient**2).sum(dim=(1, 2))
    # The direction needs no more digits than float32 has; what that leaves is in
    # the gradient of the next step.
    coarse = torch.float32 if values.device.type == "cpu" else values.dtype
    hessian = _Hessian(logs.to(coarse), vectors.to(coarse), segments)
    # No line search: on a space of nonpositive curvature the Hessian is at least
    # the identity, so that a Newton step is never longer than the gradient, and
    # clusters 1e20 apart converge too.
    last = bool((squared < tol).all())
    step, left = _solve(hessian, gradient, tol - squared, 8 if last else 3)
    # What the linear solve left, plus the square of the gradient, which bounds
    # what curvature adds: the gradient after the step.
    reach = functools.partial(move_frames, frames)
    return Move(symmetrize(step), reach, left + squared)


class _Hessian:
    """Hessian of half the weighted squared distance at the identity.

    In the eigenbasis of a whitened matrix with log-eigenvalues l it multiplies
    entry (j, k) by x coth(x) >= 1, x = (l_j - l_k) / 2 (Karcher 1977).
    """

    def __init__(self, logs: Tensor, vectors: Tensor, segments: Segments) -> None:
        x = 0.5 * (logs[:, :, None] - logs[:, None, :])
        self.curvature = torch.where(x == 0, 1.0, x / torch.tanh(x))
        self.vectors = vectors
        self.segments = segments._replace(share=segments.share.to(vectors.dtype))

    def __call__(self, V: Tensor) -> Tensor:
        U = self.vectors
        turned = U.mT @ self.segments.spread(V.to(U.dtype)) @ U
        moved = self.segments.total(U @ (self.curvature * turned) @ U.mT)
        return moved.to(V.dtype)


def _solve(
    hessian: _Hessian, right: Tensor, goal: Tensor, n_steps: int
) -> tuple[Tensor, Tensor]:
    """Solve hessian(step) = right in each segment by conjugate gradients.

    The spectrum is narrow: three steps bring the error down some ten thousand
    times.

    Parameters
    ----------
    hessian : _Hessian
    right : Tensor, shape (n_segments, n, n)
    goal : Tensor, shape (n_segments,)
        Norm of what may be left of the right side.
    n_steps : int
        Largest number of steps.

    Returns
    -------
    step : Tensor, shape (n_segments, n, n)
    left : Tensor, shape (n_segments,)
    """

    def inner(U: Tensor, V: Tensor) -> Tensor:
        return (U * V).sum(dim=(1, 2), keepdim=True)

    step, residual, direction = torch.zeros_like(right), right, right
    norm = inner(residual, residual)
    for _ in range(n_steps):
        moved = hessian(direction)
        length = norm / inner(direction, moved).clamp_min(1e-300)
        step = step + length * direction
        residual = residual - length * moved
        previous, norm = norm, inner(residual, residual)
        if bool((norm.sqrt()[:, 0, 0] <= goal).all()):
            break
        direction = residual + norm / previous.clamp_min(1e-300) * direction
    return step, norm.sqrt()[:, 0, 0]
