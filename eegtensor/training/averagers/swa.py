"""SWA and EMA: running means of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.space import ParamSpace, Points

if TYPE_CHECKING:
    from eegtensor.training.batch import Batch
    from eegtensor.training.protocols import TrainState


class _RunningMean:
    """One mean that moves towards the weights; leaves with a flat mean move in place.

    Stiefel leaves are averaged as matrices and brought back to the manifold by
    `merge`, which is their mean on it; SPD leaves move along geodesics.
    """

    def __init__(self) -> None:
        self.states: list[Points] = []
        self._count = 0
        self._space: tuple[nn.Module, ParamSpace] | None = None

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run."""
        if state.epoch == 0:
            self.states, self._count = [], 0

    @torch.no_grad()
    def take(self, model: nn.Module, share: float) -> None:
        """Move the mean towards the weights by a share of the way."""
        if self._space is None or self._space[0] is not model:
            self._space = model, ParamSpace(model)
        space = self._space[1]
        self._count += 1
        if not self.states:
            self.states = [space.snapshot()]
            return
        mean = self.states[0]
        w = torch.tensor([1.0 - share, share], dtype=torch.float64)
        for name, p in space.points().items():
            adapter, m = space.adapters[name], mean[name].to(p)
            if adapter.name in ("euclidean", "stiefel"):
                mean[name] = m.lerp(p, share)
            else:
                mean[name] = adapter.mean(torch.stack([m, p]), w)

    def merge(
        self,
        states: Sequence[Mapping[str, Tensor]],
        space: ParamSpace,
        data: Batch | None = None,
    ) -> Points:
        """Return the mean of weights, on their manifolds.

        Parameters
        ----------
        states : sequence of mapping
            `self.states` of a run; or the weights of folds or sites.
        space : ParamSpace
        data : Batch | None
            Not used.
        """
        # A run too short for the average to begin ends with the weights it has.
        return space.mean(states) if len(states) else space.snapshot()

    def state_dict(self) -> dict[str, Any]:
        """Return the mean and its count."""
        return {"states": [dict(s) for s in self.states], "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.states = [dict(s) for s in state["states"]]
        self._count = state["count"]


class SWA(_RunningMean):
    """Stochastic weight averaging: the mean of the last part of a run.

    One copy of the weights is kept. On manifolds it is the projected mean of
    Stiefel leaves (exact) and the recursive geodesic mean of SPD leaves.

    Parameters
    ----------
    start : float
        Share of the epochs after which averaging begins.
    every : int | None
        Steps between two weights; None takes those at the end of each epoch.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov and A. G. Wilson, "Averaging
    weights leads to wider optima and better generalization", UAI 2018.
    """

    def __init__(self, start: float = 0.75, every: int | None = None) -> None:
        super().__init__()
        if not check_number("start", start, least=0.0) < 1:
            fail(f"start={start}", fix="give a share of the run in [0, 1)")
        if every is not None:
            check_count("every", every)
        self.start, self.every = start, every
        self._begun = not start

    def on_epoch_start(self, state: TrainState) -> None:
        """See how far the run is."""
        self._begun = state.epoch > self.start * state.n_epochs

    def observe(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step, if one is due."""
        if self.every is not None and self._begun and step % self.every == 0:
            self.take(model, 1.0 / (self._count + 1))

    def on_epoch_end(self, state: TrainState) -> None:
        """Take in the weights of an epoch's end, where these are asked for."""
        if self.every is None and self._begun:
            self.take(state.model, 1.0 / (self._count + 1))


class EMA(_RunningMean):
    """Exponential moving average of the weights.

    After t weights it keeps ``min(decay, (1 + t) / (10 + t))`` of itself, so that
    short runs forget where they came from. On manifolds as `SWA`.

    Parameters
    ----------
    decay : float
        In [0, 1).
    every : int
        Steps between two weights.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    B. T. Polyak and A. B. Juditsky, "Acceleration of stochastic approximation by
    averaging", SIAM J. Control Optim. 1992.
    """

    def __init__(self, decay: float = 0.99, every: int = 1) -> None:
        super().__init__()
        if not check_number("decay", decay, least=0.0) < 1:
            fail(f"decay={decay}", fix="give a share in [0, 1)")
        check_count("every", every)
        self.decay, self.every = decay, every

    def observe(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step, if one is due."""
        if step % self.every == 0:
            t = self._count
            self.take(model, 1.0 - min(self.decay, (1 + t) / (10 + t)))
