"""Logit-adjusted softmax: cross entropy that knows how often classes came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.objectives._shared import known_labels

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


class LogitAdjusted:
    """Cross entropy of z + tau log(count), one loss a trial.

    The counts are those of the classes in the last `batches` batches, or in all
    training trials: the network need not learn them, and its logits are those of
    balanced classes. For streams whose classes come in runs, and for rare classes.
    A class that did not come gets no gradient.

    Where losses are only evaluated it is cross entropy. Trials without a label
    (y = -1) have loss 0 and do not count.

    Parameters
    ----------
    tau : float
    batches : int | None
        None: the counts of all training trials.
    counts : Tensor, shape (n_classes,) | None
        Those counts; ``"logit-adjusted"`` by name finds them out.

    References
    ----------
    Z. Huang et al., "Online continual learning via logit adjusted softmax", TMLR 2024
    (batches). A. K. Menon et al., "Long-tail learning via logit adjustment", ICLR
    2021, eq. 10 (all trials).
    """

    per_trial = True

    def __init__(
        self, tau: float = 1.0, batches: int | None = 1, counts: Tensor | None = None
    ) -> None:
        self.tau = check_number("tau", tau, least=0.0)
        self.batches = batches if batches is None else check_count("batches", batches)
        if batches is None and counts is None:
            fail(
                "batches=None stands for all training trials",
                fix="give their counts, shape (n_classes,)",
            )
        # Of the current batch first, of those before it in the other rows.
        self.recent: Tensor | None = None if batches is not None else counts
        self._step = -1

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> LogitAdjusted:
        """Return the objective of a run's trials."""
        counts = _counts(labels_of(setup.data, "LogitAdjusted"), setup.n_classes)
        return cls(**{"counts": counts} | options)

    def on_train_start(self, state: TrainState) -> None:
        """Forget the batches of an earlier run."""
        if state.epoch == 0 and self.batches is not None:
            self.recent, self._step = None, -1

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        known_labels(batch, "LogitAdjusted")
        y = labels_of(batch, "LogitAdjusted")
        if torch.is_grad_enabled() and self.tau > 0:
            counts = self._current(batch, outputs.shape[1], context)
            # log 0 takes an absent class out; not 0 * log 0, which is no number.
            outputs = outputs + self.tau * counts.to(outputs).log()
        return F.cross_entropy(outputs, y, reduction="none", ignore_index=UNLABELLED)

    def _current(self, batch: Batch, n_classes: int, context: StepContext) -> Tensor:
        """Return the counts of classes that hold for this step."""
        if self.batches is None:
            assert self.recent is not None
            # A class that is only in the labels of the batch keeps a finite logit.
            return self.recent.to(batch.device).clamp_min(1e-6)
        # The whole batch, also where it passes in parts.
        whole = batch if context.clean is None else context.clean
        now = _counts(labels_of(whole, "LogitAdjusted"), n_classes)
        if self.recent is None:
            self.recent = torch.zeros_like(now).repeat(self.batches, 1)
        self.recent = self.recent.to(now.device)
        # A second pass of the same step is no other batch.
        if context.step != self._step or context.step == 0:
            self.recent = self.recent.roll(1, dims=0)
            self._step = context.step
        self.recent[0] = now
        # The second pass may be on another batch, whose classes are not absent.
        own = _counts(labels_of(batch, "LogitAdjusted"), n_classes)
        counts = torch.maximum(self.recent.sum(dim=0), own)
        # Without any labelled trial there is nothing to know: of -inf alone the
        # gradient would be no number.
        return counts.where(counts.sum() > 0, 1.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the counts, for checkpoints."""
        return {} if self.recent is None else {"recent": self.recent}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the counts of `state_dict`."""
        if "recent" in state:
            self.recent = state["recent"].clone()


def _counts(y: Tensor, n_classes: int) -> Tensor:
    known = (y >= 0).to(torch.float32)
    counts = torch.zeros(n_classes, device=y.device)
    return counts.index_add_(0, y.clamp_min(0), known)
