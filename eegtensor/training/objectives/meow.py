"""MeoW: trials that look like others of their class count more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._adversarial import attacked_pass, trains
from eegtensor.training.objectives._shared import OncePerStep, known_labels, unit
from eegtensor.training.perturbations._adversary import Budget

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


class MeoW:
    """Memorisation-weighted adversarial training.

    ``alpha w+ CE(f(x), y) + (1 - alpha) w- CE(f(x'), y)`` of each trial x and its
    attacked copy x' (eq. of the source list). Weights grow with the cosine s between
    the trial's features and the nearest prototype of its class: n softmax(s / T) over
    the batch, bounded, with mean 1. w+ looks at the features of x, w- at those of x'.
    Artefacts and wrong labels are like no prototype. With alpha=1 nothing is attacked
    and it is a loss for such data.

    Prototypes are running means of the features of clean trials that are classified
    right, each moving the nearest one of its class.

    Trials without a label (y = -1) have loss 0.

    Parameters
    ----------
    n_classes : int
    alpha : float
        Share of the clean trials.
    prototypes : int
        Of each class; 0 weighs nothing: plain training on clean and attacked trials.
    temperature : float
        T; math.inf weighs nothing.
    momentum : float
        Weight of the past in prototypes.
    low, high : float
        Bounds of weights.
    eps : float
        Of the attack, in standard deviations of each channel over the batch.
    n_steps, step_size, norm
        As in `PGD`.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    Zhang, Hong and Zhao, "Memorization weights for instance reweighting in adversarial
    training", AAAI 2023. Its equation is given; bank, weights and their numbers are a
    reconstruction.
    """

    per_trial = True
    needs: tuple[str, ...] = ("features", "raw trials")

    def __init__(
        self,
        n_classes: int,
        alpha: float = 0.5,
        prototypes: int = 8,
        temperature: float = 0.5,
        momentum: float = 0.99,
        low: float = 0.2,
        high: float = 5.0,
        eps: float = 0.1,
        n_steps: int = 10,
        step_size: float | None = None,
        norm: str = "linf",
    ) -> None:
        self.n_classes = check_count("n_classes", n_classes)
        self.prototypes = check_count("prototypes", prototypes, least=0)
        if not 0 <= check_number("alpha", alpha) <= 1:
            fail(f"alpha={alpha}", fix="give a share from 0 to 1")
        if not temperature > 0:
            fail(f"temperature={temperature}", fix="give a number above 0")
        if not 0 <= check_number("momentum", momentum) < 1:
            fail(f"momentum={momentum}", fix="give a share from 0, below 1")
        if not 0 <= check_number("low", low) <= 1 <= check_number("high", high):
            fail(f"low={low}, high={high}", fix="give bounds with 1 between them")
        self.alpha, self.temperature, self.momentum = alpha, temperature, momentum
        self.low, self.high = low, high
        self.budget = Budget.checked(eps, n_steps, step_size, norm)
        if alpha == 1:
            # Nothing is attacked: what a front computed of trials will do.
            self.needs = ("features",)
        self._reset()

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> MeoW:
        """Return one for the classes of a run."""
        return cls(setup.n_classes, **options)

    def _reset(self) -> None:
        self.bank: Tensor | None = None
        self.counts: Tensor | None = None
        self._once = OncePerStep()

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run."""
        self._once = OncePerStep()
        if state.epoch == 0:
            self._reset()

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, type(self).__name__)
        losses = F.cross_entropy(outputs, y, reduction="none").where(known, 0.0)
        if not trains():
            return losses
        features = context.features.detach()
        self._begin(features, context)
        total = torch.zeros_like(losses)
        if self.alpha:
            total = self.alpha * self.weights(features, y, known) * losses
        if self.alpha < 1:
            _, out, h = attacked_pass(context, batch, self.budget)
            assert h is not None
            other = F.cross_entropy(out, y, reduction="none").where(known, 0.0)
            w = self.weights(h.detach(), y, known)
            total = total + (1 - self.alpha) * w * other
        if self._once.begins(context):
            self._learn(features, y, known & (outputs.argmax(1) == y))
        return total

    def _begin(self, features: Tensor, context: StepContext) -> None:
        """Draw the prototypes when the width of features is known."""
        if self.bank is None:
            size = (self.n_classes, self.prototypes, features.shape[1])
            g, place = context.generator, features.device
            self.bank = unit(torch.randn(size, generator=g, device=place))
            self.counts = torch.zeros(size[:2], device=features.device)
        elif self.bank.device != features.device:
            assert self.counts is not None
            self.bank = self.bank.to(features.device)
            self.counts = self.counts.to(features.device)

    @torch.no_grad()
    def weights(self, features: Tensor, y: Tensor, known: Tensor) -> Tensor:
        """Return the weight of each trial, shape (n_trials,), with mean 1 of the known.

        Parameters
        ----------
        features : Tensor, shape (n_trials, n_features)
        y : Tensor of int64, shape (n_trials,)
        known : Tensor of bool, shape (n_trials,)
        """
        if not self.prototypes or math.isinf(self.temperature):
            return torch.ones_like(known, dtype=features.dtype)
        s = self._cosines(features, y).amax(1)
        s = (s / self.temperature).where(known, -torch.inf)
        count = known.sum()
        w = (count * s.softmax(0)).clamp(self.low, self.high).where(known, 0.0)
        return (w * count / w.sum().clamp_min(1e-30)).to(features.dtype)

    def _cosines(self, features: Tensor, y: Tensor) -> Tensor:
        """Return cosines with the prototypes of each trial's class, (n_trials, M)."""
        assert self.bank is not None
        return torch.einsum("nf,nmf->nm", unit(features).to(self.bank), self.bank[y])

    @torch.no_grad()
    def _learn(self, features: Tensor, y: Tensor, right: Tensor) -> None:
        """Move the prototypes that are nearest to trials classified right."""
        if not self.prototypes:
            return
        assert self.bank is not None and self.counts is not None
        bank = self.bank.flatten(0, 1)
        place = y * self.prototypes + self._cosines(features, y).argmax(1)
        share = right.to(bank)
        count = torch.zeros(len(bank)).to(bank).index_add(0, place, share)
        sums = torch.zeros_like(bank).index_add(
            0, place, unit(features).to(bank) * share[:, None]
        )
        mean = sums / count.clamp_min(1.0)[:, None]
        # At first a plain mean: what was drawn at random is soon forgotten.
        seen = self.counts.flatten()
        keep = (seen / (seen + count).clamp_min(1.0)).clamp_max(self.momentum)
        moved = unit(keep[:, None] * bank + (1 - keep[:, None]) * mean)
        bank = torch.where(count[:, None] > 0, moved, bank)
        self.bank, self.counts = (
            bank.view_as(self.bank),
            (seen + count).view_as(self.counts),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the prototypes."""
        if self.bank is None or self.counts is None:
            return {}
        return {"bank": self.bank, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self.bank, self.counts = state.get("bank"), state.get("counts")
