"""SAM: the gradient at the worst weights near by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from eegtensor._check import fail
from eegtensor.training.perturbations.moves import Move

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class SAM:
    """Sharpness-aware minimisation.

    The second pass is at ``retract(w, rho g / ||g||)``, g the Riemannian gradient
    and its norm that of the product metric of all parameters, eq. 2 of the paper
    on manifolds.

    Parameters
    ----------
    rho : float
        Length of the step up.

    Raises
    ------
    EEGTensorError
        If rho is not positive.

    References
    ----------
    P. Foret, A. Kleiner, H. Mobahi and B. Neyshabur, "Sharpness-aware minimization
    for efficiently improving generalization", ICLR 2021.
    """

    where: Literal["weight"] = "weight"
    extra_gradients = 1

    def __init__(self, rho: float = 0.05) -> None:
        if not rho > 0:
            fail(f"rho={rho}", fix="give a positive length")
        self.rho = rho

    def sample(self, context: StepContext) -> Move:
        """Return the step up the gradient that lies in the parameters' `.grad`."""
        space = context.space
        up = space.rgrad(space.gradients())
        # A gradient of zero has no direction: the weights stay.
        return Move(space, space.scale(up, self.rho / space.norm(up).clamp_min(1e-30)))
