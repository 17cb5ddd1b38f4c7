"""FGSM and PGD: steps up the gradient inside a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number
from eegtensor.training.perturbations._ascent import (
    ascend,
    ascent_direction,
    random_start,
)
from eegtensor.trust.attacks.attack import GradientAttack
from eegtensor.trust.attacks.goal import Goal, Model, still


def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.1,
    norm: str = "linf",
    loss: str = "cross-entropy",
    targeted: bool = False,
    scale: Tensor | None = None,
) -> Tensor:
    """Return trials moved by one step of size eps up the gradient.

    Of a linear decoder of two classes no perturbation of that size is worse.

    Parameters
    ----------
    model : callable or torch.nn.Module
        Trials to logits, each trial on its own; a module runs with evaluation
        statistics.
    x : Tensor, shape (n_trials, n_channels, n_times)
        In any unit.
    y : Tensor of int64, shape (n_trials,)
        Classes to leave or, with `targeted`, to reach.
    eps : float
        Size in standard deviations of each channel over x.
    norm : "linf" | "l2"
    loss : "cross-entropy" | "margin"
        Margin is the lead of another class over y.
    targeted : bool
    scale : Tensor, shape (1, n_channels, 1) | None
        Standard deviations; those of x by default.

    Returns
    -------
    perturbed : Tensor, shape (n_trials, n_channels, n_times)

    References
    ----------
    I. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial
    examples", ICLR 2015.
    """
    goal = Goal(model, x, y, loss=loss, targeted=targeted, scale=scale)
    with still(model):
        gradient = goal.gradient(torch.zeros_like(x))
    return goal.moved(eps * ascent_direction(gradient, norm))


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.1,
    norm: str = "linf",
    n_steps: int = 50,
    step_size: float | None = None,
    random: bool = True,
    n_restarts: int = 1,
    loss: str = "cross-entropy",
    targeted: bool = False,
    scale: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return trials at the end of projected steps up the gradient.

    Parameters
    ----------
    model, x, y, eps, norm, loss, targeted, scale
        As of `fgsm`.
    n_steps : int
    step_size : float | None
        Standard deviations; 2.5 eps / n_steps by default, which reaches every
        side of the ball from every other.
    random : bool
        Whether each start is drawn from the ball, or is the trial itself.
    n_restarts : int
        Of each trial the end is kept where another class leads by most.
    generator : torch.Generator | None
        On the device of x.

    References
    ----------
    A. Madry et al., "Towards deep learning models resistant to adversarial
    attacks", ICLR 2018.
    """
    check_count("n_steps", n_steps)
    step = 2.5 * eps / n_steps if step_size is None else check_number("step", step_size)
    goal = Goal(model, x, y, loss=loss, targeted=targeted, scale=scale)
    best, lead = torch.zeros_like(x), None
    with still(model):
        for _ in range(check_count("n_restarts", n_restarts)):
            start = random_start(x, eps, norm, generator) if random else best * 0
            end = ascend(
                goal.gradient,
                start,
                eps=eps,
                step_size=step,
                n_steps=n_steps,
                norm=norm,
            )
            if n_restarts == 1:
                return goal.moved(end)
            reached = goal.lead(end)
            if lead is None:
                best, lead = end, reached
                continue
            better = reached > lead
            shape = better.view(-1, *[1] * (x.ndim - 1))
            best = torch.where(shape, end, best)
            lead = torch.where(better, reached, lead)
    return goal.moved(best)


@dataclass(frozen=True)
class FGSM(GradientAttack):
    """`fgsm` of a decoder.

    Parameters
    ----------
    eps, norm, loss, targeted
        As of `fgsm`.
    batch_size : int
        Trials at a time.
    random_state : int | None
    """

    def _move(self, model: Any, x: Tensor, y: Tensor, **given: Any) -> Tensor:
        del given["generator"]
        return fgsm(model, x, y, **given)


@dataclass(frozen=True)
class PGD(GradientAttack):
    """`pgd` of a decoder.

    Parameters
    ----------
    eps, norm, loss, targeted, n_steps, step_size, random, n_restarts
        As of `pgd`.
    batch_size : int
        Trials at a time.
    random_state : int | None
        Of the starts.
    """

    n_steps: int = 50
    step_size: float | None = None
    random: bool = True
    n_restarts: int = 1

    def _move(self, model: Any, x: Tensor, y: Tensor, **given: Any) -> Tensor:
        return pgd(
            model,
            x,
            y,
            n_steps=self.n_steps,
            step_size=self.step_size,
            random=self.random,
            n_restarts=self.n_restarts,
            **given,
        )
