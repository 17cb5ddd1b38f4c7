"""RWP: half of the gradient at weights with random noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.perturbations._noise import relative_noise
from eegtensor.training.perturbations.moves import Move
from eegtensor.training.space import ParamSpace, Tangent

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class NoisyMove(Move):
    """Weights moved by noise, for a pass on another batch where one is given."""

    def __init__(self, space: ParamSpace, tangent: Tangent, batch: Batch | None):
        super().__init__(space, tangent)
        self._batch = batch

    def apply(self) -> Batch | None:  # type: ignore[override]
        """Go there, and return the trials of the pass."""
        super().apply()
        return self._batch


class RWP:
    """Random weight perturbation.

    The gradient of a step is ``(1 - mix) grad L(w; B1) + mix grad L(w + e; B2)``
    with noise e relative to the weights: N(0, (sigma ||w_i||)^2) for each filter
    w_i, and on manifolds an isotropic tangent of relative length sigma, followed
    by retraction. Only the pass at w moves running statistics.

    B2 is the batch of the step before: two different batches have independent
    gradients, and each trial is used once at w and once at w + e. The first step
    of an epoch has none before and uses its own.

    Parameters
    ----------
    sigma : float
        Size of the noise relative to the weights (gamma in the authors' code).
    mix : float
        Weight of the gradient at w + e, in (0, 1] (alpha in the paper).
    batch : "previous" | "same"
        Trials of the pass at w + e. With perturbations of latent layers choose
        "same": those belong to the trials of the step.

    Raises
    ------
    EEGTensorError
        If sigma is negative or mix not in (0, 1].

    References
    ----------
    T. Li, W. Yan, Z. Lei, Y. Wu, K. Fang, M. Yang and X. Huang, "Efficient
    generalization improvement guided by random weight perturbation", 2022.
    """

    where: Literal["weight"] = "weight"
    extra_gradients = 1

    def __init__(
        self, sigma: float = 0.01, mix: float = 0.5, batch: str = "previous"
    ) -> None:
        check_number("sigma", sigma, least=0.0)
        if not 0 < check_number("mix", mix) <= 1:
            fail(f"mix={mix}", fix="give a number in (0, 1]")
        self.sigma, self.mix = sigma, mix
        self.batch = check_option("batch", batch, ("previous", "same"))
        self._previous: tuple[Any, Batch] | None = None

    def on_epoch_start(self, state: TrainState) -> None:
        """Forget the last batch: a run that goes on from a file has none, either."""
        self._previous = None

    def sample(self, context: StepContext) -> Move:
        """Return noise for a pass on another batch."""
        other = self._other(context)
        return NoisyMove(context.space, self._noise(context), other)

    def _other(self, context: StepContext) -> Batch | None:
        """Return the batch of the step before, if it was trained on by this loss."""
        before, self._previous = self._previous, (context.objective, context.batch)
        if self.batch == "same" or before is None or before[0] is not context.objective:
            return None
        return before[1]

    def _noise(
        self, context: StepContext, damping: dict[str, Tensor] | None = None
    ) -> Tangent:
        return relative_noise(context.space, self.sigma, context.generator, damping)
