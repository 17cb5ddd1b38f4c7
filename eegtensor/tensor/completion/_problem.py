"""What a method of completion gets and gives: problems, estimates, predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor


class Problem(NamedTuple):
    """Signals with lost cells, every channel of zero mean and unit power.

    Attributes
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times), float64
        Zero where lost.
    seen : Tensor of bool, same shape
    positions : Tensor of shape (n_channels, 3) | None
        Directions from the centre of the head's sphere.
    scale : Tensor, shape (n_channels,)
        Power before, as a standard deviation: what a unit is worth.
    steady : bool
        Whether the channels that are lost stay the same for a while.
    origin : object
        The same for problems of the same trials.
    """

    values: Tensor
    seen: Tensor
    positions: Tensor | None
    scale: Tensor
    steady: bool
    origin: object = None

    def of_the_trials_of(self, other: Problem) -> bool:
        """Return whether only the cells that are seen differ."""
        return self.origin is other.origin and self.values.shape == other.values.shape


class Estimate(NamedTuple):
    """Completed signals.

    Attributes
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times), float64
    variance : Tensor | None
        How uncertain each lost cell is, relative to the others; None if the
        method does not say.
    """

    values: Tensor
    variance: Tensor | None


Predict: TypeAlias = Callable[[Problem], Estimate]
Method: TypeAlias = Callable[[Problem, int], Predict]
