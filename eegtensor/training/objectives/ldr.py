"""Label-distributionally robust loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, check_option
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class LDR:
    """Label-distributionally robust loss, one loss a trial.

    u_k = margin [k != y] + f_k - f_y and L = lam log mean_k exp(u_k / lam): the
    worst class distribution, at a price of lam times its divergence from uniform.
    lam to 0 is the largest margin error (Crammer and Singer), lam to infinity the
    mean one; margin 0, lam 1 and no normalisation are cross entropy - log K.

    Trials without a label (y = -1) have loss 0.

    Parameters
    ----------
    margin : float
    lam : float
    normalise : bool
        Whether f is softplus of the logits, divided by its mean over classes, as
        the authors do.

    References
    ----------
    D. Zhu, Y. Ying and T. Yang, "Label distributionally robust losses for
    multi-class classification: consistency, robustness and adaptivity", ICML 2023.
    """

    per_trial = True

    def __init__(
        self, margin: float = 1.0, lam: float = 10.0, normalise: bool = True
    ) -> None:
        self.margin = check_number("margin", margin, least=0.0)
        self.lam = check_number("lam", lam, above=0.0)
        self.normalise = check_option("normalise", normalise, (True, False))

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "LDR")
        f = outputs
        if self.normalise:
            f = F.softplus(f)
            # Softplus of very negative logits is zero.
            tiny = torch.finfo(f.dtype).tiny
            f = f / f.mean(dim=1, keepdim=True).clamp_min(tiny)
        return robust_loss(f, y, self.margin, self.lam).where(known, 0.0)


def robust_loss(f: Tensor, y: Tensor, margin: float, lam: float | Tensor) -> Tensor:
    """Return lam log mean_k exp((margin [k != y] + f_k - f_y) / lam), (n_trials,).

    Parameters
    ----------
    f : Tensor, shape (n_trials, n_classes)
    y : Tensor of int64, shape (n_trials,)
    margin : float
    lam : float | Tensor, shape (n_trials,)
    """
    u = f - f.gather(1, y[:, None]) + margin * (1.0 - F.one_hot(y, f.shape[1]).to(f))
    lam = torch.as_tensor(lam, dtype=f.dtype, device=f.device)
    u = u / lam.reshape(-1, 1)
    return lam * (u.logsumexp(dim=1) - math.log(f.shape[1]))
