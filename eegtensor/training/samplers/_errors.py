"""What samplers learn from a run: the length of each trial's error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor.training.network import inner_module
from eegtensor.training.scores.el2n import el2n

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from eegtensor.training.protocols import TrainState


class ErrorsOfSteps:
    """EL2N of every trial from the passes that training makes anyway.

    Parameters
    ----------
    n_trials : int

    Attributes
    ----------
    scores : Tensor, shape (n_trials,)
        The mean of the last epoch in which the trial was seen; NaN before.
    """

    def __init__(self, n_trials: int) -> None:
        self.scores = torch.full((n_trials,), torch.nan, dtype=torch.float64)
        self._rows: list[Tensor] = []
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._hook: RemovableHandle | None = None
        self._model: nn.Module | None = None

    def start(self, state: TrainState) -> None:
        """Listen to the network of a run."""
        self.stop()
        self._model = inner_module(state.model)
        self._hook = self._model.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: Any, outputs: Any) -> None:
        # Copies of the network that a plug makes bear the hook as well.
        if module is self._model and module.training and isinstance(outputs, Tensor):
            self._rows.append(outputs.detach())

    def step(self, state: TrainState) -> None:
        """Take the errors of a step's first pass."""
        # Not `context.batch`: a second pass may have been on other trials.
        batch = None if state.context is None else state.context.clean
        rows, self._rows = self._rows, []
        if batch is None or batch.y is None or batch.index is None or not rows:
            return
        logits = torch.cat(rows)[: len(batch)]
        if len(logits) == len(batch):
            self._seen.append((batch.index, el2n(logits, batch.y)))

    def finish_epoch(self) -> None:
        """Bring the scores up to date."""
        if not self._seen:
            return
        index = torch.cat([i for i, _ in self._seen]).cpu()
        found = torch.cat([q for _, q in self._seen]).cpu().double()
        self._seen = []
        index, found = index[found.isfinite()], found[found.isfinite()]
        n = len(self.scores)
        count = torch.bincount(index, minlength=n)
        total = torch.bincount(index, weights=found, minlength=n)
        self.scores = torch.where(count > 0, total / count.clamp_min(1), self.scores)

    def stop(self) -> None:
        """Listen no more."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._model = None, None
