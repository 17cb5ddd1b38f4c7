"""Loki loss: probabilities judged where their squared distances meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, check_option
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class LokiLoss:
    """Cross entropy of -p D^2 / temperature, one loss a trial.

    p are the network's probabilities and D the distances of the classes, which lie
    on a line (sleep stages, levels), on a circle (directions), or all at distance
    one: decisions by the Frechet mean are trained as they are made, see
    `LokiClassifier`.

    Trials without a label (y = -1) have loss 0.

    Parameters
    ----------
    metric : "line" | "circle" | "zero-one"
        Between classes as their codes stand.
    temperature : float
        Divides squared distances; 1 as published.

    References
    ----------
    N. Roberts et al., "Geometry-aware adaptation for pretrained models", NeurIPS 2023.
    """

    per_trial = True

    def __init__(self, metric: str = "line", temperature: float = 1.0) -> None:
        # Early, not in the first step.
        label_distances(metric, 2)
        self.metric = metric
        self._D: Tensor | None = None
        self.temperature = check_number("temperature", temperature, above=0.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "LokiLoss")
        if self._D is None or self._D.shape[0] != outputs.shape[1]:
            self._D = label_distances(self.metric, outputs.shape[1])
        # Kept where it is used: a copy in every step would make a GPU wait.
        self._D = D = self._D.to(outputs)
        score = -outputs.softmax(dim=1) @ D.square() / self.temperature
        return F.cross_entropy(score, y, reduction="none").where(known, 0.0)


def label_distances(metric: str, n_classes: int) -> Tensor:
    """Return distances of classes 0.. by their codes, (n_classes, n_classes) float64.

    Parameters
    ----------
    metric : "line" | "circle" | "zero-one"
    n_classes : int
    """
    check_option("metric", metric, ("line", "circle", "zero-one"))
    codes = torch.arange(n_classes, dtype=torch.float64)
    away = (codes[:, None] - codes[None, :]).abs()
    if metric == "circle":
        return torch.minimum(away, n_classes - away)
    return away if metric == "line" else (away > 0).double()
