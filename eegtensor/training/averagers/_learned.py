"""What averagers that learn their coefficients have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from eegtensor._check import check_option, fail
from eegtensor.training.averagers._learning import Learner
from eegtensor.training.averagers.trajectory import Trajectory
from eegtensor.training.batch import Batch
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.space import ParamSpace, Points

if TYPE_CHECKING:
    from eegtensor.training.network import Network
    from eegtensor.training.protocols import State, TrainState
    from eegtensor.training.registry import Setup

DATA = ("auto", "train", "validation")


class LearnedAverage(Trajectory):
    """Weights along a run, mixed by coefficients that trials teach.

    Parameters
    ----------
    data : "auto" | "train" | "validation"
        On which trials; "auto" is validation trials where there are any.
    start, every, limit
        As in `Trajectory`.
    """

    def __init__(self, data: str, start: float, every: int | None, limit: int) -> None:
        super().__init__(start, every, limit)
        self.data = check_option("data", data, DATA)
        self._validation: Batch | None = None
        self._learner = Learner()

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run; see whose weights they are if this one is over."""
        super().on_train_start(state)
        # A run stopped while its average was learned has no epoch left to see it in.
        self._learner.remember(state)

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> Self:
        """Return the averager with the validation trials of a run.

        Raises
        ------
        EEGTensorError
            If it should learn on validation trials and there are none.
        """
        made = cls(**options)
        if made.data == "validation" and setup.validation is None:
            fail(
                "There are no validation trials to learn the average on",
                fix="set validation='trials' or 'domains', or data='train'",
            )
        made._validation = setup.validation
        return made

    def use(self, network: Network, objective: Any = None, seed: int = 0) -> Self:
        """Say whose weights they are, where `merge` follows no run; return itself."""
        self._learner.network, self._learner.seed = network, seed
        self._learner.objective = None if objective is None else WeightedSum(objective)
        return self

    def on_step_end(self, state: TrainState) -> None:
        """Do nothing: the loop calls `observe`."""

    def on_epoch_end(self, state: TrainState) -> None:
        """Keep the weights of an epoch, and see what the run is."""
        super().on_epoch_end(state)
        self._learner.remember(state)

    def observe(self, model: nn.Module, step: int) -> None:
        """Keep the weights after a step, if one is due."""
        self.see(model, step)

    def merge(
        self, states: Sequence[State], space: ParamSpace, data: Batch | None = None
    ) -> Points:
        """Return the mixture of weights that was learned.

        Parameters
        ----------
        states : sequence of mapping
        space : ParamSpace
        data : Batch | None
            Training trials. Without trials, or where neither a run nor `use` said
            whose weights they are, the mean is returned.
        """
        if self.data != "train" and self._validation is not None:
            data = self._validation
        if not len(states):
            # A run too short for the average to begin ends with the weights it has.
            return space.snapshot()
        if data is None or self._learner.network is None or len(states) < 2:
            return space.mean(states)
        return self._learn(states, space, data)

    def _learn(self, states: Sequence[State], space: ParamSpace, data: Batch) -> Points:
        raise NotImplementedError
