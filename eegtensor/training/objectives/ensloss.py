"""EnsLoss: another calibrated loss in every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels, margin_of

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class EnsLoss:
    """The gradient of a convex calibrated loss drawn anew in each step.

    Of margins z_i (z_y - max_{k != y} z_k; half of it would be the binary score)
    only the derivative of a loss is needed: negative numbers that do not fall as z
    grows. They are drawn, sorted and dealt to the sorted margins: -min(v, 1), v the
    inverse Box-Cox transform of a standard normal with a lambda that changes every
    `period` epochs, and divided by z where z > 1. The loss of a trial is its
    derivative, held fixed, times its margin: only its gradient means something.

    Where losses are only evaluated it is log(1 + exp(-z)). Trials without a label
    (y = -1) have loss 0.

    Parameters
    ----------
    period : int
        Epochs of one lambda; the first is 0.

    Attributes
    ----------
    lam : float
        The current lambda, in [-1, 1].

    References
    ----------
    B. Dai, "EnsLoss: stochastic calibrated loss ensembles for preventing overfitting
    in classification", ICLR 2025, algorithm 1.
    """

    per_trial = True

    def __init__(self, period: int = 10) -> None:
        self.period = check_count("period", period)
        self.lam = 0.0

    def on_train_start(self, state: TrainState) -> None:
        """Start from the first lambda again."""
        if state.epoch == 0:
            self.lam = 0.0

    def on_epoch_start(self, state: TrainState) -> None:
        """Draw another lambda where a period begins."""
        if state.epoch > 1 and (state.epoch - 1) % self.period == 0:
            generator = state.generator
            device = None if generator is None else generator.device
            drawn = torch.rand((), generator=generator, device=device)
            self.lam = 2.0 * float(drawn) - 1.0

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "EnsLoss")
        z = margin_of(outputs, y)
        if not torch.is_grad_enabled():
            return F.softplus(-z).where(known, 0.0)
        u = torch.randn(
            len(z), generator=context.generator, dtype=z.dtype, device=z.device
        )
        ranked = z.detach().where(known, torch.inf)
        return (derivatives(ranked, u, self.lam) * z).where(known, 0.0)

    def state_dict(self) -> dict[str, float]:
        """Return lambda, for checkpoints."""
        return {"lam": self.lam}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over the lambda of `state_dict`."""
        self.lam = float(state["lam"])


def derivatives(z: Tensor, u: Tensor, lam: float) -> Tensor:
    """Return derivatives of a calibrated loss at margins, shape (n_trials,).

    Parameters
    ----------
    z : Tensor, shape (n_trials,)
        Infinite for trials that take no part: what they drew is dropped.
    u : Tensor, shape (n_trials,)
        Standard normal.
    lam : float
        Of the inverse Box-Cox transform.
    """
    if lam == 0.0:
        v = u.exp()
    else:
        # Clipped first: with lambda < 0 the power of 0 is infinite. 1 is the most
        # that is kept, and v >= 1 exactly where u >= 0.
        base = (1.0 + lam * u).clamp_min(torch.finfo(u.dtype).tiny)
        v = torch.where(u >= 0, 1.0, base ** (1.0 / lam))
    drawn = (-v.clamp_max(1.0)).where(z.isfinite(), 0.0).sort().values
    d = torch.empty_like(z).scatter_(0, z.argsort(), drawn)
    return torch.where(z > 1.0, d / z.clamp_min(1.0), d) - 1e-6
