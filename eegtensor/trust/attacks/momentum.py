"""MI-FGSM: steps along a running sum of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number
from eegtensor.training.perturbations._ascent import ascend
from eegtensor.trust.attacks.attack import GradientAttack
from eegtensor.trust.attacks.goal import Goal, Model, still


def momentum_fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.1,
    norm: str = "linf",
    n_steps: int = 10,
    decay: float = 1.0,
    loss: str = "cross-entropy",
    targeted: bool = False,
    scale: Tensor | None = None,
) -> Tensor:
    """Return trials moved by ``d <- d + eps / n_steps * direction(g)``.

    ``g <- decay g + gradient / ||gradient||_1`` of each trial, eq. 6 and 7 of the
    paper. Decay 0 is the iterative FGSM.

    Parameters
    ----------
    model, x, y, eps, norm, loss, targeted, scale
        As of `fgsm`.
    n_steps : int
    decay : float

    References
    ----------
    Y. Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018.
    """
    check_number("decay", decay, least=0.0)
    goal = Goal(model, x, y, loss=loss, targeted=targeted, scale=scale)
    total = torch.zeros_like(x)

    def gathered(d: Tensor) -> Tensor:
        nonlocal total
        g = goal.gradient(d)
        size = g.abs().flatten(1).sum(1).view(-1, *[1] * (g.ndim - 1))
        total = decay * total + g / size.clamp_min(torch.finfo(g.dtype).tiny)
        return total

    with still(model):
        end = ascend(
            gathered,
            torch.zeros_like(x),
            eps=eps,
            step_size=eps / check_count("n_steps", n_steps),
            n_steps=n_steps,
            norm=norm,
        )
    return goal.moved(end)


@dataclass(frozen=True)
class MomentumFGSM(GradientAttack):
    """`momentum_fgsm` of a decoder.

    Parameters
    ----------
    eps, norm, loss, targeted, n_steps, decay
        As of `momentum_fgsm`.
    batch_size : int
        Trials at a time.
    random_state : int | None
    """

    n_steps: int = 10
    decay: float = 1.0

    def _move(self, model: Any, x: Tensor, y: Tensor, **given: Any) -> Tensor:
        del given["generator"]
        return momentum_fgsm(
            model, x, y, n_steps=self.n_steps, decay=self.decay, **given
        )
