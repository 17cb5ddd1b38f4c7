"""Batches of trials in random order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import RandomState, check_count
from eegtensor.training.samplers.seeded import Seeded
from eegtensor.training.seeds import as_seed

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


class ShuffleSampler(Seeded):
    """All trials in random order, cut into batches that differ by one trial at most.

    Parameters
    ----------
    n_trials : int
    batch_size : int
        Most trials of a batch.
    random_state : int | numpy.random.Generator | torch.Generator | None
    """

    def __init__(
        self,
        n_trials: int,
        *,
        batch_size: int = 50,
        random_state: RandomState | torch.Generator = 0,
    ) -> None:
        self.n_trials = check_count("n_trials", n_trials)
        self.batch_size = check_count("batch_size", batch_size)
        self.seed = as_seed(random_state)

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> ShuffleSampler:
        """Return the sampler of a run's trials."""
        return cls(
            len(setup.data),
            **{"batch_size": setup.batch_size, "random_state": setup.seed} | options,
        )

    def indices(self, epoch: int) -> list[Tensor]:
        """Return the trials of each batch; an epoch holds every trial once."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n_trials)
        n_batches = -(-self.n_trials // self.batch_size)
        return [torch.from_numpy(part) for part in np.array_split(order, n_batches)]
