"""Iterations for many segments at once, and the gradient of where they end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from eegtensor.geometry._segments import Segments

logger = logging.getLogger("eegtensor")


class Move(NamedTuple):
    """How an iteration goes on from its centers.

    Attributes
    ----------
    force : Tensor, shape (n_segments, n, n)
        A step in coordinates that hardly change from one center to the next.
    reach : callable
        Step -> new centers, shape (n_segments, n, n).
    size : Tensor, shape (n_segments,)
        How far from the end: before the step where steps are stretched, else after.
    """

    force: Tensor
    reach: Callable[[Tensor], Tensor]
    size: Tensor


Mover: TypeAlias = Callable[[Tensor, Tensor, Segments], Move]


@torch.no_grad()
def search(
    mover: Mover,
    X: Tensor,
    segments: Segments,
    start: Tensor,
    tol: float,
    max_iter: int,
    longest: float = 1.0,
) -> Tensor:
    """Return the centers where `mover` comes to rest, shape (n_segments, n, n).

    Parameters
    ----------
    mover : callable
        (centers, X, segments) -> `Move`.
    X : Tensor, shape (n_matrices, n, n)
    segments : Segments
    start : Tensor, shape (n_segments, n, n)
    tol : float
        A segment is done when its size is at most this, after the last step.
    max_iter : int
    longest : float
        Steps are stretched by .3 up to this factor, by the secant rule of Barzilai
        and Borwein (1988); 1 takes them as they are.
    """
    center = start.clone()
    active = torch.arange(len(center), device=X.device)
    pace = None
    for _ in range(max_iter):
        move = mover(center[active], X, segments)
        if longest > 1.0:
            pace = _next_pace(pace, move, longest)
            center[active] = move.reach(pace.stretch * move.force)
            going = pace.left > tol
        else:
            center[active] = move.reach(move.force)
            going = move.size > tol
        if not bool(going.any()):
            return center
        # Domains that are done leave the batch: they do not pay for the hard ones.
        if not bool(going.all()):
            chosen, segments = segments.keep(going)
            X, active = X[chosen], active[going]
            pace = None if pace is None else _Pace(*(part[going] for part in pace))
    logger.warning(
        "The center of %d set(s) of matrices stopped after %d iterations at %.1e "
        "(asked: %.1e); the matrices may be close to singular.",
        len(active),
        max_iter,
        float(move.size.max()),
        tol,
    )
    return center


class _Pace(NamedTuple):
    """What the last steps have shown of each segment.

    Attributes
    ----------
    stretch : Tensor, shape (n_segments, 1, 1)
        Factor of the step.
    force : Tensor, shape (n_segments, n, n)
        Of the last step.
    size, ratio, left : Tensor, shape (n_segments,)
        Size before the last step, relative to the step before; what the slower of
        the last two ratios leaves of it.
    """

    stretch: Tensor
    force: Tensor
    size: Tensor
    ratio: Tensor
    left: Tensor


def _next_pace(pace: _Pace | None, move: Move, longest: float) -> _Pace:
    force, size = move.force, move.size
    if pace is None:
        ones = torch.ones_like(size)
        return _Pace(ones[:, None, None], force, size, ones, size)
    power = (pace.force**2).sum(dim=(1, 2), keepdim=True)
    change = (pace.force * (pace.force - force)).sum(dim=(1, 2), keepdim=True)
    grown = (force**2).sum(dim=(1, 2), keepdim=True) > power
    # The stretch that would have brought the force to zero.
    ratio = power / torch.where(change > 0, change, power / longest)
    stretch = (pace.stretch * ratio).clamp(0.3, longest)
    # After a step too far the plain iteration, which always converges, takes over.
    stretch = torch.where(grown, 1.0, stretch)
    shrunk = (size / pace.size.clamp_min(1e-300)).clamp(max=1.0)
    return _Pace(stretch, force, size, shrunk, size * torch.maximum(shrunk, pace.ratio))


def with_gradient(
    mover: Mover, center: Tensor, X: Tensor, segments: Segments
) -> Tensor:
    """Return the fixed point of a differentiable mover with its exact gradient.

    A center c = f(c, X) has dc = (1 - J)^-1 df/dX dX with J = df/dc, by the
    implicit function theorem; the backward pass solves the transposed equation.
    """
    if not (
        torch.is_grad_enabled() and (X.requires_grad or segments.share.requires_grad)
    ):
        return center
    move = mover(center, X, segments)
    out = move.reach(move.force)
    fixed = center.detach().requires_grad_()
    constant = segments._replace(share=segments.share.detach())
    move = mover(fixed, X.detach(), constant)
    again = move.reach(move.force)

    def operator(G: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(again, fixed, G, retain_graph=True)
        return G - back

    def invert(G: Tensor) -> Tensor:
        # An iteration may have J of some NaN where nothing flows back.
        return G if bool((G == 0).all()) else _gmres(operator, G)

    out.register_hook(invert)
    return out


def _gmres(operator: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """Solve operator(x) = right by minimal residuals (Saad and Schultz 1986)."""
    scale = right.norm()
    basis = [right / scale]
    columns: list[Tensor] = []
    for k in range(min(right.numel(), 100)):
        new = operator(basis[-1])
        # Twice, as once leaves the basis oblique by rounding.
        first = torch.stack([(v * new).sum() for v in basis])
        new = new - sum(h * v for h, v in zip(first, basis, strict=True))
        second = torch.stack([(v * new).sum() for v in basis])
        new = new - sum(h * v for h, v in zip(second, basis, strict=True))
        length = new.norm()
        columns.append(torch.cat([first + second, length[None]]))
        H = torch.zeros(k + 2, k + 1, dtype=right.dtype, device=right.device)
        for j, column in enumerate(columns):
            H[: j + 2, j] = column
        goal = torch.zeros(k + 2, 1, dtype=right.dtype, device=right.device)
        goal[0] = scale
        weights = torch.linalg.lstsq(H, goal).solution
        left = (H @ weights - goal).norm()
        if bool(left <= 1e-13 * scale) or bool(length <= 1e-14 * first.abs().max()):
            break
        basis.append(new / length)
    return torch.stack([w * v for w, v in zip(weights[:, 0], basis, strict=False)]).sum(
        dim=0
    )
