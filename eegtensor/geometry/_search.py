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
        How far from the end.
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
        A segment is done when its size is at most this.
    max_iter : int
    longest : float
        Steps are stretched by .3 up to this factor, by the secant rule of Barzilai
        and Borwein (1988); 1 takes them as they are.
    """
    center = start.clone()
    active = torch.arange(len(center), device=X.device)
    stretch = torch.ones(len(center), 1, 1, dtype=X.dtype, device=X.device)
    force = None
    for _ in range(max_iter):
        move = mover(center[active], X, segments)
        if longest > 1.0:
            if force is not None:
                stretch = _secant(stretch, force, move.force, longest)
            force = move.force
        center[active] = move.reach(stretch * move.force)
        going = move.size > tol
        if not bool(going.any()):
            return center
        # Domains that are done leave the batch: they do not pay for the hard ones.
        if not bool(going.all()):
            chosen, segments = segments.keep(going)
            X, active, stretch = X[chosen], active[going], stretch[going]
            force = None if force is None else force[going]
    logger.warning(
        "The center of %d set(s) of matrices stopped after %d iterations at %.1e "
        "(asked: %.1e); the matrices may be close to singular.",
        len(active),
        max_iter,
        float(move.size.max()),
        tol,
    )
    return center


def _secant(stretch: Tensor, old: Tensor, new: Tensor, longest: float) -> Tensor:
    """Return the stretch that would have brought the force to zero."""
    power = (old * old).sum(dim=(1, 2), keepdim=True)
    change = (old * (old - new)).sum(dim=(1, 2), keepdim=True)
    grown = (new * new).sum(dim=(1, 2), keepdim=True) > power
    ratio = power / torch.where(change > 0, change, power / longest)
    # After a step too far the plain iteration, which always converges, takes over.
    return torch.where(grown, 1.0, (stretch * ratio).clamp(0.3, longest))


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
