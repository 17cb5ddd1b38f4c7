"""Perturbations of weights: a tangent, and the way there and back."""

from __future__ import annotations

from eegtensor.training.space import ParamSpace, Points, Tangent


class Move:
    """Weights moved along a tangent by retraction, and put back by a copy.

    Parameters
    ----------
    space : ParamSpace
    tangent : dict of Tensor | None
        None moves nothing.
    """

    def __init__(self, space: ParamSpace, tangent: Tangent | None) -> None:
        self.space = space
        self.tangent = tangent
        self._kept: Points | None = None

    def apply(self) -> None:
        """Go there."""
        if self.tangent is not None:
            self._kept = self.space.snapshot()
            self.space.assign(self.space.retract(self.tangent))

    def revert(self) -> None:
        """Come back, bit for bit."""
        if self._kept is not None:
            self.space.restore(self._kept)
            self._kept = None
