"""Doubly robust losses: trials, or people, count more the larger their loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import OncePerStep, known_labels

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState

GROUPS = ("trial", "domain")


class DoublyRobust:
    """Cross entropy reweighted by the worst mixture near the uniform one (DONE).

    ``r log mean exp(l / r)`` over the losses l of a batch is the largest mean loss of
    any weights, less r times their divergence from uniform ones. Its gradient is that
    of losses times w = exp(l / r) / s, held fixed, with s = mean exp(l / r). A running
    s takes the bias out that small batches have. With ``perturbation="pgd"`` the losses
    are those of attacked trials: robust to attacks and to shares of trials.

    Trials without a label (y = -1) have loss 0 and no part in s.

    Parameters
    ----------
    r : float
        Large: all trials alike. Small: the worst alone.
    groups : "trial" | "domain"
        What is reweighted; of domains l is the mean of their trials in the batch.
    rate : float
        Weight of the batch in the running s; 1 is the batch alone.
    normalise : bool
        Measure losses in running means of theirs, so that r keeps its meaning as losses
        fall.
    most : float
        Bound of weights.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    D. Sow, S. Lin, Z. Wang and Y. Liang, "Doubly robust instance-reweighted
    adversarial training", ICLR 2024: its practical core, without the bilevel
    formulation.
    """

    per_trial = True

    def __init__(
        self,
        r: float = 1.0,
        groups: str = "trial",
        rate: float = 0.1,
        normalise: bool = True,
        most: float = 10.0,
    ) -> None:
        self.r = check_number("r", r, above=0.0)
        self.groups = check_option("groups", groups, GROUPS)
        if not 0 < check_number("rate", rate) <= 1:
            fail(f"rate={rate}", fix="give a share above 0, at most 1")
        self.rate = rate
        self.normalise = check_option("normalise", normalise, (True, False))
        self.most = check_number("most", most, least=1.0)
        self._once = OncePerStep()
        # Running s and mean loss; 0 is none yet.
        self.s = torch.zeros((), dtype=torch.float64)
        self.level = torch.zeros((), dtype=torch.float64)

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run."""
        self._once = OncePerStep()
        if state.epoch == 0:
            self.s = torch.zeros_like(self.s)
            self.level = torch.zeros_like(self.level)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, type(self).__name__)
        losses = F.cross_entropy(outputs, y, reduction="none").where(known, 0.0)
        if not torch.is_grad_enabled():
            return losses
        learn = self._once.begins(context)
        return losses * self.weights(losses, known, batch.domain, learn).to(losses)

    @torch.no_grad()
    def weights(
        self,
        losses: Tensor,
        known: Tensor,
        domain: Tensor | None = None,
        learn: bool = True,
    ) -> Tensor:
        """Return the weight of each trial, shape (n_trials,), float64.

        Parameters
        ----------
        losses, known : Tensor, shape (n_trials,)
        domain : Tensor of int64, shape (n_trials,) | None
        learn : bool
            Whether running means move.
        """
        counted = known.double()
        found = self._grouped(losses.detach().double(), counted, domain)
        if self.normalise:
            level = self._running("level", _mean(found, counted), learn)
            found = found / level.clamp_min(1e-30)
        # Seen from the largest: exponentials of large losses would overflow.
        scaled = found / self.r
        top = scaled.where(known, -torch.inf).amax().nan_to_num(neginf=0.0)
        risen = (scaled - top).exp()
        if self.rate == 1.0:
            w = risen / _mean(risen, counted).clamp_min(1e-300)
        else:
            back = top.clamp_max(80.0).exp()
            s = self._running("s", _mean(risen, counted) * back, learn)
            w = risen * back / s.clamp_min(1e-300)
        return w.clamp_max(self.most)

    def _grouped(
        self, losses: Tensor, counted: Tensor, domain: Tensor | None
    ) -> Tensor:
        """Return each trial's loss, or the mean of its domain's in the batch."""
        if self.groups == "trial":
            return losses
        if domain is None:
            fail(
                "DoublyRobust(groups='domain') got trials without domains",
                fix="pass subjects and sessions to fit",
            )
        same = (domain[:, None] == domain).double() * counted
        return same @ losses / same.sum(1).clamp_min(1.0)

    def _running(self, name: str, value: Tensor, learn: bool) -> Tensor:
        """Return a running mean with a value in it."""
        old: Tensor = getattr(self, name).to(value.device)
        moved = torch.where(old > 0, old + self.rate * (value - old), value)
        if learn:
            setattr(self, name, moved)
        return moved

    def state_dict(self) -> dict[str, Tensor]:
        """Return the running means."""
        return {"s": self.s, "level": self.level}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self.s, self.level = state["s"], state["level"]


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum() / counted.sum().clamp_min(1.0)
