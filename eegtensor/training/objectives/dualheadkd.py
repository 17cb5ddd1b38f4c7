"""Distillation through a second head that is thrown away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels
from eegtensor.training.objectives._teachers import (
    Teacher,
    Teachers,
    feature_width,
    trained_teachers,
)

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


def binary_kl(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Return T^2 sum_k log cosh((s_k - t_k) / 2T) of each trial, shape (n_trials,).

    It is T^2 sum_k KL(Bernoulli(1/2) || Bernoulli(u_k)), u = sigmoid((s - t) / T),
    in a form that no difference of logits overflows.

    Parameters
    ----------
    student, teacher : Tensor, shape (n_trials, n_classes)
        Logits.
    temperature : float
    """
    z = ((student - teacher) / (2.0 * temperature)).abs()
    return temperature**2 * (z + F.softplus(-2.0 * z) - math.log(2.0)).sum(-1)


class DualHeadKD(nn.Module):
    """Dual-head distillation: the teacher's logits are matched by a second head.

    The network's own head learns the labels (add ``"cross-entropy"``); a head of
    this objective, on the same features and in no exported network, learns the
    teacher's logits by `binary_kl`. Trials of unknown class count as well.

    Parameters
    ----------
    teacher : Module | sequence of Module | Tensor, shape (n_trials, n_classes)
        Logits of several networks are averaged. By name, ``teachers`` copies of
        the network itself are trained first, from its start.
    n_features, n_classes : int
    hidden : int | None
        Width of a hidden layer of the second head, linear without.
    temperature : float
    align : bool
        Whether, where the gradient of this loss opposes that of the cross-entropy
        on the parameters before the head, its part along that one is taken out.
        Costs two more backward passes.
    random_state : int

    Notes
    -----
    The released alignment divides by the length of the whole gradient of the
    cross-entropy, its head's with it, which does not take the part out; here both
    are of the shared parameters, in their metric.

    References
    ----------
    P. Yang et al., "Dual-head knowledge distillation: enhancing logits utilization
    with an auxiliary head", arXiv 2411.08937.
    """

    per_trial = True
    training_only = True
    needs = ("features",)

    def __init__(
        self,
        teacher: Teacher,
        n_features: int,
        n_classes: int,
        *,
        hidden: int | None = None,
        temperature: float = 2.0,
        align: bool = False,
        random_state: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = check_number("temperature", temperature, above=0.0)
        self.align = check_option("align", align, (True, False))
        with torch.random.fork_rng([]):
            # Not torch.manual_seed, which would seed the GPUs as well.
            torch.default_generator.manual_seed(random_state)
            layers: list[nn.Module] = []
            if hidden is not None:
                layers = [nn.Linear(n_features, check_count("hidden", hidden))]
                layers.append(nn.ReLU())
            layers.append(nn.Linear(hidden or n_features, n_classes))
            self.head = nn.Sequential(*layers)
        self.teachers = Teachers(teacher)

    @classmethod
    def for_run(cls, setup: Setup, teachers: int = 1, **options: Any) -> DualHeadKD:
        """Return one that learns from copies of the network, trained first."""
        found = trained_teachers(setup, teachers)
        width = feature_width(setup)
        return cls(found, width, setup.n_classes, random_state=setup.seed, **options)

    def on_train_start(self, state: TrainState) -> None:
        """Move the teachers to where the run is."""
        self.teachers.to(state.device)

    def __call__(  # type: ignore[override]
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        h = context.features
        teacher = self.teachers.logits(batch)
        loss = binary_kl(
            self.head(h.to(next(self.head.parameters()))), teacher, self.temperature
        )
        if self.align and loss.requires_grad:
            loss = loss + self._taken_out(loss, batch, outputs, context)
        return loss

    def _taken_out(
        self, loss: Tensor, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return zeros whose gradient takes the opposing part out, (n_trials,)."""
        y, known = known_labels(batch, "DualHeadKD")
        task = F.cross_entropy(outputs, y, reduction="none") * known
        weight = 1.0 if batch.weight is None else batch.weight
        own = {id(p) for p in context.network.head.parameters()}
        shared = {n: p for n, p in context.space.leaves.items() if id(p) not in own}

        def gradient(losses: Tensor) -> dict[str, Tensor]:
            found = torch.autograd.grad(
                (losses * weight).mean(),
                list(shared.values()),
                retain_graph=True,
                allow_unused=True,
            )
            pairs = zip(shared.items(), found, strict=True)
            return {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}

        a, b = gradient(loss), gradient(task)
        points, adapters = context.space.points(), context.space.adapters
        with torch.no_grad():
            # <a, rgrad b> is the metric's inner product of both Riemannian gradients.
            up = {n: adapters[n].rgrad(points[n], g) for n, g in b.items()}
            dot = sum((a[n] * up[n]).sum().double() for n in up)
            square = sum((b[n] * up[n]).sum().double() for n in up)
            c = torch.as_tensor(dot / torch.as_tensor(square).clamp_min(1e-30))
            c = c.clamp_max(0.0).to(loss.dtype)
        (g,) = torch.autograd.grad(
            task.sum(), context.features, retain_graph=True, allow_unused=True
        )
        if g is None:
            fail(
                "align=True needs what enters the head as vectors",
                why="The head of this network takes maps, which are flattened here",
                fix="leave align out",
            )
        through = -c * (g * context.features).sum(1)
        # The value is that of the distillation alone.
        return through - through.detach()
