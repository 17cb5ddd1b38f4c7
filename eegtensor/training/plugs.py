"""The plugs of a run, sorted into the places where a step uses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.protocols import (
    Averager,
    Delta,
    GradTransform,
    Perturbation,
    Sampler,
    Step,
    StepContext,
    TrainState,
)
from eegtensor.training.workers import Workers


@dataclass(frozen=True)
class Plugs:
    """What changes a step.

    Attributes
    ----------
    first : list of Perturbation
        Drawn before the first pass: of inputs, of latent layers, and of weights
        where that takes no gradient.
    second : Perturbation | None
        Of weights, for a second pass.
    grad_transform : GradTransform | None
    averager : Averager | None
    """

    first: list[Perturbation]
    second: Perturbation | None
    grad_transform: GradTransform | None
    averager: Averager | None

    @classmethod
    def sort(
        cls,
        perturbation: Perturbation | Sequence[Perturbation],
        grad_transform: GradTransform | None = None,
        averager: Averager | None = None,
    ) -> Plugs:
        """Return plugs in their places.

        Raises
        ------
        EEGTensorError
            If a perturbation says no known place, or two are of weights.
        """
        if not isinstance(perturbation, Sequence):
            perturbation = [perturbation]
        for p in perturbation:
            check_option(
                f"{type(p).__name__}.where", p.where, ("input", "latent", "weight")
            )
        weight = [p for p in perturbation if p.where == "weight"]
        if len(weight) > 1:
            fail(
                "Two perturbations of weights: "
                + " and ".join(type(p).__name__ for p in weight),
                why="A step has one second pass, at one set of perturbed weights",
                fix="choose one of them",
            )
        second = weight[0] if weight and weight[0].extra_gradients else None
        latent = [p for p in perturbation if p.where == "latent"]
        if latent and getattr(second, "batch", "same") == "previous":
            fail(
                f"{type(second).__name__} passes the batch of the step before, "
                f"{type(latent[0]).__name__} changes features of this one",
                fix="give the first the option batch='same'",
            )
        first = [p for p in perturbation if p is not second]
        # Inputs are attacked at the weights of the step, before those move.
        first.sort(key=lambda p: p.where == "weight")
        return cls(first, second, grad_transform, averager)

    def all(self) -> list[Any]:
        """Return every plug that there is."""
        found = [*self.first, self.second, self.grad_transform, self.averager]
        return [plug for plug in found if plug is not None]

    @property
    def clean_statistics(self) -> bool:
        """Whether perturbed trials must not move running statistics."""
        return any(getattr(p, "clean_statistics", False) for p in self.first)

    def parts(self, **others: Any) -> dict[str, Any]:
        """Return everything with a state by a name, lists of things by numbers."""
        others |= {
            "perturbation": [*self.first, *([self.second] if self.second else [])],
            "grad_transform": self.grad_transform,
            "averager": self.averager,
        }
        named = {
            f"{name} {i}" if isinstance(value, list) else name: item
            for name, value in others.items()
            for i, item in enumerate(value if isinstance(value, list) else [value])
        }
        return {
            name: item
            for name, item in named.items()
            if hasattr(item, "state_dict") and hasattr(item, "load_state_dict")
        }


def apply_delta(delta: Delta, context: StepContext, reverts: ExitStack) -> None:
    """Put a perturbation in place until `reverts` closes."""
    # Entered before it is applied: a perturbation half in place is taken back too.
    reverts.callback(delta.revert)
    batch = delta.apply()
    if batch is not None:
        context.batch = batch


@torch.no_grad()
def mix_gradients(
    first: Sequence[tuple[nn.Parameter, Tensor | None]], mix: float
) -> None:
    """Make gradients (1 - mix) times those of the first pass plus mix times theirs."""
    if mix == 1.0:
        return
    for p, gradient in first:
        if p.grad is None:
            p.grad = None if gradient is None else gradient * (1.0 - mix)
        elif gradient is None:
            p.grad *= mix
        else:
            p.grad.lerp_(gradient, 1.0 - mix)


def transform_gradients(transform: GradTransform, context: StepContext) -> None:
    """Give the parameters the gradients that a transform returns."""
    named = dict(context.model.named_parameters())
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    for name, gradient in transform(gradients, context).items():
        named[name].grad = gradient


def check_needs(objective: WeightedSum, plugs: Iterable[Any]) -> bool:
    """Return whether features must be kept for these plugs.

    Raises
    ------
    EEGTensorError
        If a plug needs losses of trials that the objectives do not give.
    """
    plugs = [term for _, term in objective.terms] + list(plugs)
    for plug in plugs:
        if "losses of trials" in getattr(plug, "needs", ()) and objective.scalar_terms:
            fail(
                f"{type(plug).__name__} needs a loss of each trial, but one loss for "
                f"a whole batch comes from {', '.join(objective.scalar_terms)}",
                fix="choose objectives with per_trial=True",
            )
    return any("features" in getattr(plug, "needs", ()) for plug in plugs)


def check_parts(
    objective: WeightedSum, accumulate: int, workers: Workers | None
) -> None:
    """Raise unless a batch may be cut into so many parts, and among processes.

    Raises
    ------
    EEGTensorError
    """
    if accumulate < 1 or ((accumulate > 1 or workers) and objective.scalar_terms):
        fail(
            f"accumulate={accumulate}" + (" and workers" if workers else ""),
            why="One loss for a whole batch is no sum over its parts",
            fix="leave them out, or choose objectives with per_trial=True",
        )
    own = [type(o).__name__ for _, o in objective.terms if hasattr(o, "state_dict")]
    if workers and own:
        fail(
            f"{', '.join(own)} and workers",
            why="Each process would learn or remember its own part of the batches",
            fix="train in one process, or choose another objective",
        )


class EpochOf:
    """The plain recipe: one step for each batch of a sampler.

    Parameters
    ----------
    sampler : Sampler
    objective : WeightedSum
    """

    def __init__(self, sampler: Sampler, objective: WeightedSum) -> None:
        self.sampler = sampler
        self.objective = objective

    def steps(self, state: TrainState, data: Batch) -> Iterator[Step]:
        """Yield the steps of the epoch `state.epoch`.

        Raises
        ------
        EEGTensorError
            If the sampler has no batch, or weights meet an objective without
            losses of trials.
        """
        batches = self.sampler.indices(state.epoch)
        if not len(batches):
            fail(
                f"{type(self.sampler).__name__} has no batch in epoch {state.epoch}",
                fix="give it more trials or smaller batches",
            )
        weights = self.sampler.weights(state.epoch)
        if weights is not None:
            weights = weights.to(data.device)
            weights = weights if data.weight is None else weights * data.weight
            data = replace(data, weight=weights)
        if data.weight is not None and self.objective.scalar_terms:
            fail(
                "Trials have weights, but one loss for a whole batch comes from "
                + ", ".join(self.objective.scalar_terms),
                why="There are no losses of trials that weights could multiply",
                fix="leave the weights out, or choose objectives with per_trial=True",
            )
        # All at once: a copy to a GPU in every step would make it wait.
        order = torch.cat(list(batches)).to(data.device)
        for index in order.split([len(batch) for batch in batches]):
            yield Step(data.pick(index))
