"""Several teachers' mean opinion, and a judge who tells them from the student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels
from eegtensor.training.objectives._teachers import Teacher, Teachers, trained_teachers

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


class MEALV2(nn.Module):
    """Ensemble distillation without labels: mean probabilities and a discriminator.

    The loss of a trial is the cross-entropy of the student to the mean of the
    teachers' probabilities, plus `adversary` times how well a small network tells
    the student's log-probabilities from the teachers'; that network learns to tell
    them, the student, by a reversed gradient, to be mistaken for them. Where trials
    are only evaluated the loss is the cross-entropy of their labels.

    Parameters
    ----------
    teacher : Module | sequence of Module | Tensor, shape (n_trials, n_classes)
        Trained networks, or a table of logits. By name, ``teachers`` copies of the
        network itself are trained first, from its start.
    n_classes : int
    adversary : float
        0 leaves the discriminator out.
    random_state : int

    Notes
    -----
    In the released code the student helps the discriminator (its gradient is not
    reversed), the last layer ends with a ReLU, which can die, and 1000 classes
    shrink to 125 and 15 units; here the first layer has at least 16 units, and the
    last starts at zero, so that a student who is the teacher stays where it is.

    References
    ----------
    Z. Shen and M. Savvides, "MEAL V2: boosting vanilla ResNet-50 to 80%+ top-1
    accuracy on ImageNet without tricks", arXiv 2009.08453, eq. 1 to 3.
    """

    per_trial = True

    def __init__(
        self,
        teacher: Teacher,
        n_classes: int,
        *,
        adversary: float = 1.0,
        random_state: int = 0,
    ) -> None:
        super().__init__()
        self.adversary = check_number("adversary", adversary, least=0.0)
        self.teachers = Teachers(teacher)
        self.judge: nn.Sequential | None = None
        if adversary > 0:
            width = max(n_classes // 2, 16)
            with torch.random.fork_rng([]):
                # Not torch.manual_seed, which would seed the GPUs as well.
                torch.default_generator.manual_seed(random_state)
                self.judge = nn.Sequential(
                    nn.Linear(n_classes, width),
                    nn.ReLU(),
                    nn.Linear(width, width // 2),
                    nn.ReLU(),
                    nn.Linear(width // 2, 2),
                )
            for p in self.judge[-1].parameters():
                nn.init.zeros_(p)

    @classmethod
    def for_run(cls, setup: Setup, teachers: int = 3, **options: Any) -> MEALV2:
        """Return one that learns from copies of the network, trained first."""
        found = trained_teachers(setup, teachers)
        return cls(found, setup.n_classes, random_state=setup.seed, **options)

    def on_train_start(self, state: TrainState) -> None:
        """Move the teachers to where the run is."""
        self.teachers.to(state.device)

    def __call__(  # type: ignore[override]
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        if not model.training:
            y, known = known_labels(batch, "MEALV2")
            return F.cross_entropy(outputs, y, reduction="none") * known
        q = self.teachers.probabilities(batch).to(outputs.dtype)
        own = outputs.log_softmax(1)
        loss = -(q * own).sum(1)
        if self.judge is not None:
            reversed_own: Tensor = _Reversed.apply(own)
            guess = self._guess(reversed_own, 0)
            truth = self._guess(q.clamp_min(torch.finfo(q.dtype).tiny).log(), 1)
            loss = loss + 0.5 * self.adversary * (guess + truth)
        return loss

    def _guess(self, logs: Tensor, who: int) -> Tensor:
        """Return how badly the judge tells whose log-probabilities these are."""
        assert self.judge is not None
        found = self.judge(logs.clamp_min(-20.0).to(next(self.judge.parameters())))
        wanted = torch.zeros_like(found)
        wanted[:, who] = 1.0
        return F.binary_cross_entropy_with_logits(found, wanted, reduction="none").mean(
            1
        )


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient has the other sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return x."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Return minus the gradient."""
        return -gradient
