"""Trials in the order in which they come, beside a few remembered ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_count
from eegtensor.training.batch import Batch
from eegtensor.training.protocols import Step, TrainState

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


class Reservoir:
    """A sample of everything that came, each with the same probability.

    Parameters
    ----------
    size : int
    random_state : int

    Attributes
    ----------
    kept : list of int
        Places of the trials kept.
    n_seen : int

    References
    ----------
    J. S. Vitter, "Random sampling with a reservoir", ACM TOMS 1985, algorithm R.
    """

    def __init__(self, size: int, random_state: int = 0) -> None:
        self.size = check_count("size", size)
        self.random_state = random_state
        self.kept: list[int] = []
        self.n_seen = 0

    def add(self, places: Tensor) -> None:
        """See further trials."""
        for place in places.tolist():
            if len(self.kept) < self.size:
                self.kept.append(place)
            else:
                # One draw a trial: the sample follows from the seed and the order.
                rng = np.random.default_rng([self.random_state, 0, self.n_seen])
                slot = int(rng.integers(self.n_seen + 1))
                if slot < self.size:
                    self.kept[slot] = place
            self.n_seen += 1

    def draw(self, count: int, step: int) -> Tensor:
        """Return some of the trials kept, none of them twice, int64."""
        rng = np.random.default_rng([self.random_state, 1, self.n_seen, step])
        count = min(count, len(self.kept))
        chosen = rng.permutation(len(self.kept))[:count].tolist()
        return torch.tensor([self.kept[i] for i in chosen], dtype=torch.int64)


class OnlineStream:
    """One pass over trials in their order, with replay, a recipe.

    Each step is of `batch_size` trials that come and `replay` drawn from a reservoir
    of `buffer` earlier ones. With the objective "logit-adjusted", whose counts are
    those of both parts, the bursts of classes in a session do not bend the decoder.

    Parameters
    ----------
    batch_size, replay, buffer : int
    n_known : int
        So many first trials are in the reservoir from the start, and do not come.
    n_seen : int
        Trials that were drawn from for these.
    random_state : int

    Attributes
    ----------
    reservoir : Reservoir

    References
    ----------
    Z. Huang et al., "Online continual learning via logit adjusted softmax", TMLR
    2024; A. Chaudhry et al., "On tiny episodic memories in continual learning",
    arXiv 1902.10486.
    """

    def __init__(
        self,
        batch_size: int = 32,
        replay: int = 32,
        buffer: int = 200,
        n_known: int = 0,
        n_seen: int = 0,
        random_state: int = 0,
    ) -> None:
        self.batch_size = check_count("batch_size", batch_size)
        self.replay = check_count("replay", replay, least=0)
        self.buffer = check_count("buffer", buffer)
        self.n_known = check_count("n_known", n_known, least=0)
        self.n_seen = check_count("n_seen", n_seen, least=0)
        self.random_state = random_state
        self._begin()

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> OnlineStream:
        """Return the recipe with the run's seed."""
        return cls(**{"random_state": setup.seed} | options)

    def _begin(self) -> None:
        self.reservoir = Reservoir(self.buffer, self.random_state)
        self.reservoir.kept = list(range(self.n_known))
        self.reservoir.n_seen = max(self.n_seen, self.n_known)

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run."""
        if state.epoch == 0:
            self._begin()

    def steps(self, state: TrainState, data: Batch) -> Iterator[Step]:
        """Yield the steps of the epoch `state.epoch`."""
        coming = torch.arange(self.n_known, len(data))
        for t, now in enumerate(coming.split(self.batch_size)):
            places = torch.cat([now, self.reservoir.draw(self.replay, t)])
            yield Step(data.pick(places.to(data.device)))
            if state.epoch == 1:
                self.reservoir.add(now)

    def state_dict(self) -> dict[str, Any]:
        """Return the reservoir."""
        return {"kept": list(self.reservoir.kept), "n_seen": self.reservoir.n_seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.reservoir.kept = list(state["kept"])
        self.reservoir.n_seen = state["n_seen"]
