"""Virtual adversarial training: predictions that hold near every trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option
from eegtensor.training.batch import UNLABELLED, Batch
from eegtensor.training.objectives._shared import features_kept
from eegtensor.training.perturbations.places import PLACES, Trials, frozen
from eegtensor.training.perturbations.scales import units

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext
    from eegtensor.training.registry import Setup


class VAT:
    """Virtual adversarial training with entropy, one loss a trial.

    ``weight KL(p(x) || p(x + eps d)) + entropy H(p(x))``, d the direction of unit
    length that changes p most (eq. 5 to 9 of the paper), found by power
    iterations from a random one. Trials need no label; p(x) in the divergence is
    held fixed. The extra passes are in evaluation statistics.

    Parameters
    ----------
    eps : float | None
        Length of the perturbation, in standard deviations of the channels, or in
        the affine-invariant metric of SPD matrices. None: half the median
        distance to the nearest trial of the batch, for signals
        0.05 sqrt(n_channels n_times).
    weight, entropy : float
        Of the divergence and of the entropy. More than the default was seen to
        hurt, and domains that were not recentred to be destroyed.
    ramp : int
        Steps over which both grow from 0.
    xi : float
        Length of the step at which power iterations take their gradient.
    n_iter : int
    at : "auto" | "input" | "spd"
        What is perturbed: the trials, or the SPD matrices made of them, which
        "auto" takes where there are some.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    T. Miyato, S. Maeda, M. Koyama and S. Ishii, "Virtual adversarial training: a
    regularization method for supervised and semi-supervised learning", IEEE
    TPAMI 2019.
    """

    per_trial = True
    training_only = True

    def __init__(
        self,
        eps: float | None = None,
        weight: float = 0.3,
        entropy: float = 0.3,
        ramp: int = 100,
        xi: float = 1e-2,
        n_iter: int = 1,
        at: str = "auto",
    ) -> None:
        self.eps = eps if eps is None else check_number("eps", eps, above=0.0)
        self.weight = check_number("weight", weight, least=0.0)
        self.entropy = check_number("entropy", entropy, least=0.0)
        self.ramp = check_count("ramp", ramp, least=0)
        self.xi = check_number("xi", xi, above=0.0)
        self.n_iter = check_count("n_iter", n_iter)
        self.at = check_option("at", at, PLACES)
        self.needs = ("raw trials",) if at == "input" else ()
        self.share_labelled = 1.0

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> Self:
        """Return one whose weights are relative to the loss of labelled trials.

        Trials without a label have no loss but count in the mean over the batch:
        where few have one, their loss would be lost beside this one.
        """
        method = cls(**options)
        if setup.data.y is not None and not setup.data.y.is_floating_point():
            share = float((setup.data.y != UNLABELLED).double().mean())
            method.share_labelled = share or 1.0
        return method

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        share = min(context.step / self.ramp, 1.0) if self.ramp else 1.0
        share *= self.share_labelled
        total = torch.zeros(len(batch), dtype=outputs.dtype, device=outputs.device)
        if self._looks():
            # Other objectives look at the features of the step's own pass.
            with features_kept(context):
                total = total + share * self._weighted(context, batch)
        if self.entropy:
            total = total + share * self.entropy * entropy_of(outputs)
        return total

    def _looks(self) -> bool:
        """Whether any divergence counts."""
        return self.weight > 0

    def _weighted(self, context: StepContext, batch: Batch) -> Tensor:
        return self.weight * self.smoothness(context, batch)

    def smoothness(self, context: StepContext, batch: Batch) -> Tensor:
        """Return KL(p(x) || p(x + eps d)) of each trial, shape (n_trials,)."""
        with frozen(context.model):
            trials = Trials(context.network, batch, self.at)
            with torch.no_grad():
                before = trials.logits().log_softmax(1)
            eps = trials.usual_distance() / 2 if self.eps is None else self.eps
            d = self.direction(trials, before, trials.noise(context.generator))
            return divergence(before, trials.logits(eps * d))

    def direction(self, trials: Trials, before: Tensor, d: Tensor) -> Tensor:
        """Return the unit displacements that change outputs most, from others d."""
        for _ in range(self.n_iter):
            d = (self.xi * units(d)).requires_grad_()
            change = divergence(before, trials.logits(d, search=True)).sum()
            # Not backward(): the parameters hold gradients of the task.
            d = torch.autograd.grad(change, d)[0]
        return units(d).detach()


def divergence(before: Tensor, logits: Tensor) -> Tensor:
    """Return KL(p || softmax(logits)) of trials, from p's logarithms."""
    return (before.exp() * (before - logits.log_softmax(1))).sum(1)


def entropy_of(logits: Tensor) -> Tensor:
    """Return the entropy of softmax(logits) in nats, shape (n_trials,)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
