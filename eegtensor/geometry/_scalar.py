"""Scalar functions of eigenvalues with divided differences that do not cancel.

A spectral function F(X) = U f(s) U' has the derivative U (K o U'EU) U' with
K_ij = (f(s_i) - f(s_j)) / (s_i - s_j) (Daleckii and Krein). Written so, K loses
every digit where two eigenvalues meet; each function here has it in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class ScalarFunction(NamedTuple):
    """A function of eigenvalues and its derivatives.

    Attributes
    ----------
    value, derivative, second : callable
        f(s), f'(s), f''(s), elementwise.
    divided : callable
        (a, b, d) -> (f(a) - f(b)) / d with d = a - b given exactly.
    positive : bool
        Whether f is defined for positive numbers only; eigenvalues at or below
        rounding of the largest are then raised to it.
    log : bool
        Whether f is the logarithm, which near the identity has a form of its own.
    """

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    divided: Callable[[Tensor, Tensor, Tensor], Tensor]
    positive: bool = True
    log: bool = False


def _log_divided(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    low = torch.minimum(a, b)
    x = d.abs() / low
    safe = torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 1.0, torch.log1p(safe) / safe) / low


def _exp_divided(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    # exp(b) expm1(d) / d from the larger one down: no overflow that exp itself has not.
    high = torch.maximum(a, b)
    gap = d.abs()
    safe = torch.where(gap == 0, 1.0, gap)
    return torch.exp(high) * torch.where(gap == 0, 1.0, -torch.expm1(-safe) / safe)


def _inv_sqrt_divided(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    ra, rb = a.sqrt(), b.sqrt()
    return -1.0 / (ra * rb) / (ra + rb)


LOG = ScalarFunction(
    value=torch.log,
    derivative=lambda s: 1.0 / s,
    second=lambda s: -1.0 / s**2,
    divided=_log_divided,
    log=True,
)
EXP = ScalarFunction(
    value=torch.exp,
    derivative=torch.exp,
    second=torch.exp,
    divided=_exp_divided,
    positive=False,
)
SQRT = ScalarFunction(
    value=torch.sqrt,
    derivative=lambda s: 0.5 / s.sqrt(),
    second=lambda s: -0.25 / (s * s.sqrt()),
    divided=lambda a, b, d: 1.0 / (a.sqrt() + b.sqrt()),
)
INV_SQRT = ScalarFunction(
    value=torch.rsqrt,
    derivative=lambda s: -0.5 / (s * s.sqrt()),
    second=lambda s: 0.75 / (s**2 * s.sqrt()),
    divided=_inv_sqrt_divided,
)


def power(p: float | Tensor) -> ScalarFunction:
    """Return s ** p; a tensor p has a shape that broadcasts against (..., n)."""
    # Against (..., n, n) the power needs one more axis.
    wide = p[..., None] if isinstance(p, Tensor) else p

    def divided(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
        low = torch.minimum(a, b)
        x = d.abs() / low
        safe = torch.where(x == 0, 1.0, x)
        slope = torch.where(x == 0, wide, torch.expm1(wide * torch.log1p(safe)) / safe)
        return low ** (wide - 1.0) * slope

    return ScalarFunction(
        value=lambda s: s**p,
        derivative=lambda s: p * s ** (p - 1.0),
        second=lambda s: p * (p - 1.0) * s ** (p - 2.0),
        divided=divided,
    )


IDENTITY = ScalarFunction(
    value=lambda s: s,
    derivative=torch.ones_like,
    second=torch.zeros_like,
    divided=lambda a, b, d: torch.ones_like(d),
    positive=False,
)


def second_differences(
    f: ScalarFunction, s: Tensor, raw: Tensor, raised: Tensor, K: Tensor
) -> Tensor:
    """Return f[s_i, s_j, s_k], shape (..., n, n, n), symmetric in i, j, k.

    The recursion divides by the widest of the three gaps; where even that is
    narrow the Hermite-Genocchi integral of f'' over the triangle is used, whose
    Gauss rule is exact to rounding there.

    Parameters
    ----------
    f : ScalarFunction
    s : Tensor, shape (..., n), ascending
        Eigenvalues, raised to the floor.
    raw : Tensor, shape (..., n)
        Eigenvalues before, up to a shift.
    raised : Tensor of bool, shape (..., n)
    K : Tensor, shape (..., n, n)
        First divided differences of f after raising.
    """
    n = s.shape[-1]
    index = torch.arange(n, device=s.device)
    # Eigenvalues ascend, so that sorting the three indices sorts the values.
    triple = torch.cartesian_prod(index, index, index).sort(dim=-1).values
    i, j, k = triple.unbind(-1)
    low, middle, high = s[..., i], s[..., j], s[..., k]
    gap = raw[..., k] - raw[..., i]
    # Where f needs positive numbers the gap counts against the eigenvalue.
    narrow = gap < (0.5 * low if f.positive else 0.5)
    # Across the floor the function has a kink: no integral of f''.
    narrow &= ~(raised[..., i] | raised[..., k])
    rise = K[..., j, k] - K[..., i, j]
    # Three raised eigenvalues: rise is zero, whatever their gap.
    wide = rise / torch.where(narrow | (gap == 0), 1.0, gap)
    close = _triangle_integral(f, low, middle, high)
    return torch.where(narrow, close, wide).unflatten(-1, (n, n, n))


def _triangle_integral(f: ScalarFunction, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Integrate u f''(a + u (b - a) + u v (c - b)) over the unit square."""
    total = torch.zeros_like(a)
    for u, wu in _GAUSS:
        for v, wv in _GAUSS:
            total = total + wu * wv * u * f.second(a + u * (b - a) + u * v * (c - b))
    return total


# Ten Gauss-Legendre nodes: for eigenvalues within half of each other the rule
# leaves 1e-14.
_GAUSS = [
    (0.5 * (float(x) + 1.0), 0.5 * float(w))
    for x, w in zip(*np.polynomial.legendre.leggauss(10), strict=True)
]
