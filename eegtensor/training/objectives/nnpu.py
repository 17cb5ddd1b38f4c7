"""Learning from marked events and unmarked trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.batch import Batch, labels_of

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext

LOSSES = ("sigmoid", "logistic")


class NNPU:
    """Non-negative risk of positive and unlabelled trials, a scalar.

    ``prior E_P l(f) + max(0, E_U l(-f) - prior E_P l(-f))``, f the difference of
    the two logits, eq. 6 of the paper. Trials of class 1 are marked events, such as
    spikes or seizures; all others, whatever their y, are trials that may be either.

    Parameters
    ----------
    prior : float
        Share of events among the unlabelled trials.
    loss : "sigmoid" | "logistic"
        l(f) = 1 / (1 + exp f), as published, or log(1 + exp -f).
    beta : float
        How far below 0 the estimated risk of the others may fall before a step
        takes it back.
    gamma : float
        Factor of such a step.

    Raises
    ------
    EEGTensorError
        If the prior is not in (0, 1), or there are not two logits.

    References
    ----------
    R. Kiryo, G. Niu, M. C. du Plessis and M. Sugiyama, "Positive-unlabeled
    learning with non-negative risk estimator", NeurIPS 2017.
    """

    per_trial = False

    def __init__(
        self,
        prior: float,
        loss: str = "sigmoid",
        beta: float = 0.0,
        gamma: float = 1.0,
    ) -> None:
        for name, value in (("prior", prior), ("beta", beta), ("gamma", gamma)):
            check_number(name, value)
        if not 0 < prior < 1:
            fail(f"prior={prior}", fix="give the share of events, between 0 and 1")
        if not 0 <= beta <= prior or not 0 <= gamma <= 1:
            fail(f"beta={beta}, gamma={gamma}", fix="choose beta=0 and gamma=1")
        self.prior, self.beta, self.gamma = prior, beta, gamma
        self.loss = check_option("loss", loss, LOSSES)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the risk."""
        if outputs.ndim != 2 or outputs.shape[1] != 2:
            fail(
                f"Events are one of two classes, outputs are {tuple(outputs.shape)}",
                fix="give a network with n_outputs=2",
            )
        f = outputs[:, 1] - outputs[:, 0]
        event = (labels_of(batch, "nnPU") == 1).to(f.dtype)
        events = event / event.sum().clamp_min(1.0)
        others = (1.0 - event) / (1.0 - event).sum().clamp_min(1.0)
        missed = self.prior * (events * self._loss(f)).sum()
        false = self._loss(-f)
        rest = (others * false).sum() - self.prior * (events * false).sum()
        # Of events alone nothing is known of the others; not less than nothing.
        rest = rest * (others.sum() > 0)
        if not model.training:
            return missed + rest.clamp_min(0.0)
        # Below -beta the gradient is that of -gamma rest, which unlearns; the value
        # is that of the risk in any case.
        low = rest < -self.beta
        shown = torch.where(low, missed.detach() - self.beta, missed + rest)
        back = torch.where(low, -self.gamma * rest, torch.zeros_like(rest))
        return shown + (back - back.detach())

    def _loss(self, f: Tensor) -> Tensor:
        return torch.sigmoid(-f) if self.loss == "sigmoid" else softplus(-f)
