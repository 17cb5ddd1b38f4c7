"""What a network with a teacher's stage says to one with a student's."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels
from eegtensor.training.objectives._teachers import Teachers
from eegtensor.training.protocols import StepContext


class StageKD:
    """Module-to-module loss: labels, and what a network with the teacher's stage says.

    (1 - alpha) cross-entropy + alpha T^2 KL(teacher || student) of each trial.

    Parameters
    ----------
    teacher : Module | Tensor
    alpha, temperature : float

    References
    ----------
    K. M. Lo et al., "m2mKD: module-to-module knowledge distillation for modular
    transformers", arXiv 2402.16918, eq. 3. Its code divides by the number of
    entries, not of trials.
    """

    per_trial = True

    def __init__(
        self, teacher: Any, alpha: float = 0.5, temperature: float = 1.0
    ) -> None:
        self.teachers = Teachers(teacher)
        if not 0 <= check_number("alpha", alpha) <= 1:
            fail(f"alpha={alpha}", fix="give a share from 0 to 1")
        self.alpha = alpha
        self.temperature = check_number("temperature", temperature, above=0.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "StageKD")
        hard = F.cross_entropy(outputs, y, reduction="none") * known
        if not model.training:
            return hard
        T = self.temperature
        q = (self.teachers.logits(batch) / T).log_softmax(1)
        p = (outputs / T).log_softmax(1)
        # The teacher's entropy is no part of the gradient, but makes zero the least.
        soft = (q.exp() * (q - p)).sum(1) * T**2
        return (1 - self.alpha) * hard + self.alpha * soft
