"""Iterations for many segments at once, and the gradient of where they end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from eegtensor.geometry._segments import Segments

logger = logging.getLogger("eegtensor")

# The next centers (n_segments, n, n) and how far from the end they are (n_segments,).
Step: TypeAlias = tuple[Tensor, Tensor]
Stepper: TypeAlias = Callable[[Tensor, Tensor, Segments], Step]


@torch.no_grad()
def search(
    step: Stepper,
    X: Tensor,
    segments: Segments,
    start: Tensor,
    tol: float,
    max_iter: int,
) -> Tensor:
    """Return the centers where `step` comes to rest, shape (n_segments, n, n).

    Parameters
    ----------
    step : callable
        (centers, X, segments) -> (next centers, sizes).
    X : Tensor, shape (n_matrices, n, n)
    segments : Segments
    start : Tensor, shape (n_segments, n, n)
    tol : float
        A segment is done when its size is at most this.
    max_iter : int
    """
    center = start.clone()
    active = torch.arange(len(center), device=X.device)
    for _ in range(max_iter):
        center[active], size = step(center[active], X, segments)
        going = size > tol
        if not bool(going.any()):
            return center
        # Domains that are done leave the batch: they do not pay for the hard ones.
        if not bool(going.all()):
            chosen, segments = segments.keep(going)
            X, active = X[chosen], active[going]
    logger.warning(
        "The center of %d set(s) of matrices stopped after %d iterations at %.1e "
        "(asked: %.1e); the matrices may be close to singular.",
        len(active),
        max_iter,
        float(size.max()),
        tol,
    )
    return center


def with_gradient(
    step: Stepper, center: Tensor, X: Tensor, segments: Segments
) -> Tensor:
    """Return the fixed point of a differentiable `step` with its exact gradient.

    A center c = step(c, X) has dc = (1 - J)^-1 dstep/dX dX with J = dstep/dc. The
    backward pass sums the series of the transposed inverse, which converges as
    the iteration itself did.
    """
    if not (
        torch.is_grad_enabled() and (X.requires_grad or segments.share.requires_grad)
    ):
        return center
    out = step(center, X, segments)[0]
    fixed = center.detach().requires_grad_()
    constant = segments._replace(share=segments.share.detach())
    again = step(fixed, X.detach(), constant)[0]

    def invert(G: Tensor) -> Tensor:
        total = term = G
        for _ in range(500):
            (term,) = torch.autograd.grad(again, fixed, term, retain_graph=True)
            total = total + term
            if bool(term.norm() <= 1e-13 * total.norm()):
                break
        return total

    out.register_hook(invert)
    return out
