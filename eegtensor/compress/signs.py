"""Signs with a gradient: estimators for binary weights and activations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_number, fail


def sign(x: Tensor) -> Tensor:
    """Return 1 where x >= 0, else -1: of zero it is 1, where `torch.sign` has 0."""
    return torch.where(x >= 0, 1.0, -1.0).to(x)


class _ReSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, o: float, t: float, m: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits = o, t, m
        return sign(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * reste_slope(x, *ctx.limits), None, None, None


def reste_slope(x: Tensor, o: float, t: float = 1.5, m: float = 0.1) -> Tensor:
    """Return the gradient that `reste` has in place of the sign's; see there."""
    size = x.abs()
    slope = size.clamp_min(m).pow((1.0 - o) / o) / o
    # Near zero the power has no bound: the chord from 0 to m.
    slope = torch.where(size <= m, m ** (1.0 / o) / m, slope)
    return torch.where(size <= t, slope, 0.0)


def reste(x: Tensor, o: float = 1.0, *, t: float = 1.5, m: float = 0.1) -> Tensor:
    """Return signs, with the gradient of a power that comes near them.

    The gradient is that of sign(x) |x|^(1/o) where m < |x| <= t, that is
    ``(1/o) |x|^((1-o)/o)``; m^(1/o) / m where |x| <= m; 0 where |x| > t. With o = 1 it
    is the clipped straight-through estimator. At |x| = m it jumps by the factor 1/o
    (for o = 3 from 4.64 to 1.55): the chord is steeper than the power's tangent.

    Parameters
    ----------
    x : Tensor
        Of a spread of about one: the limits are numbers of its unit.
    o : float
        From 1; the larger, the nearer to the sign and the less stable.
    t, m : float

    References
    ----------
    X. Wu et al., "Estimator meets equilibrium perspective: a rectified straight
    through estimator for binary neural networks training", ICCV 2023, eq. 9 and 10.
    """
    if check_number("o", o) < 1.0 or not 0.0 < m < t:
        fail(f"o={o}, t={t}, m={m}", fix="give o from 1 up and 0 < m < t")
    return _ReSTE.apply(x, float(o), float(t), float(m))  # type: ignore[no-any-return]


def reste_power(epoch: int, n_epochs: int, o_end: float = 3.0) -> float:
    """Return o = 1 + (o_end - 1) (1 - cos(pi e / 2 E)), e epochs being behind."""
    share = (epoch - 1) / n_epochs
    return 1.0 + (o_end - 1.0) * (1.0 - math.cos(0.5 * math.pi * share))


class _Quadratic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * (2.0 - 2.0 * x.abs()).clamp_min(0.0)


def quadratic_sign(x: Tensor) -> Tensor:
    """Return signs with the gradient max(2 - |2x|, 0) (Liu et al., ECCV 2018)."""
    return _Quadratic.apply(x)  # type: ignore[no-any-return]


def periodic(w: Tensor, omega: float = 20.0, *, binary: bool = True) -> Tensor:
    """Return sign(sin(omega w)), or sin(omega w), with the gradient of the sine.

    Parameters
    ----------
    w : Tensor
    omega : float
    binary : bool
        False is the first stage of training.

    References
    ----------
    E. Vargas et al., "BiPer: binary neural networks using a periodic function",
    CVPR 2024, eq. 5 to 8.
    """
    wave = torch.sin(omega * w)
    return wave + (sign(wave) - wave).detach() if binary else wave


def periodic_error(w: Tensor, omega: float = 20.0) -> Tensor:
    """Return the mean of (1 - |sin(omega w)|)^2: what is lost by the sign.

    Of normal weights of deviation s it falls from 1 to 3/2 - 4/pi = .227 as omega s
    grows, and is there from omega s = 2 on.
    """
    return (1.0 - torch.sin(omega * w).abs()).square().mean()
