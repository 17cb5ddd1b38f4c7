"""Several losses as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch

if TYPE_CHECKING:
    from eegtensor.training.protocols import Objective, StepContext


class WeightedSum:
    """Objectives as one: a scalar, the weighted sum of them.

    Losses of trials are averaged over the batch, each times the trial's weight
    where the batch has weights. They are not divided by the sum of the weights:
    with weights 1 / (n p) of trials drawn with probability p the gradient stays
    unbiased.

    Parameters
    ----------
    objective : Objective | sequence of Objective or (weight, Objective)
    """

    def __init__(
        self, objective: Objective | Sequence[Objective | tuple[float, Objective]]
    ) -> None:
        items = objective if isinstance(objective, Sequence) else [objective]
        self.terms: list[tuple[float, Objective]] = [
            item if isinstance(item, tuple) else (1.0, item) for item in items
        ]
        if not self.terms:
            fail("There is no objective", fix="give at least one, as CrossEntropy()")
        for factor, term in self.terms:
            check_number(f"The weight of {type(term).__name__}", factor)
            if not hasattr(term, "per_trial"):
                fail(
                    f"{type(term).__name__} does not say whether it gives one loss a "
                    "trial or a scalar",
                    fix="set its attribute per_trial to True or False",
                )

    @property
    def scalar_terms(self) -> list[str]:
        """Names of the objectives that give a scalar."""
        return [type(o).__name__ for _, o in self.terms if not o.per_trial]

    @property
    def modules(self) -> list[nn.Module]:
        """Objectives that are modules themselves."""
        return [o for _, o in self.terms if isinstance(o, nn.Module)]

    def evaluated(self) -> WeightedSum:
        """Return the sum of what trials that are not trained on are judged by."""
        kept = [t for t in self.terms if not getattr(t[1], "training_only", False)]
        if not kept:
            fail(
                "Every objective is of training alone: "
                + ", ".join(type(term).__name__ for _, term in self.terms),
                fix="add one that says how good outputs are, as CrossEntropy()",
            )
        return WeightedSum(kept)

    @property
    def needs_features(self) -> bool:
        """Whether an objective looks at what enters the network's head."""
        return any("features" in getattr(o, "needs", ()) for _, o in self.terms)

    def __call__(self, batch: Batch, outputs: Any, context: StepContext) -> Tensor:
        """Return the sum; losses of trials are left in ``context.trial_losses``."""
        total: Tensor | None = None
        trial_losses: Tensor | None = None
        for factor, objective in self.terms:
            loss = objective(context.model, batch, outputs, context)
            # A loss of shape (n, 1) would meet weights (n,) as n x n, unnoticed.
            if loss.shape != ((len(batch),) if objective.per_trial else ()):
                fail(
                    f"{type(objective).__name__} returned a loss of shape "
                    f"{tuple(loss.shape)} for {len(batch)} trials",
                    why="Its per_trial says " + str(objective.per_trial),
                    fix="return (n_trials,) with per_trial=True, a scalar with False",
                )
            if objective.per_trial:
                part = loss.detach() * factor
                trial_losses = part if trial_losses is None else trial_losses + part
                loss = (loss if batch.weight is None else loss * batch.weight).mean()
            # A product with one would be one more node of the graph in every step.
            loss = loss if factor == 1.0 else loss * factor
            total = loss if total is None else total + loss
        context.trial_losses = trial_losses
        assert total is not None
        return total
