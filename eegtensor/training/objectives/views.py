"""Two views of each trial, for objectives that need no labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import features_kept
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class Views:
    """Features of two views of a batch: noise, channels left out, amplitude.

    The passes move no running statistics. With `noise` and `drop` 0 the views
    differ by the network's dropout alone.

    Parameters
    ----------
    noise : float
        Standard deviation of white noise, in those of each channel of each trial.
    drop : float
        Share of channels that are silent.
    amplitude : float
        Standard deviation of the logarithm of a factor of each trial.
    """

    def __init__(
        self, noise: float = 0.3, drop: float = 0.1, amplitude: float = 0.1
    ) -> None:
        self.noise = check_number("noise", noise, least=0.0)
        self.drop = check_number("drop", drop, least=0.0)
        self.amplitude = check_number("amplitude", amplitude, least=0.0)
        if drop >= 1:
            fail(f"drop={drop}", fix="leave channels: give a share below 1")

    def __call__(self, batch: Batch, context: StepContext) -> tuple[Tensor, Tensor]:
        """Return what enters the head for both views, each (n_trials, n_features)."""
        if not isinstance(batch.x, Tensor):
            fail(
                f"Views are of one array of trials, not a {type(batch.x).__name__}",
                fix="use a network that takes the trials alone",
            )
        found = []
        with features_kept(context):
            for _ in range(2):
                x = self.draw(batch.x, context.generator)
                # Each on its own: both views start from the same statistics.
                with StatisticsGuard(context.model, "transient"):
                    context.network(replace(batch, x=x))
                found.append(context.features)
        return found[0], found[1]

    @torch.no_grad()
    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a view of trials, shape (n_trials, n_channels, ...)."""
        where: Any = {"generator": generator, "dtype": x.dtype, "device": x.device}
        per_trial = [len(x)] + [1] * (x.ndim - 1)
        if self.noise > 0:
            # Features have no times: they deviate from trial to trial.
            axis = -1 if x.ndim > 2 else 0
            scale = x.std(dim=axis, correction=0, keepdim=True)
            x = x + self.noise * scale * torch.randn(x.shape, **where)
        if self.drop > 0 and x.ndim > 2:
            kept = torch.rand([*x.shape[:2]] + [1] * (x.ndim - 2), **where) >= self.drop
            x = x * kept
        if self.amplitude > 0:
            x = x * (self.amplitude * torch.randn(per_trial, **where)).exp()
        return x
