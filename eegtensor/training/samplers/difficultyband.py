"""Trials that are neither easy nor hopeless."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import RandomState, check_count, check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.network import forward_all
from eegtensor.training.refit import refit_statistics
from eegtensor.training.samplers.shuffle import ShuffleSampler
from eegtensor.training.scores.el2n import el2n
from eegtensor.training.scores.selection import quantiles_within
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState
    from eegtensor.training.registry import Setup


class DifficultyBandSampler(ShuffleSampler):
    """Trials of medium difficulty: scores between two quantiles of each person.

    The first epochs hold all trials. Then, and every `every` epochs anew, all
    trials are scored by `el2n` in one pass in evaluation, and epochs hold those
    whose score lies in the band among the trials of their domain; trials of
    unknown class stay.

    Parameters
    ----------
    data : Batch | None
        What is scored; None where `scores` are given.
    scores : array-like, shape (n_trials,) | None
        Fixed scores, from the first epoch on.
    groups : array-like, shape (n_trials,) | None
        Within which quantiles are taken; the domains of `data` by default.
    low, high : float
        Quantiles.
    warmup, every : int
        Epochs. By name, `warmup` is a tenth of them by default.
    batch_size : int
    random_state : int | numpy.random.Generator | torch.Generator | None

    References
    ----------
    Source list 003, entry 3: of trials for reinforcement learning those of medium
    difficulty help most. The band and the scores are ours.
    """

    def __init__(
        self,
        data: Batch | None = None,
        *,
        scores: Any = None,
        groups: Any = None,
        low: float = 0.2,
        high: float = 0.8,
        warmup: int = 1,
        every: int = 5,
        batch_size: int = 50,
        random_state: RandomState | torch.Generator = 0,
    ) -> None:
        if (data is None) == (scores is None):
            fail("Give either data or scores", fix="data are scored during training")
        n_trials = len(scores) if data is None else len(data)
        super().__init__(n_trials, batch_size=batch_size, random_state=random_state)
        check_number("low", low, least=0.0)
        if not low < check_number("high", high) <= 1:
            fail(f"low={low}, high={high}", fix="give 0 <= low < high <= 1")
        check_count("warmup", warmup, least=0)
        check_count("every", every)
        self.low, self.high, self.warmup, self.every = low, high, warmup, every
        self._data = data
        if groups is None and data is not None:
            groups = data.domain
        self._groups = groups
        self._kept = torch.ones(n_trials, dtype=torch.bool)
        if scores is not None:
            self._choose(scores)

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> DifficultyBandSampler:
        """Return the sampler of a run's trials."""
        found = {
            "batch_size": setup.batch_size,
            "random_state": setup.seed,
            "warmup": max(setup.epochs // 10, 1),
        }
        return cls(setup.data, **(found | options))

    def _choose(self, scores: Any) -> None:
        q = quantiles_within(scores, self._groups)
        inside = np.isnan(q) | ((q >= self.low) & (q <= self.high))
        if not inside.any():
            fail(
                f"No trial lies between the quantiles {self.low} and {self.high}",
                fix="give a wider band",
            )
        self._kept = torch.from_numpy(inside)

    def on_epoch_start(self, state: TrainState) -> None:
        """Score all trials, where it is time to."""
        late = state.epoch - self.warmup - 1
        data = self._data
        if data is None or data.y is None or late < 0 or late % self.every:
            return
        with StatisticsGuard(state.model, "transient"):
            refit_statistics(state.model, data)
            logits = forward_all(state.model, data)
        self._choose(el2n(logits.to(data.y.device), data.y))

    def indices(self, epoch: int) -> list[Tensor]:
        """Return the trials of each batch."""
        inside = np.flatnonzero(self._kept.numpy())
        order = np.random.default_rng([self.seed, epoch]).permutation(inside)
        n_batches = -(-len(order) // self.batch_size)
        return [torch.from_numpy(part) for part in np.array_split(order, n_batches)]

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the seed and which trials are in the band, for checkpoints."""
        return {"seed": self.seed, "kept": self._kept.to(torch.uint8)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over those of `state_dict`."""
        self.seed = int(state["seed"])
        self._kept = state["kept"].cpu().bool()
