"""The way up a loss inside a ball of displacements, all trials at once.

Displacements are in standard deviations of their channel (see `channel_scale`), so
that nothing here knows a unit: a trial moves to ``x + displacement * scale``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_option
from eegtensor.training.perturbations.scales import lengths, units

NORMS = ("linf", "l2")


def project(d: Tensor, eps: float | Tensor, norm: str = "linf") -> Tensor:
    """Return the nearest displacements of a size of at most eps.

    Parameters
    ----------
    d : Tensor, shape (n_trials, ...)
        Standard deviations.
    eps : float | Tensor, shape (n_trials,)
    norm : "linf" | "l2"
        Of each trial.
    """
    check_option("norm", norm, NORMS)
    size = _each(eps, d)
    if norm == "linf":
        return d.clamp(-size, size)
    # The length is divided by itself where it is 0: it is in every ball.
    own = lengths(d).clamp_min(torch.finfo(d.dtype).tiny)
    return d * (size / own).clamp_max(1.0)


def ascent_direction(gradient: Tensor, norm: str = "linf") -> Tensor:
    """Return the displacements of size 1 that raise a linear loss the most.

    Signs for "linf", the gradient over its length for "l2"; a gradient of zero
    stays zero.

    Parameters
    ----------
    gradient : Tensor, shape (n_trials, ...)
        With respect to displacements in standard deviations.
    norm : "linf" | "l2"
    """
    check_option("norm", norm, NORMS)
    return gradient.sign() if norm == "linf" else units(gradient)


def random_start(
    like: Tensor,
    eps: float | Tensor,
    norm: str = "linf",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return displacements drawn evenly from the ball of radius eps of each trial.

    Parameters
    ----------
    like : Tensor, shape (n_trials, ...)
        Of its shape, dtype and device.
    eps : float | Tensor, shape (n_trials,)
    norm : "linf" | "l2"
    generator : torch.Generator | None
        On the device of `like`.
    """
    check_option("norm", norm, NORMS)
    options: Any = {"dtype": like.dtype, "device": like.device, "generator": generator}
    size = _each(eps, like)
    if norm == "linf":
        return size * (2 * torch.rand(like.shape, **options) - 1)
    direction = units(torch.randn(like.shape, **options))
    radius = torch.rand((len(like), *[1] * (like.ndim - 1)), **options)
    return size * radius ** (1 / like[0].numel()) * direction


def ascend(
    gradient_of: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    eps: float | Tensor,
    step_size: float | Tensor,
    n_steps: int,
    norm: str = "linf",
) -> Tensor:
    """Return the end of ``d <- project(d + step_size direction(gradient))``.

    Parameters
    ----------
    gradient_of : callable
        Takes displacements and returns the gradient of the loss of each trial.
    start : Tensor, shape (n_trials, ...)
    eps, step_size : float | Tensor, shape (n_trials,)
        Standard deviations.
    n_steps : int
    norm : "linf" | "l2"

    References
    ----------
    A. Madry et al., "Towards deep learning models resistant to adversarial
    attacks", ICLR 2018.
    """
    d, size = start, _each(step_size, start)
    for _ in range(n_steps):
        d = project(d + size * ascent_direction(gradient_of(d), norm), eps, norm)
    return d


def _each(value: float | Tensor, d: Tensor) -> Any:
    """Return a number for each trial that broadcasts with displacements."""
    if not isinstance(value, Tensor):
        return value
    return value.to(d).view(-1, *[1] * (d.ndim - 1)) if value.ndim else value.to(d)
