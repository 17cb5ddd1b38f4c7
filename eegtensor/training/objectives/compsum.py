"""Comp-sum losses: from sum-exponential over cross entropy to mean absolute error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eegtensor._check import check_number
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels, log_one_plus_sum

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext

# Below it (1 - tau) s is too small for expm1(x) / x in float32 near tau = 1.
_SERIES = 1e-4


class CompSum:
    """The comp-sum family of losses, one loss a trial.

    With S = sum_{k != y} exp((z_k - z_y) / rho) the loss is ((1 + S)^(1 - tau)
    - 1) / (1 - tau), and log(1 + S) at tau = 1. tau = 0 is sum-exponential, 1
    cross entropy, between 1 and 2 generalised cross entropy with q = tau - 1,
    and 2 the mean absolute error 1 - p_y. From 1 on a trial whose label is wrong
    pulls less, the larger tau.

    Trials without a label (y = -1) have loss 0.

    Parameters
    ----------
    tau : float
        1.7 or 2 where labels are noisy.
    rho : float
        Margin: logits are divided by it.

    Raises
    ------
    EEGTensorError
        If tau is negative or rho is not positive.

    References
    ----------
    A. Mao, M. Mohri and Y. Zhong, "Cross-entropy loss functions: theoretical
    analysis and applications", ICML 2023, eq. 3.
    """

    per_trial = True

    def __init__(self, tau: float = 1.0, rho: float = 1.0) -> None:
        self.tau = check_number("tau", tau, least=0.0)
        self.rho = check_number("rho", rho, above=0.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "CompSum")
        return comp_sum(outputs / self.rho, y, self.tau).where(known, 0.0)


def comp_sum(logits: Tensor, y: Tensor, tau: float) -> Tensor:
    """Return the comp-sum loss of logits (n_trials, n_classes), shape (n_trials,).

    Parameters
    ----------
    logits : Tensor, shape (n_trials, n_classes)
    y : Tensor of int64, shape (n_trials,)
    tau : float
    """
    s = log_one_plus_sum(logits, y)
    if tau == 1.0:
        return s
    power = (1.0 - tau) * s
    tiny = power.abs() < _SERIES
    # The branch that is not taken must not divide by zero either.
    exact = torch.expm1(power) / (1.0 - tau)
    return torch.where(tiny, s * (1.0 + power / 2.0 + power.square() / 6.0), exact)
