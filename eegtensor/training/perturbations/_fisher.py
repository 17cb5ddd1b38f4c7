"""A decayed sum of squared gradients, by which noise is damped."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.training.perturbations._noise import squares
from eegtensor.training.space import ParamSpace


class FisherDamping:
    """F <- beta F + g^2, summed over filters; noise is divided by sqrt(1 + eta F).

    Parameters
    ----------
    eta : float
    beta : float
    """

    def __init__(self, eta: float, beta: float) -> None:
        check_number("eta", eta, least=0.0)
        if not 0 <= check_number("beta", beta) < 1:
            fail(f"beta={beta}", fix="give a number in [0, 1)")
        self.eta, self.beta = eta, beta
        self.sums: dict[str, Tensor] = {}

    def divisors(self, space: ParamSpace) -> dict[str, Tensor] | None:
        """Return what the noise of each leaf is divided by; None before any step."""
        if not self.sums or not self.eta:
            return None
        at = space.points()
        return {n: (1 + self.eta * f.to(at[n])).sqrt() for n, f in self.sums.items()}

    def add(self, space: ParamSpace, gradients: Mapping[str, Tensor]) -> None:
        """Take in the gradient of a step."""
        new = squares(space, gradients)
        self.sums = {
            n: f if n not in self.sums else f + self.beta * self.sums[n].to(f)
            for n, f in new.items()
        }
