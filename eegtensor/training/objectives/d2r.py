"""D2R: a robust guide shows where attacked and clean trials should come out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.batch import UNLABELLED, Batch
from eegtensor.training.network import Network, inner_module
from eegtensor.training.objectives._adversarial import attacked_pass, trains
from eegtensor.training.objectives._shared import known_labels
from eegtensor.training.perturbations._adversary import Budget, Raised
from eegtensor.training.perturbations.places import frozen

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup

DISTANCES = ("kl", "js", "mse", "ce")
GUIDES = ("none", "robust")


class D2R:
    """Dual regularisation with collaborative adversarial generation, one loss a trial.

    For the network f, a frozen guide g and the attacked trial x'

        CE(f(x), y) + clean_weight D(f(x), f(x'))
        + D(g(x'), f(x')) + logit_weight mean (f(x') - g(x'))^2

    x' is found by ascent along ``beta grad CE(f) + (1 - beta) grad CE(g)``. Without a
    guide beta is 1 and the second line is left out: TRADES with an attack on the cross
    entropy. The step's own pass is that of the clean trials, so that statistics never
    see others.

    Trials without a label (y = -1) have no cross entropy and are not attacked, beyond
    the random start.

    Parameters
    ----------
    guide : Module | None
        Trained already. By a string: "robust" first trains a copy of the run's network
        by PGD-AT with the same budget and epochs, "none" has no guide.
    eps : float
        In standard deviations of each channel over the batch.
    n_steps, step_size, norm
        As in `PGD`.
    beta : float
        Share of the network's own gradient in the attack.
    logit_weight, clean_weight : float
        lambda 1 and lambda 2.
    distance, clean_distance : "kl" | "js" | "mse" | "ce"
        D of the attacked and of the clean distribution: KL(p || q), Jensen-Shannon,
        squares of probabilities, cross entropy of p and q. No gradient goes to g.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    "Dual regularization loss with collaborative adversarial generation" (source list
    003, entry 14): a reconstruction from its abstract.
    """

    per_trial = True
    needs = ("raw trials",)

    def __init__(
        self,
        guide: nn.Module | None = None,
        eps: float = 0.1,
        n_steps: int = 10,
        step_size: float | None = None,
        norm: str = "linf",
        beta: float = 0.5,
        logit_weight: float = 1.0,
        clean_weight: float = 5.0,
        distance: str = "kl",
        clean_distance: str = "kl",
    ) -> None:
        if isinstance(guide, str):
            fail(f"guide={guide!r}", fix="give a trained network, or None")
        if not 0 <= check_number("beta", beta) <= 1:
            fail(f"beta={beta}", fix="give a share from 0 to 1")
        self.guide = None if guide is None else Network(guide)
        self.budget = Budget.checked(eps, n_steps, step_size, norm)
        self.beta = 1.0 if guide is None else beta
        self.logit_weight = check_number("logit_weight", logit_weight, least=0.0)
        self.clean_weight = check_number("clean_weight", clean_weight, least=0.0)
        self.distance = check_option("distance", distance, DISTANCES)
        self.clean_distance = check_option("clean_distance", clean_distance, DISTANCES)

    @classmethod
    def for_run(cls, setup: Setup, guide: str = "robust", **options: Any) -> D2R:
        """Return one with a guide that was trained before."""
        check_option("guide", guide, GUIDES)
        made = cls(None, **options)
        if guide == "none":
            return made
        return cls(_trained_guide(setup, made.budget), **options)

    def on_train_start(self, state: TrainState) -> None:
        """Take the guide to where the run is."""
        if self.guide is not None:
            self.guide.model.to(state.device).requires_grad_(False)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, type(self).__name__)
        loss = F.cross_entropy(outputs, y, reduction="none").where(known, 0.0)
        if not trains():
            return loss
        raised = self._raised(y, known)
        attacked, out, _ = attacked_pass(context, batch, self.budget, raised)
        if self.clean_weight:
            apart = distance(outputs, out, self.clean_distance)
            loss = loss + self.clean_weight * apart
        if self.guide is None:
            return loss
        with torch.no_grad(), frozen(self.guide.model):
            shown = self.guide(attacked)
        loss = loss + distance(shown, out, self.distance)
        if self.logit_weight:
            loss = loss + self.logit_weight * (out - shown).square().mean(1)
        return loss

    def _raised(self, y: Tensor, known: Tensor) -> Raised:
        """Return the loss that the attack raises."""
        own, guide = self.beta, self.guide
        target = y.where(known, UNLABELLED)

        def raised(batch: Batch, outputs: Tensor) -> Tensor:
            total = own * _cross_entropy(outputs, target)
            if guide is not None and own < 1:
                with frozen(guide.model):
                    total = total + (1 - own) * _cross_entropy(guide(batch), target)
            return total

        return raised


def distance(p: Tensor, q: Tensor, kind: str = "kl") -> Tensor:
    """Return how far the distribution of logits q is from that of p, (n_trials,).

    Parameters
    ----------
    p, q : Tensor, shape (n_trials, n_classes)
        Logits.
    kind : "kl" | "js" | "mse" | "ce"
    """
    check_option("distance", kind, DISTANCES)
    log_p, log_q = p.log_softmax(1), q.log_softmax(1)
    if kind == "mse":
        return (log_p.exp() - log_q.exp()).square().sum(1)
    if kind == "ce":
        return -(log_p.exp() * log_q).sum(1)
    if kind == "kl":
        return (log_p.exp() * (log_p - log_q)).sum(1)
    middle = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0)).to(log_p)
    both = log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle)
    return 0.5 * both.sum(1)


def _cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="sum", ignore_index=UNLABELLED)


def _trained_guide(setup: Setup, budget: Budget) -> nn.Module:
    """Return a copy of a run's network, trained on attacked trials."""
    # The loop imports objectives.
    from eegtensor.training.loop import train
    from eegtensor.training.named import make_plugs
    from eegtensor.training.perturbations.pgd import PGD
    from eegtensor.training.refit import refit_statistics

    model = copy.deepcopy(inner_module(setup.model))
    own = replace(setup, model=model, seed=setup.seed + 1000)
    alone = setup.data.domain is None or setup.batch_size < 2
    plugs = make_plugs(
        own,
        sampler="shuffle" if alone else "domain-balanced",
        perturbation=PGD(budget.eps, budget.n_steps, budget.step_size, budget.norm),
    )
    train(model, setup.data, epochs=setup.epochs, random_state=own.seed, **plugs)
    refit_statistics(model, setup.data)
    return model.requires_grad_(False)
