"""Gradients of a validation loss with respect to how training was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.utils._pytree import tree_map

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.space import ParamSpace

# theta, phi, step -> theta; a tensor or a dict of tensors for theta.
InnerStep = Callable[[Any, Tensor, int], Any]
OuterLoss = Callable[[Any, Tensor], Tensor]


class Hypergradient(NamedTuple):
    """An estimate of a gradient, and what was passed on the way.

    Attributes
    ----------
    gradient : Tensor, of the shape of phi
    value : Tensor
        The outer loss.
    theta : Tensor | dict of Tensor
        Weights at the end of the inner run.
    """

    gradient: Tensor
    value: Tensor
    theta: Any


def forward_hypergradient(
    inner: InnerStep,
    outer: OuterLoss,
    theta: Any,
    phi: Tensor,
    n_steps: int,
    *,
    n_directions: int = 4,
    generator: torch.Generator | None = None,
    difference: float | None = None,
) -> Hypergradient:
    """Return an unbiased estimate of d outer(theta_T(phi), phi) / d phi.

    Random signs v are pushed forward through the inner run beside the weights, d_t =
    (d inner / d theta) d_{t-1} + (d inner / d phi) v; the mean of (dF/dphi along v) v
    is the gradient in expectation, with variance (dim phi - 1) |g|^2 / n_directions.
    Memory is that of 1 + n_directions copies of the weights, however long the run.

    Parameters
    ----------
    inner : callable
        ``inner(theta, phi, step)`` returns new weights; pure, in torch.
    outer : callable
        ``outer(theta, phi)`` returns a scalar.
    theta : Tensor | dict of Tensor
        Where the inner run starts.
    phi : Tensor
        Such as logarithms of weights of losses; at most some 1000 numbers.
    n_steps : int
    n_directions : int
    generator : torch.Generator | None
    difference : float | None
        A number mu takes (F(phi + mu v) - F(phi - mu v)) / 2 mu in place of
        derivatives, where `inner` has none.

    References
    ----------
    Q. Shen et al., "Memory-efficient gradient unrolling for large-scale bi-level
    optimization" ((FG)2U), NeurIPS 2024, eq. 4 to 7.
    """
    check_count("n_directions", n_directions)
    check_count("n_steps", n_steps, least=0)
    phi = phi.detach()
    shape = (n_directions, *phi.shape)
    drawn = torch.randint(2, shape, generator=generator, device=phi.device)
    signs = (2 * drawn - 1).to(phi.dtype)
    if difference is not None:
        return _by_differences(inner, outer, theta, phi, n_steps, signs, difference)
    tangents = tree_map(lambda p: p.new_zeros(n_directions, *p.shape), theta)
    for t in range(n_steps):
        theta, tangents = _push(
            lambda th, ph, t=t: inner(th, ph, t), theta, phi, tangents, signs
        )
    value, slopes = _push(outer, theta, phi, tangents, signs)
    gradient = (slopes.view(-1, *[1] * phi.ndim) * signs).mean(0)
    return Hypergradient(gradient.detach(), value.detach(), theta)


def _push(
    function: Callable[..., Any], theta: Any, phi: Tensor, tangents: Any, signs: Tensor
) -> tuple[Any, Any]:
    """Return a function's value and its derivative along each direction."""

    def along(d: Any, v: Tensor) -> tuple[Any, Any]:
        found = jvp(function, (theta, phi), (d, v))
        return found[0], found[1]

    # The value has no direction: it is computed once for all.
    places: Any = (None, 0)
    found = vmap(along, out_dims=places)(tangents, signs)
    return tree_map(lambda p: p.detach(), found[0]), tree_map(
        lambda p: p.detach(), found[1]
    )


def _by_differences(
    inner: InnerStep,
    outer: OuterLoss,
    theta: Any,
    phi: Tensor,
    n_steps: int,
    signs: Tensor,
    mu: float,
) -> Hypergradient:
    check_number("difference", mu, above=0.0)

    def run(at: Tensor) -> tuple[Any, Tensor]:
        found = theta
        for t in range(n_steps):
            found = tree_map(lambda p: p.detach(), inner(found, at, t))
        return found, outer(found, at).detach()

    slopes = [(run(phi + mu * v)[1] - run(phi - mu * v)[1]) / (2 * mu) for v in signs]
    gradient = (torch.stack(slopes).view(-1, *[1] * phi.ndim) * signs).mean(0)
    end, value = run(phi)
    return Hypergradient(gradient, value, end)


def gradient_step(
    loss: Callable[[Any, Tensor, int], Tensor],
    lr: float,
    space: ParamSpace | None = None,
) -> InnerStep:
    """Return the inner step of gradient descent on ``loss(theta, phi, step)``.

    With the `ParamSpace` of a network, weights by name stay on their manifolds.
    """
    check_number("lr", lr, above=0.0)

    def step(theta: Any, phi: Tensor, t: int) -> Any:
        g = grad(loss)(theta, phi, t)
        if space is None:
            return tree_map(lambda p, d: p - lr * d, theta, g)
        return {
            n: _moved(a.name, theta[n], -lr * a.rgrad(theta[n], g[n]))
            for n, a in space.adapters.items()
        }

    return step


def _moved(kind: str, p: Tensor, u: Tensor) -> Tensor:
    """Return a retraction all of whose steps have forward derivatives."""
    # Those of eigendecompositions have none, and some say so by zeros.
    if kind == "euclidean":
        return p + u
    if kind == "spd":
        # Of second order, and positive definite for every tangent.
        x = p + u + 0.5 * u @ torch.linalg.solve(p, u)
        return 0.5 * (x + x.mT)
    if kind == "stiefel":
        x = p + u
        # Newton's iteration for the polar factor; p + u is near it.
        for _ in range(8):
            x = 0.5 * (x + torch.linalg.solve(x.mT @ x, x.mT).mT)
        return x
    fail(
        f"Parameters on {kind!r} have no step with forward derivatives",
        fix="write the inner step yourself, and give difference=1e-4",
    )


def tune(
    inner: InnerStep,
    outer: OuterLoss,
    theta: Any,
    phi: Tensor,
    n_steps: int,
    *,
    n_outer: int = 100,
    lr: float = 1e-2,
    n_directions: int = 4,
    random_state: int = 0,
) -> Hypergradient:
    """Return the last estimate of a descent on phi by Adam; `phi` itself is moved.

    Parameters
    ----------
    inner, outer, theta, phi, n_steps, n_directions
        See `forward_hypergradient`. Each outer step starts from the same `theta`.
    n_outer : int
    lr : float
        Of Adam, 1e-2 to 1e-3 in the paper.
    random_state : int
    """
    generator = torch.Generator(phi.device).manual_seed(random_state)
    parameter = torch.nn.Parameter(phi.detach())
    optimizer = torch.optim.Adam([parameter], lr=lr)
    options: Any = {"n_directions": n_directions, "generator": generator}
    for _ in range(check_count("n_outer", n_outer)):
        found = forward_hypergradient(
            inner, outer, theta, parameter, n_steps, **options
        )
        parameter.grad = found.gradient
        # The parameter shares its memory with phi.
        optimizer.step()
    return found
