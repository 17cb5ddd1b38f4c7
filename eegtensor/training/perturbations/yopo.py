"""YOPO: most steps of the attack pass the first layer alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.perturbations._adversary import moved, signals_of
from eegtensor.training.perturbations._ascent import (
    NORMS,
    ascent_direction,
    project,
    random_start,
)
from eegtensor.training.perturbations._firstlayer import Cut, FirstLayer
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.statistics import StatisticsGuard
from eegtensor.training.workers import Workers

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class YOPO:
    """Adversarial training that propagates once for several steps (YOPO-m-n).

    With a network g(f0(x)), m times: one pass gives the gradient of g's weights at the
    trials as they are displaced and p, the loss's gradient at f0's output; n steps of
    the attack then go up <p, f0(x + d)>, through f0 alone; f0's weights get the
    gradient of <p, f0(x + d)> where the trials have come to. The step of the optimizer
    has the mean of the m gradients. With n=1 the trials go the way of PGD with m steps.

    f0 is all that leads to the SPD matrices in networks that make some (filters,
    covariance and BiMap; g begins with the decompositions), elsewhere the first module
    with weights. Where f0 is linear all n steps have one direction.

    The m passes train the network, so that they are in training mode, each from the
    statistics that the step began with; statistics move with the clean trials only.
    Not for several processes, nor together with perturbations of weights or objectives
    that make passes of their own.

    Parameters
    ----------
    eps : float
        In standard deviations of each channel over the batch.
    m, n : int
    step_size : float | None
        None: eps / 4, as published (2 and 8 of 255).
    norm : "linf" | "l2"
    at : str
        "auto", or the name of the module whose output ends f0.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    Notes
    -----
    The paper takes the sum of the m gradients and divides the learning rate by m. The
    authors' code adds to f0's gradient that of the full passes as well, so that f0
    moves twice as far; here, as in the paper, it does not.

    References
    ----------
    D. Zhang, T. Zhang, Y. Lu, Z. Zhu and B. Dong, "You only propagate once:
    accelerating adversarial training via maximal principle", NeurIPS 2019, alg. 1.
    """

    where: Literal["input"] = "input"
    clean_statistics = True
    needs = ("raw trials",)

    def __init__(
        self,
        eps: float = 0.1,
        m: int = 5,
        n: int = 3,
        step_size: float | None = None,
        norm: str = "linf",
        at: str = "auto",
    ) -> None:
        self.eps = check_number("eps", eps, above=0.0)
        self.m, self.n = check_count("m", m), check_count("n", n)
        step_size = eps / 4 if step_size is None else step_size
        self.step_size = check_number("step_size", step_size, above=0.0)
        self.norm = check_option("norm", norm, NORMS)
        self.at = at
        self._layer: FirstLayer | None = None

    def on_train_start(self, state: TrainState) -> None:
        """Forget the network of an earlier run."""
        self._layer = None

    @property
    def extra_gradients(self) -> int:
        """Whole passes of a step beyond its own, one at least with those of f0."""
        return max(self.m - 1, 1)

    def sample(self, context: StepContext) -> Propagation:
        """Make the first m - 1 passes."""
        if Workers.running() is not None:
            fail(
                "YOPO in several processes",
                why="The gradients of its passes would not be added up among them",
                fix="train in one process, or by 'pgd'",
            )
        if self._layer is None or self._layer.network.model is not context.model:
            self._layer = FirstLayer(context.network, self.at, context.batch)
        self._layer.network = context.network
        passes = Propagation(self, context, self._layer)
        for _ in range(self.m - 1):
            passes.make()
        return passes


class Propagation:
    """The passes of one step: displacements, and gradients that add up.

    Parameters
    ----------
    method : YOPO
    context : StepContext
    layer : FirstLayer
    """

    def __init__(self, method: YOPO, context: StepContext, layer: FirstLayer) -> None:
        self.method, self.context, self.layer = method, context, layer
        self.batch: Batch = context.batch
        x = signals_of(self.batch, "YOPO")
        self.scale = channel_scale(x)
        self.d = random_start(x, method.eps, method.norm, context.generator)
        self.d.requires_grad_()
        learning = [context.model, *getattr(context.objective, "modules", ())]
        self.weights: list[nn.Parameter] = [
            p for module in learning for p in module.parameters() if p.requires_grad
        ]
        self.gradients: list[Tensor | None] = [None] * len(self.weights)
        # Of the pass before: f0's weights get theirs where the next pass is.
        self.before: list[Tensor] | None = None
        self._reverts = ExitStack()
        self._own = Cut()

    def make(self) -> None:
        """Make a whole pass, and the n steps of the attack that go with it."""
        model, n_trials = self.context.model, len(self.batch)
        with StatisticsGuard(model, "transient"), self.layer.cut(n_trials) as cut:
            loss = self.context.loss(self._there())
            found = torch.autograd.grad(
                loss, [*cut.leaves, *self.weights], allow_unused=True
            )
        costates = found[: len(cut.leaves)]
        self._add(found[len(cut.leaves) :])
        self._advance(cut, [p for p in costates if p is not None])

    def apply(self) -> Batch:
        """Return the trials of the m-th pass, which is the step's own."""
        self._own = self._reverts.enter_context(self.layer.cut(len(self.batch)))
        return self._there()

    def revert(self) -> None:
        """Give the parameters the mean of all passes' gradients."""
        self._reverts.close()
        costates = self._own.costates
        if costates is None:
            # The pass failed, and so does the step.
            return
        self._add([p.grad for p in self.weights])
        self._advance(self._own, costates)
        out = self.layer(self._there())
        self._add_first([out], [torch.cat(self.before or [])], keep=False)
        for p, gradient in zip(self.weights, self.gradients, strict=True):
            p.grad = None if gradient is None else gradient / self.method.m
        self._own = Cut()

    def _there(self) -> Batch:
        """Return the batch where its trials are now."""
        return moved(self.batch, self.d, self.scale)

    def _advance(self, cut: Cut, costates: list[Tensor]) -> None:
        """Take the gradient of f0's weights at the cut, and go n steps on."""
        if self.before is not None:
            self._add_first(cut.outputs, self._like(cut.outputs), keep=True)
        outputs = cut.outputs
        self.before = costates
        for k in range(self.method.n):
            if k:
                outputs = [self.layer(self._there())]
            up = torch.autograd.grad(outputs, self.d, self._like(outputs))[0]
            with torch.no_grad():
                step = self.method.step_size * ascent_direction(up, self.method.norm)
                self.d = project(self.d + step, self.method.eps, self.method.norm)
            self.d.requires_grad_()

    def _like(self, outputs: list[Tensor]) -> list[Tensor]:
        """Return p cut as these outputs are: a batch may pass in parts."""
        whole = torch.cat(self.before or [])
        return list(whole.split([len(out) for out in outputs]))

    def _add_first(self, outputs: list[Tensor], p: list[Tensor], *, keep: bool) -> None:
        if not self.weights or not any(out.requires_grad for out in outputs):
            return
        self._add(
            torch.autograd.grad(
                outputs, self.weights, p, allow_unused=True, retain_graph=keep
            )
        )

    def _add(self, gradients: tuple[Tensor | None, ...] | list[Tensor | None]) -> None:
        for i, gradient in enumerate(gradients):
            have = self.gradients[i]
            if gradient is not None:
                self.gradients[i] = (
                    gradient.detach() if have is None else have + gradient.detach()
                )
