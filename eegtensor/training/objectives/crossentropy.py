"""Cross entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor.training.batch import UNLABELLED, Batch, labels_of

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class CrossEntropy:
    """Cross entropy of logits, shape (n_trials, n_classes), one loss a trial.

    Trials without a label (y = -1) have loss 0.
    """

    per_trial = True

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return -log softmax(outputs)[y], shape (n_trials,)."""
        y = labels_of(batch, "Cross entropy")
        return F.cross_entropy(outputs, y, reduction="none", ignore_index=UNLABELLED)
