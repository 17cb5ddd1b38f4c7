"""ARWP: one gradient, at weights with noise that shrinks where gradients are large."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from eegtensor._check import check_number
from eegtensor.training.perturbations._fisher import FisherDamping
from eegtensor.training.perturbations._noise import relative_noise
from eegtensor.training.perturbations.moves import Move
from eegtensor.training.space import ParamSpace, Tangent

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class _Observed(Move):
    """A move that shows the gradient of its pass to a damping when it ends."""

    def __init__(
        self, space: ParamSpace, tangent: Tangent, damping: FisherDamping
    ) -> None:
        super().__init__(space, tangent)
        self._damping = damping

    def revert(self) -> None:
        """Come back, and take in the gradient of the pass."""
        moved = self._kept is not None
        super().revert()
        if moved:
            self._damping.add(self.space, self.space.gradients())


class ARWP:
    """Adaptive random weight perturbation: flat minima at the price of a plain step.

    The only gradient of a step is that at w + e, and the step starts from w. The
    noise e is that of `RWP`, divided by ``sqrt(1 + eta F)`` with
    ``F <- beta F + g^2`` summed over the filter (over the whole leaf on manifolds).
    Its size rises from sigma to ``sigma (1 + increase)`` by half a cosine over the
    run, once an epoch. Running statistics are those of the pass at w + e.

    Parameters
    ----------
    sigma : float
        Size of the noise relative to the weights, at the start.
    increase : float
    eta : float
        Strength of the damping; 0 for none.
    beta : float
        Decay of the sum of squared gradients.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    T. Li, Q. Tao, W. Yan, Z. Lei, Y. Wu, K. Fang, M. He and X. Huang, "Revisiting
    random weight perturbation for efficiently improving generalization", TMLR 2024.
    """

    where: Literal["weight"] = "weight"
    extra_gradients = 0

    def __init__(
        self,
        sigma: float = 0.001,
        increase: float = 10.0,
        eta: float = 0.1,
        beta: float = 0.99,
    ) -> None:
        self.sigma = check_number("sigma", sigma, least=0.0)
        # Down to -1, where the noise ends at zero.
        self.increase = check_number("increase", increase, least=-1.0)
        self._damping = FisherDamping(eta, beta)

    def on_train_start(self, state: TrainState) -> None:
        """Forget the gradients of an earlier run."""
        if state.epoch == 0:
            self._damping.sums = {}

    def sigma_at(self, progress: float) -> float:
        """Return the size of the noise at a share of the run."""
        ramp = (1.0 - math.cos(math.pi * progress)) / 2.0
        return self.sigma * (1.0 + self.increase * ramp)

    def sample(self, context: StepContext) -> Move:
        """Return the noise of this step."""
        noise = relative_noise(
            context.space,
            self.sigma_at(context.progress),
            context.generator,
            self._damping.divisors(context.space),
        )
        return _Observed(context.space, noise, self._damping)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of squared gradients."""
        return {"sums": dict(self._damping.sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._damping.sums = dict(state["sums"])
