"""Gradient-norm penalty: minima where the loss is flat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from eegtensor._check import check_number
from eegtensor.training.perturbations.moves import Move, ascent

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class GradientNorm:
    """Descend L + strength rho ||grad L||.

    The gradient of the penalty is a Hessian-vector product, taken from a second
    pass: ``grad L + strength rho / radius (grad L(w + radius g / ||g||) - grad L)``,
    along the geodesic and in the product metric on manifolds. With
    strength rho = radius this is SAM.

    Parameters
    ----------
    rho : float
        Weight of the norm.
    radius : float
        Length of the step of the finite difference.
    strength : float
        Multiplier of the penalty, at the start.
    bound : float | None
        Keep ``rho ||g||`` near this: the strength rises while the mean of an epoch
        is above and falls, down to 0, below. None: the strength stays.
    rate : float
        How much the strength moves an epoch, by unit of excess.

    Raises
    ------
    EEGTensorError
        If rho or radius is not positive, or strength or rate negative.

    References
    ----------
    C. Dao, P. L. Nguyen, T. T. Nguyen and T. N. Hoang, "Incorporating surrogate
    gradient norm to improve offline optimization techniques", NeurIPS 2024; for
    losses Y. Zhao, H. Zhang and X. Hu, "Penalizing gradient norm for efficiently
    improving generalization in deep learning", ICML 2022.
    """

    where: Literal["weight"] = "weight"
    extra_gradients = 1

    def __init__(
        self,
        rho: float = 0.05,
        radius: float = 0.1,
        strength: float = 1.0,
        bound: float | None = None,
        rate: float = 0.1,
    ) -> None:
        check_number("rho", rho, above=0.0)
        check_number("radius", radius, above=0.0)
        check_number("strength", strength, least=0.0)
        check_number("rate", rate, least=0.0)
        if bound is not None:
            check_number("bound", bound, least=0.0)
        self.rho, self.radius, self.strength = rho, radius, strength
        self.bound, self.rate = bound, rate
        self._start = strength
        self._total, self._count = torch.zeros(()), 0

    @property
    def mix(self) -> float:
        """Weight of the second pass's gradient."""
        return self.strength * self.rho / self.radius

    def on_train_start(self, state: TrainState) -> None:
        """Start from the first strength again."""
        if state.epoch == 0:
            self.strength = self._start

    def on_epoch_start(self, state: TrainState) -> None:
        """Forget the norms of the last epoch."""
        self._total, self._count = torch.zeros(()), 0

    def sample(self, context: StepContext) -> Move:
        """Return the step along the gradient that lies in the parameters' `.grad`."""
        space = context.space
        up = space.rgrad(space.gradients())
        if self.bound is not None:
            length = space.norm(up)
            self._total, self._count = self._total.to(length) + length, self._count + 1
        return Move(space, ascent(space, up, self.radius))

    def on_epoch_end(self, state: TrainState) -> None:
        """Move the strength: once an epoch, so that no step waits for a number."""
        if self.bound is not None and self._count:
            excess = self.rho * float(self._total) / self._count - self.bound
            self.strength = max(0.0, self.strength + self.rate * excess)

    def state_dict(self) -> dict[str, Any]:
        """Return the strength."""
        return {"strength": self.strength}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.strength = state["strength"]
