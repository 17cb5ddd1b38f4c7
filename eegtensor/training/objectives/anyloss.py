"""AnyLoss: the score that is reported, made smooth, as the loss."""

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

METRICS = ("accuracy", "balanced-accuracy", "f", "g-mean", "kappa")


class AnyLoss:
    """One minus a score of the batch's soft confusion matrix: a scalar.

    Probabilities become almost binary by 1 / (1 + exp(-L (p - 1/2))), or by
    softmax(L p) of more than two classes; their sums over the trials of each
    class are the confusion matrix. For rare classes: a batch should hold trials
    of each; classes that it lacks are left out.

    Trials without a label (y = -1) do not count.

    Parameters
    ----------
    metric : "accuracy" | "balanced-accuracy" | "f" | "g-mean" | "kappa"
        "f" is of the second of two classes, of more the mean over them. "kappa"
        and more than two classes are not in the paper.
    beta : float
        Of "f": recall counts beta times as much as precision.
    steepness : float
        L. At the published 73 gradients vanish where \\|p - 1/2\\| > 0.1.
    start : float | None
        L grows from here to `steepness` over the run, by equal factors; 5, for
        one. None: L stays, as published.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    D. Han, N. Moniz and N. V. Chawla, "AnyLoss: transforming classification metrics
    into loss functions", KDD 2024.
    """

    per_trial = False

    def __init__(
        self,
        metric: str = "balanced-accuracy",
        beta: float = 1.0,
        steepness: float = 73.0,
        start: float | None = None,
    ) -> None:
        self.metric = check_option("metric", metric, METRICS)
        self.beta = check_number("beta", beta, above=0.0)
        self.steepness = check_number("steepness", steepness, above=0.0)
        self.start = start if start is None else check_number("start", start, above=0.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return 1 - score, a scalar."""
        y, known = known_labels(batch, "AnyLoss")
        truth = F.one_hot(y, outputs.shape[1]).to(outputs) * known[:, None]
        # Trials that are only evaluated are of no epoch: they get the final L.
        L = self.steepness
        if self.start is not None and context.epoch > 0:
            L = self.start * (L / self.start) ** context.progress
        confusion = truth.mT @ almost_binary(outputs, L)
        return 1.0 - score_of(confusion, self.metric, self.beta)


def almost_binary(logits: Tensor, steepness: float) -> Tensor:
    """Return soft predictions, rows sum to 1, shape (n_trials, n_classes)."""
    p = logits.softmax(dim=1)
    # With two classes L (p_1 - p_0) is 2 L (p_1 - 1/2), twice the published one.
    return (p * (steepness / 2 if p.shape[1] == 2 else steepness)).softmax(dim=1)


def score_of(confusion: Tensor, metric: str, beta: float = 1.0) -> Tensor:
    """Return a score of a confusion matrix, a scalar.

    Parameters
    ----------
    confusion : Tensor, shape (n_classes, n_classes)
        True classes by predicted ones; counts or sums of probabilities.
    metric : str
    beta : float
    """
    tiny = torch.finfo(confusion.dtype).eps
    hits, true = confusion.diagonal(), confusion.sum(dim=1)
    predicted, total = confusion.sum(dim=0), confusion.sum().clamp_min(tiny)
    present = true > 0
    recall = hits / true.clamp_min(tiny)
    n_present = present.sum().clamp_min(1)
    if metric == "accuracy":
        return hits.sum() / total
    if metric == "balanced-accuracy":
        return recall.where(present, 0.0).sum() / n_present
    if metric == "g-mean":
        # The logarithm of no recall at all would have no end.
        return (
            recall.clamp_min(tiny).log().where(present, 0.0).sum() / n_present
        ).exp()
    if metric == "f":
        weight = beta * beta
        f = (1 + weight) * hits / (weight * true + predicted).clamp_min(tiny)
        if len(hits) == 2:
            return f[1]
        return f.where(present, 0.0).sum() / n_present
    observed, expected = hits.sum() / total, (true * predicted).sum() / total.square()
    return (observed - expected) / (1.0 - expected).clamp_min(tiny)
