"""Free adversarial training: the gradient of a step attacks as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.perturbations._adversary import moved, signals_of
from eegtensor.training.perturbations._ascent import NORMS, ascent_direction, project
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.protocols import Sampler, Step, TrainState
from eegtensor.training.statistics import StatisticsGuard, copy_statistics

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


class FreeAdversarial:
    """Free adversarial training (Free-m), a recipe.

    Each batch is replayed m times. The backward pass of a replay gives the gradient of
    the weights, which step, and that of the trials, which move on by a step of the
    attack. A batch begins where the one before ended, place by place. Statistics move
    with the clean trials only.

    An epoch draws its batches as ever, and trains on the first of them, so that it has
    as many steps as a plain one; m epochs go once through the trials, as published.

    Parameters
    ----------
    sampler : Sampler
        By name: the sampler of the run.
    eps : float
        In standard deviations of each channel over the batch.
    m : int
    step_size : float | None
        None: eps, as published.
    norm : "linf" | "l2"

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    A. Shafahi et al., "Adversarial training for free!", NeurIPS 2019, alg. 1.
    """

    needs = ("raw trials",)

    def __init__(
        self,
        sampler: Sampler,
        eps: float = 0.1,
        m: int = 8,
        step_size: float | None = None,
        norm: str = "linf",
    ) -> None:
        self.sampler = sampler
        self.eps = check_number("eps", eps, above=0.0)
        self.m = check_count("m", m)
        step_size = eps if step_size is None else step_size
        self.step_size = check_number("step_size", step_size, above=0.0)
        self.norm = check_option("norm", norm, NORMS)
        self.d: Tensor | None = None

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> FreeAdversarial:
        """Return one whose batches are shuffled; `make_plugs` gives it the run's."""
        from eegtensor.training.samplers.shuffle import ShuffleSampler

        sampler = ShuffleSampler(
            len(setup.data), batch_size=setup.batch_size, random_state=setup.seed
        )
        # Recipes are not asked for what they need where plugs are made.
        inner: Any = getattr(setup.model, "front", None)
        if getattr(inner, "path", "conv") != "conv" and setup.data.x.ndim < 3:
            fail(
                f"{cls.__name__} changes trials, but the network gets what its front "
                "computed of them beforehand",
                fix="set front='conv', so that trials enter the network themselves",
            )
        return cls(sampler, **options)

    def on_train_start(self, state: TrainState) -> None:
        """Forget the displacements of an earlier run."""
        if state.epoch == 0:
            self.d = None

    def steps(self, state: TrainState, data: Batch) -> Iterator[Step]:
        """Yield the replays of the epoch `state.epoch`."""
        assert state.network is not None
        weights = self.sampler.weights(state.epoch)
        if weights is not None:
            weights = weights.to(data.device)
            own = weights if data.weight is None else weights * data.weight
            data = replace(data, weight=own)
        batches = self.sampler.indices(state.epoch)
        for index in batches[: -(-len(batches) // self.m)]:
            batch = data.pick(index.to(data.device)).to(state.device)
            scale = channel_scale(signals_of(batch, type(self).__name__))
            for _ in range(self.m):
                d, start = self._begin(batch), copy_statistics(state.model)
                with torch.no_grad():
                    state.network(batch)
                # The step starts from the statistics that the clean pass began with.
                with StatisticsGuard(state.model, "transient", start=start):
                    yield Step(moved(batch, d, scale))
                self._advance(d)

    def _begin(self, batch: Batch) -> Tensor:
        """Return where the batch before has come to, zero for places it had not."""
        d, last = torch.zeros_like(batch.x), self.d
        if last is not None:
            n = min(len(d), len(last))
            d[:n] = last[:n].to(d)
        return d.requires_grad_()

    def _advance(self, d: Tensor) -> None:
        """Go on by the gradient that the step has left."""
        gradient = torch.zeros_like(d) if d.grad is None else d.grad
        with torch.no_grad():
            step = self.step_size * ascent_direction(gradient, self.norm)
            self.d = project(d + step, self.eps, self.norm)

    def state_dict(self) -> dict[str, Tensor]:
        """Return where the last batch has come to."""
        return {} if self.d is None else {"d": self.d}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self.d = state.get("d")
