"""Z-loss: a loss of the standardised logit, for very many classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class ZLoss:
    """softplus(a (b - z)) / a of the true class's logit z, standardised over classes.

    Shift and scale of the logits do not count. For outputs of thousands of classes,
    such as the codes of a tokenizer, `z_loss_of_features` finds it without them.

    Trials without a label (y = -1) have loss 0.

    Parameters
    ----------
    a, b : float
        Slope, and where the loss bends. A logit among K cannot lie further than
        sqrt(K - 1) deviations above their mean: choose b of that size.

    References
    ----------
    A. de Brebisson and P. Vincent, "The Z-loss: a shift and scale invariant
    classification loss belonging to the spherical family", arXiv 1604.08859, eq. 4.
    """

    per_trial = True

    def __init__(self, a: float = 0.1, b: float = 10.0) -> None:
        self.a = check_number("a", a, above=0.0)
        self.b = check_number("b", b)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "ZLoss")
        own = outputs.gather(1, y[:, None]).squeeze(1)
        mean = outputs.mean(dim=1)
        variance = outputs.var(dim=1, correction=0)
        return z_loss(own, mean, variance, self.a, self.b).where(known, 0.0)


def z_loss(own: Tensor, mean: Tensor, variance: Tensor, a: float, b: float) -> Tensor:
    """Return the loss from the true class's logit and moments over the classes."""
    # Logits that are all equal, of a head that starts at zero, have no deviation to
    # divide by; a smaller bound would let the first gradient overflow.
    z = (own - mean) / variance.clamp_min(torch.finfo(own.dtype).eps ** 2).sqrt()
    return F.softplus(a * (b - z)) / a


def z_loss_of_features(
    h: Tensor, weight: Tensor, y: Tensor, a: float = 0.1, b: float = 10.0
) -> Tensor:
    """Return the Z-loss of logits ``h @ weight.T`` without computing them.

    Of all logits only the sum and the sum of squares are needed, h'(W'1) and
    h'(W'W)h: n_features^2 a trial, whatever the number of classes.

    Parameters
    ----------
    h : Tensor, shape (n_trials, n_features)
    weight : Tensor, shape (n_classes, n_features)
    y : Tensor of int64, shape (n_trials,)
    a, b : float

    Returns
    -------
    loss : Tensor, shape (n_trials,)
    """
    # Centred rows: the variance is no difference of large numbers.
    centre = weight.mean(dim=0)
    rows = weight - centre
    gram = rows.mT @ rows / len(weight)
    variance = ((h @ gram) * h).sum(dim=1)
    own = (h * weight[y]).sum(dim=1)
    return z_loss(own, h @ centre, variance, a, b)
