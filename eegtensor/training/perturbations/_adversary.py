"""The worst displacements of the trials of a batch, for training on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.network import Network
from eegtensor.training.perturbations._ascent import NORMS, ascend, random_start
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.statistics import StatisticsGuard, evaluating

# What is raised: the loss of a displaced batch's outputs, of each trial or summed.
Raised = Callable[[Batch, Any], Tensor]


@dataclass(frozen=True)
class Budget:
    """How far trials may be moved, and in what steps.

    Attributes
    ----------
    eps, step_size : float
        Standard deviations of each channel.
    n_steps : int
    norm : "linf" | "l2"
        Of a trial's displacement.
    start : bool
        Whether to begin at random in the ball, and not at the trial.
    """

    eps: float
    step_size: float
    n_steps: int
    norm: str = "linf"
    start: bool = True

    @classmethod
    def checked(
        cls,
        eps: float,
        n_steps: int,
        step_size: float | None,
        norm: str,
        start: bool = True,
    ) -> Budget:
        """Return the budget that options say; steps are 2.5 eps / n_steps by default.

        Raises
        ------
        EEGTensorError
            If an option is out of range.
        """
        check_number("eps", eps, above=0.0)
        check_count("n_steps", n_steps)
        check_option("norm", norm, NORMS)
        check_option("start", start, (True, False))
        if step_size is None:
            step_size = 2.5 * eps / n_steps
        return cls(
            eps, check_number("step_size", step_size, above=0.0), n_steps, norm, start
        )


def signals_of(batch: Batch, who: str) -> Tensor:
    """Return the array of trials of a batch.

    Raises
    ------
    EEGTensorError
        If there is more than one.
    """
    if not isinstance(batch.x, Tensor):
        fail(
            f"{who} is on one array of trials, not on a {type(batch.x).__name__}",
            fix="use a network that takes the trials alone",
        )
    return batch.x.detach()


def moved(batch: Batch, d: Tensor, scale: Tensor) -> Batch:
    """Return a batch whose trials are displaced by d in units of the scale."""
    return replace(batch, x=batch.x + d * scale)


def raise_cross_entropy(batch: Batch, outputs: Tensor) -> Tensor:
    """Return the sum of the losses of trials with a label."""
    y = labels_of(batch, "An attack")
    return cross_entropy(outputs, y, reduction="sum", ignore_index=UNLABELLED)


@contextmanager
def aligned(network: Network, batch: Batch) -> Iterator[None]:
    """Inside, the network is in evaluation mode with statistics that saw the batch.

    Alignment comes before the attack: the statistics of the batch's domains move
    with the clean trials first (copies of them, which are thrown away), and are held
    while the attack looks for its way. So no attack meets statistics that nothing has
    set yet, whose unit would matter.
    """
    model = network.model
    with ExitStack() as stack:
        if any(True for _ in model.buffers()):
            stack.enter_context(StatisticsGuard(model, "transient"))
            if model.training:
                with torch.no_grad():
                    network(batch)
        stack.enter_context(evaluating(model))
        yield


def worst(
    network: Network,
    batch: Batch,
    budget: Budget,
    raised: Raised = raise_cross_entropy,
    generator: torch.Generator | None = None,
    *,
    scale: Tensor | None = None,
) -> Tensor:
    """Return displacements found by projected ascent (PGD), in standard deviations.

    The network is used as it is: see `aligned`. Trials that the loss says nothing
    of stay where they start.

    Parameters
    ----------
    network : Network
    batch : Batch
    budget : Budget
    raised : callable
        The loss to raise, of a batch and its outputs.
    generator : torch.Generator | None
    scale : Tensor, shape (1, n_channels, 1, ...) | None
        Standard deviations; None: those of the batch.

    References
    ----------
    A. Madry et al., "Towards deep learning models resistant to adversarial
    attacks", ICLR 2018, eq. 2.1 and section 2.1.
    """
    x = signals_of(batch, "An attack")
    scale = channel_scale(x) if scale is None else scale
    d = torch.zeros_like(x)
    if budget.start:
        d = random_start(x, budget.eps, budget.norm, generator)

    def gradient_of(at: Tensor) -> Tensor:
        with torch.enable_grad():
            at = at.detach().requires_grad_()
            there = moved(batch, at, scale)
            loss = raised(there, network(there)).sum()
        # Not backward(): the parameters may hold gradients of the task.
        return torch.autograd.grad(loss, at)[0]

    return ascend(
        gradient_of,
        d,
        eps=budget.eps,
        step_size=budget.step_size,
        n_steps=budget.n_steps,
        norm=budget.norm,
    )


class Displaced:
    """Trials to train on in place of those that came.

    Parameters
    ----------
    batch : Batch
    d : Tensor, shape (n_trials, ...)
        Standard deviations.
    """

    def __init__(self, batch: Batch, d: Tensor) -> None:
        self.batch, self.d = batch, d

    def apply(self) -> Batch:
        """Return the displaced trials."""
        return moved(self.batch, self.d, channel_scale(self.batch.x))

    def revert(self) -> None:
        """Do nothing: no trial was changed in place."""
