"""Label-distributionally robust loss with a temperature of each trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import OncePerStep, known_labels
from eegtensor.training.objectives.ldr import robust_loss

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


class ALDR:
    """LDR with a temperature of its own for each trial, learned as it trains.

    p = softmax(f / lam_i) of logits f with mean absolute value 1, then
    lam_i = lam (1 - KL(p, uniform) / (alpha log K)) and
    L_i = lam_i log mean_k exp(u_k / lam_i) - (alpha log K / 2 lam) (lam_i - lam)^2.
    A trial that the network is sure of gets a low temperature: `temperatures`
    ranks the trials, those with wrong labels high.

    Trials without a label (y = -1) have loss 0. Where losses are only evaluated
    the temperature is computed from `lam` and not kept. A second pass of a step starts
    from the temperatures that the first one started from, and keeps none.

    Parameters
    ----------
    margin : float
    lam : float
        Temperature to start from. The authors search 0.1, 1 and 10; with few
        classes 10.
    alpha : float
        Above 1: lam_i stays positive.
    n_trials : int | None
        Of the training set; ``"aldr"`` by name finds it out.

    Attributes
    ----------
    temperatures : Tensor, shape (n_trials,)

    References
    ----------
    D. Zhu, Y. Ying and T. Yang, "Label distributionally robust losses for
    multi-class classification: consistency, robustness and adaptivity", ICML 2023,
    section 4.
    """

    per_trial = True

    def __init__(
        self,
        margin: float = 1.0,
        lam: float = 10.0,
        alpha: float = 2.0,
        n_trials: int | None = None,
    ) -> None:
        self.margin = check_number("margin", margin, least=0.0)
        self.lam = check_number("lam", lam, above=0.0)
        self.alpha = check_number("alpha", alpha, above=1.0)
        if n_trials is None:
            fail(
                "ALDR remembers a temperature of each trial",
                fix="give n_trials, the size of the training set",
            )
        check_count("n_trials", n_trials)
        self.temperatures = torch.full((n_trials,), float(lam))
        self._once = OncePerStep()
        self._before = self.temperatures

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> ALDR:
        """Return the objective of a run's trials."""
        return cls(**{"n_trials": len(setup.data)} | options)

    def on_train_start(self, state: TrainState) -> None:
        """Forget the temperatures of an earlier run."""
        self._once = OncePerStep()
        if state.epoch == 0:
            self.temperatures = torch.full_like(self.temperatures, self.lam)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "ALDR")
        # Logits that are all zero, of a head that starts there, have no scale.
        f = outputs / outputs.abs().mean(dim=1, keepdim=True).clamp_min(
            torch.finfo(outputs.dtype).eps
        )
        lam = self._update(f.detach(), known, batch, context)
        away = self.alpha * math.log(f.shape[1]) / (2.0 * self.lam)
        loss = robust_loss(f, y, self.margin, lam) - away * (lam - self.lam).square()
        return loss.where(known, 0.0)

    def _update(
        self, f: Tensor, known: Tensor, batch: Batch, context: StepContext
    ) -> Tensor:
        """Return the temperatures of a batch, moved by one step."""
        n_classes = f.shape[1]
        training = torch.is_grad_enabled() and batch.index is not None
        old = torch.full_like(f[:, 0], self.lam)
        if training:
            self.temperatures = self.temperatures.to(f.device)
            if self._once.begins(context):
                self._before = self.temperatures.clone()
            old = self._before[batch.index].to(f.dtype)
        p = F.normalize((f / old[:, None]).softmax(dim=1) + 1e-5, p=1.0, dim=1)
        divergence = (p * (n_classes * p).log()).sum(dim=1)
        share = divergence / (self.alpha * math.log(n_classes))
        # A temperature of zero would divide by it; relative, as the start is.
        new = self.lam * (1.0 - share).clamp_min(0.005)
        if training:
            now = self.temperatures[batch.index]
            learned = known & self._once.take(batch, context)
            self.temperatures[batch.index] = torch.where(learned, new.to(now), now)
        return new

    def state_dict(self) -> dict[str, Tensor]:
        """Return the temperatures, for checkpoints."""
        return {"temperatures": self.temperatures}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the temperatures of `state_dict`."""
        self.temperatures = state["temperatures"].clone()
