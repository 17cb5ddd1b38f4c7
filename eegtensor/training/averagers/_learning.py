"""Coefficients of weights, learned by their loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.evaluation import evaluate
from eegtensor.training.network import Network
from eegtensor.training.objectives.crossentropy import CrossEntropy
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.protocols import StepContext, TrainState
from eegtensor.training.refit import refit_statistics
from eegtensor.training.statistics import StatisticsGuard, evaluating
from eegtensor.training.subspace import Frame

# What changes a learning rate: number of a step from 0, all steps -> factor.
Schedule = Callable[[int, int], float]


class Learner:
    """What averagers that learn remember of the run: network, objective, seed."""

    def __init__(self) -> None:
        self.network: Network | None = None
        self.objective: WeightedSum | None = None
        self.seed = 0

    def remember(self, state: TrainState) -> None:
        """Take the network and the objectives from a run."""
        self.network, self.seed = state.network, state.seed
        # Before the first step there is no context.
        used = (state.context or state).objective
        # Steps of a recipe may have objectives of another kind.
        if isinstance(used, WeightedSum):
            self.objective = used.evaluated()

    def learn(
        self,
        frame: Frame,
        start: Tensor,
        data: Batch,
        make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
        *,
        epochs: int,
        batch_size: int,
        schedule: Schedule,
        weight_decay: float = 0.0,
        keep_best: bool = True,
    ) -> Tensor:
        """Return coefficients learned from `start` on.

        Running statistics are fitted anew before every epoch and those of
        evaluation within it, so that small batches and domain statistics do no
        harm; network and statistics are put back afterwards.

        Parameters
        ----------
        frame : Frame
        start : Tensor, shape (n_directions,)
        data : Batch
        make_optimizer : callable
            From parameters to their optimizer.
        epochs, batch_size : int
        schedule : callable
            From the number of a step (from 0) and of all to a factor of the rate.
        weight_decay : float
            Of the Euclidean weights themselves.
        keep_best : bool
            Return the coefficients of the epoch, or the start, with the least loss.
        """
        network = self.network
        assert network is not None
        loss = self.objective or WeightedSum(CrossEntropy())
        model, space = network.model, frame.space
        data = data.to(device_of(model))
        a = start.detach().clone()
        optimizer = make_optimizer([a])
        first = [group["lr"] for group in optimizer.param_groups]
        generator = torch.Generator().manual_seed(self.seed)
        home, kept = space.snapshot(), [(p, p.grad) for p in model.parameters()]
        best: tuple[float, Tensor] | None = None

        def place() -> None:
            with torch.no_grad():
                space.assign(frame.points(a))

        def judge() -> tuple[float, Tensor]:
            return evaluate(model, data, loss)["loss"], a.clone()

        count = -(-len(data) // batch_size) * epochs
        done = 0
        try:
            with StatisticsGuard(model, "transient"), evaluating(model, *loss.modules):
                for _ in range(epochs):
                    place()
                    refit_statistics(model, data)
                    if keep_best:
                        best = _better(best, judge())
                    order = torch.randperm(len(data), generator=generator)
                    for index in order.to(data.device).split(batch_size):
                        for group, lr in zip(
                            optimizer.param_groups, first, strict=True
                        ):
                            group["lr"] = lr * schedule(done, count)
                        a.grad = _gradient(
                            network, loss, frame, a, data.pick(index), weight_decay
                        )
                        optimizer.step()
                        place()
                        done += 1
                if keep_best:
                    refit_statistics(model, data)
                    best = _better(best, judge())
        finally:
            space.restore(home)
            for p, g in kept:
                p.grad = g
        return a if best is None else best[1]


def _better(
    best: tuple[float, Tensor] | None, new: tuple[float, Tensor]
) -> tuple[float, Tensor]:
    # The start is taken whatever its loss; NaN is never better.
    return new if best is None or new[0] < best[0] else best


def _gradient(
    network: Network,
    loss: Any,
    frame: Frame,
    a: Tensor,
    batch: Batch,
    weight_decay: float,
) -> Tensor:
    network.model.zero_grad()
    StepContext(network, loss, batch).loss(batch).backward()  # type: ignore[no-untyped-call]
    gradients = frame.space.gradients()
    if weight_decay:
        for name, p in frame.space.points().items():
            if frame.space.adapters[name].name == "euclidean":
                gradients[name] = gradients[name] + weight_decay * p
    return frame.gradient(a, gradients)
