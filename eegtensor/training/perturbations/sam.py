"""SAM: the gradient at the worst weights near by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from eegtensor.training.perturbations.moves import Move, Rho, ascent, check_rho

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class SAM:
    """Sharpness-aware minimisation.

    The second pass is at ``retract(w, rho g / ||g||)``, g the Riemannian gradient
    and its norm that of the product metric of all parameters, eq. 2 of the paper
    on manifolds.

    Parameters
    ----------
    rho : float | dict
        Length of the step up. A dict says one for each geometry of the network's
        parameters, such as ``{"euclidean": 0.1, "stiefel": 0.05, "spd": 0.05}``, and
        each part of the gradient is divided by its own norm.

    Raises
    ------
    EEGTensorError
        If a length is not positive, or a dict lacks a geometry that there is.

    References
    ----------
    P. Foret, A. Kleiner, H. Mobahi and B. Neyshabur, "Sharpness-aware minimization
    for efficiently improving generalization", ICLR 2021.
    """

    where: Literal["weight"] = "weight"
    extra_gradients = 1

    def __init__(self, rho: Rho = 0.05) -> None:
        self.rho = check_rho(rho)

    def sample(self, context: StepContext) -> Move:
        """Return the step up the gradient that lies in the parameters' `.grad`."""
        space = context.space
        up = space.rgrad(space.gradients())
        return Move(space, ascent(space, up, self.rho))
