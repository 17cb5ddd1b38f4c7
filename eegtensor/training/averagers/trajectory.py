"""The weights along a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.space import ParamSpace, Points

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState


class Trajectory:
    """Keep the weights at the end of epochs, or every few steps.

    It is a callback, and the part of averagers that keeps weights. When more than
    `limit` are kept, every second one goes and only every second one is recorded
    from then on: what is kept stays spread evenly over the run.

    Parameters
    ----------
    start : float
        Share of the epochs after which to begin, in [0, 1).
    every : int | None
        Steps between two; None is once an epoch.
    limit : int
        The most that are kept, at least 2.
    initial : bool
        Whether the weights at the start of the run are kept, too.

    Attributes
    ----------
    states : list of dict of Tensor
        Trainable parameters by name.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.
    """

    def __init__(
        self,
        start: float = 0.0,
        every: int | None = None,
        limit: int = 128,
        initial: bool = False,
    ) -> None:
        if not check_number("start", start, least=0.0) < 1:
            fail(f"start={start}", fix="give a share of the run in [0, 1)")
        check_count("limit", limit, least=2)
        if every is not None:
            check_count("every", every)
        self.start, self.every, self.limit = start, every, limit
        self.initial = initial
        self.states: list[Points] = []
        self._seen, self._stride = 0, 1
        self._begun = not start
        self._space: tuple[nn.Module, ParamSpace] | None = None

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run, or take what a checkpoint had to the network."""
        if state.epoch == 0:
            self.states, self._seen, self._stride = [], 0, 1
            if self.initial:
                self.record(state.model)
        # Files bring tensors of the CPU; later ones are where the network is.
        home = self.space_of(state.model).points()
        self.states = [
            {n: p.to(home[n].device) for n, p in kept.items()} for kept in self.states
        ]

    def on_epoch_start(self, state: TrainState) -> None:
        """See how far the run is."""
        self._begun = state.epoch > self.start * state.n_epochs

    def on_step_end(self, state: TrainState) -> None:
        """Keep the weights, where steps are asked for."""
        self.see(state.model, state.step)

    def on_epoch_end(self, state: TrainState) -> None:
        """Keep the weights, where epochs are asked for."""
        if self.every is None and self._begun:
            self.record(state.model)

    def see(self, model: nn.Module, step: int) -> None:
        """Keep the weights after a step, if one is due."""
        if self.every is not None and self._begun and step % self.every == 0:
            self.record(model)

    def record(self, model: nn.Module) -> None:
        """Keep a copy of the weights."""
        due = self._seen % self._stride == 0
        self._seen += 1
        if not due:
            return
        self.states.append(self.space_of(model).snapshot())
        if len(self.states) > self.limit:
            self.states = self.states[::2]
            self._stride *= 2

    def space_of(self, model: nn.Module) -> ParamSpace:
        """Return the parameter space of a network, found once."""
        if self._space is None or self._space[0] is not model:
            self._space = model, ParamSpace(model)
        return self._space[1]

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept."""
        return {
            "states": [dict(s) for s in self.states],
            "seen": self._seen,
            "stride": self._stride,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.states = [dict(s) for s in state["states"]]
        self._seen, self._stride = state["seen"], state["stride"]
