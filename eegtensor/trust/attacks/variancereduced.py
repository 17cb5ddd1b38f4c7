"""The variance-reduced attack: gradients averaged over noisy copies of a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number
from eegtensor.training.perturbations._ascent import ascend
from eegtensor.trust.attacks.attack import GradientAttack
from eegtensor.trust.attacks.goal import Goal, Model, still


def variance_reduced(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.1,
    norm: str = "linf",
    n_steps: int = 10,
    n_copies: int = 20,
    sigma: float = 0.05,
    loss: str = "cross-entropy",
    targeted: bool = False,
    scale: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return trials moved by steps along gradients averaged over noise.

    ``g = mean_i gradient(d + xi_i)`` with xi ~ N(0, sigma^2), then
    ``d <- project(d + eps / n_steps * direction(g))``. What is left of a gradient
    after the average is what decoders have in common: the attack is made to be
    carried from one decoder to another. One copy and sigma 0 is the iterative FGSM.

    Parameters
    ----------
    model, x, y, eps, norm, loss, targeted, scale
        As of `fgsm`.
    n_steps : int
    n_copies : int
    sigma : float
        Standard deviations of the channel.
    generator : torch.Generator | None
        On the device of x.

    References
    ----------
    L. Wu, Z. Zhu and C. Tai, "Understanding and enhancing the transferability of
    adversarial examples", arXiv 1802.09707, eq. 6 and 7.
    """
    check_count("n_copies", n_copies)
    check_number("sigma", sigma, least=0.0)
    goal = Goal(model, x, y, loss=loss, targeted=targeted, scale=scale)

    def averaged(d: Tensor) -> Tensor:
        total = torch.zeros_like(d)
        # One copy after the other: all at once would be n_copies times the memory.
        for _ in range(n_copies):
            noise = torch.randn(
                d.shape, dtype=d.dtype, device=d.device, generator=generator
            )
            total += goal.gradient(d + sigma * noise)
        return total / n_copies

    with still(model):
        end = ascend(
            averaged,
            torch.zeros_like(x),
            eps=eps,
            step_size=eps / check_count("n_steps", n_steps),
            n_steps=n_steps,
            norm=norm,
        )
    return goal.moved(end)


@dataclass(frozen=True)
class VarianceReducedFGSM(GradientAttack):
    """`variance_reduced` of a decoder.

    Parameters
    ----------
    eps, norm, loss, targeted, n_steps, n_copies, sigma
        As of `variance_reduced`.
    batch_size : int
        Trials at a time.
    random_state : int | None
        Of the noise.
    """

    n_steps: int = 10
    n_copies: int = 20
    sigma: float = 0.05

    def _move(self, model: Any, x: Tensor, y: Tensor, **given: Any) -> Tensor:
        return variance_reduced(
            model,
            x,
            y,
            n_steps=self.n_steps,
            n_copies=self.n_copies,
            sigma=self.sigma,
            **given,
        )
