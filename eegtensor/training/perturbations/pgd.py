"""PGD: training on trials moved to where they are classified worst."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from eegtensor._check import check_option
from eegtensor.training.batch import Batch
from eegtensor.training.perturbations._adversary import (
    Budget,
    Displaced,
    Raised,
    aligned,
    raise_cross_entropy,
    worst,
)

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext

LOSSES = ("cross-entropy", "kl")


class PGD:
    """Adversarial training by projected gradient descent (PGD-AT).

    Each step is made on trials displaced by ``d <- project(d + a direction(grad))``,
    n_steps times from a random start in the ball of radius eps. Domain statistics
    move with the clean trials only; they are moved before the attack and held during
    it (alignment before attack). The weights of the step are those that are
    attacked, also where a perturbation of weights follows. Trials without a label
    stay near where they are, at the random start.

    Parameters
    ----------
    eps : float
        Radius, in standard deviations of each channel over the batch.
    n_steps : int
    step_size : float | None
        None: 2.5 eps / n_steps, as published (8, 10 and 2 of 255).
    norm : "linf" | "l2"
        Of the largest sample, or of the whole trial.
    start : bool
        Whether to begin at random.
    loss : "cross-entropy" | "kl"
        What is raised; the second is the divergence from the outputs for the clean
        trials, which needs no labels, but a random start.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    A. Madry et al., "Towards deep learning models resistant to adversarial
    attacks", ICLR 2018, eq. 2.1; H. Zhang et al., "Theoretically principled trade-off
    between robustness and accuracy", ICML 2019 (the divergence); alignment before
    attack after X. Chen et al., arXiv 2411.02094.
    """

    where: Literal["input"] = "input"
    clean_statistics = True
    needs = ("raw trials",)

    def __init__(
        self,
        eps: float = 0.1,
        n_steps: int = 10,
        step_size: float | None = None,
        norm: str = "linf",
        start: bool = True,
        loss: str = "cross-entropy",
    ) -> None:
        self.budget = Budget.checked(eps, n_steps, step_size, norm, start)
        self.loss = check_option("loss", loss, LOSSES)

    @property
    def extra_gradients(self) -> int:
        """Gradients that a step costs beyond its own."""
        return self.budget.n_steps

    def budget_of(self, context: StepContext) -> Budget:
        """Return the budget of a step."""
        return self.budget

    def sample(self, context: StepContext) -> Displaced:
        """Find where the trials of a batch go."""
        network, batch = context.network, context.batch
        with aligned(network, batch):
            raised: Raised = raise_cross_entropy
            if self.loss == "kl":
                with torch.no_grad():
                    raised = divergence_from(network(batch))
            budget = self.budget_of(context)
            d = worst(network, batch, budget, raised, context.generator)
        return Displaced(batch, d)


def divergence_from(clean: Tensor) -> Raised:
    """Return the loss sum KL(softmax(clean) || softmax(outputs)) over trials."""
    before = clean.detach().log_softmax(1)

    def raised(batch: Batch, outputs: Tensor) -> Tensor:
        return (before.exp() * (before - outputs.log_softmax(1))).sum()

    return raised
