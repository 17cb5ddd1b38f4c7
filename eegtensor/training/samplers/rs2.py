"""A new part of the trials in every epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import (
    RandomState,
    check_count,
    check_number,
    check_option,
    fail,
)
from eegtensor.training.samplers.seeded import Seeded, as_codes
from eegtensor.training.seeds import as_seed

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


class RS2Sampler(Seeded):
    """Repeated random subsets: each epoch is the next part of a shuffled order.

    An epoch holds ceil(ratio n) trials and costs `ratio` of a whole one: as many
    epochs are needed as the same number of steps asks for, with schedules over
    these. When the order is used up trials are shuffled anew, so that counts of
    trials never differ by more than one; no trial occurs twice in an epoch.

    Parameters
    ----------
    n_trials : int
    ratio : float
        0.05 to 0.3 in the paper.
    groups : array-like, shape (n_trials,) | None
        Kinds of trials of which each epoch has its share. By name, subject times
        class, where they are known.
    replacement : bool
        Whether each epoch draws from all trials, whatever was drawn before.
    batch_size : int
    random_state : int | numpy.random.Generator | torch.Generator | None

    Notes
    -----
    The released code counts positions modulo n + 1 and reshuffles before the end of
    an order: counts of 97 trials differ by 6 after 40 epochs of 30 %.

    References
    ----------
    P. Okanovic et al., "Repeated random sampling for minimizing the
    time-to-accuracy of learning", ICLR 2024, algorithm 1.
    """

    def __init__(
        self,
        n_trials: int,
        *,
        ratio: float = 0.1,
        groups: Any = None,
        replacement: bool = False,
        batch_size: int = 50,
        random_state: RandomState | torch.Generator = 0,
    ) -> None:
        self.n_trials = check_count("n_trials", n_trials)
        self.batch_size = check_count("batch_size", batch_size)
        if check_number("ratio", ratio, above=0.0) > 1:
            fail(f"ratio={ratio}", fix="give a share of at most 1")
        self.ratio = ratio
        self.replacement = check_option("replacement", replacement, (True, False))
        self._group = (
            np.zeros(n_trials, np.int64)
            if groups is None
            else as_codes("groups", groups)
        )
        if len(self._group) != n_trials:
            fail(f"{len(self._group)} groups for {n_trials} trials", fix="one a trial")
        # 0.1 * 30 is 3.0000000000000004.
        self.n_drawn = min(math.ceil(ratio * n_trials - 1e-9), n_trials)
        self.seed = as_seed(random_state)
        self._known: tuple[int, NDArray[np.int64]] | None = None

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> RS2Sampler:
        """Return the sampler of a run's trials."""
        y, domain = setup.data.y, setup.data.domain
        groups = np.zeros(len(setup.data), np.int64)
        for labels in (y, domain):
            if labels is not None and not labels.is_floating_point():
                codes = as_codes("labels", labels)
                groups = groups * (codes.max() + 1) + codes
        return cls(
            len(setup.data),
            groups=groups,
            **{"batch_size": setup.batch_size, "random_state": setup.seed} | options,
        )

    def indices(self, epoch: int) -> list[Tensor]:
        """Return the trials of each batch of the epoch, counted from 1."""
        if self.replacement:
            drawn = self._spread(np.random.default_rng([self.seed, epoch]))
            drawn = drawn[: self.n_drawn]
        else:
            drawn = self._block((epoch - 1) * self.n_drawn)
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(drawn)
        n_batches = -(-len(order) // self.batch_size)
        return [torch.from_numpy(part) for part in np.array_split(order, n_batches)]

    def _block(self, start: int) -> NDArray[np.int64]:
        """Return trials start .. start + n_drawn of the orders one after the other."""
        lap, place = divmod(start, self.n_trials)
        now = self._order(lap)
        head = now[place : place + self.n_drawn]
        missing = self.n_drawn - len(head)
        if not missing:
            return head
        return np.concatenate([head, self._order(lap + 1)[:missing]])

    def _order(self, lap: int) -> NDArray[np.int64]:
        """Return the order of a lap, which does not begin with the last epoch's."""
        if self._known is None or self._known[0] > lap:
            self._known = 0, self._spread(np.random.default_rng([self.seed, 0, 0]))
        while self._known[0] < lap:
            k, before = self._known
            # Of the epoch that spans both laps, what lies in the first.
            used = (self.n_trials * (k + 1)) % self.n_drawn
            order = self._spread(np.random.default_rng([self.seed, k + 1, 0]))
            late = np.isin(order, before[self.n_trials - used :])
            self._known = k + 1, np.concatenate([order[~late], order[late]])
        return self._known[1]

    def _spread(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a random order in which each group is spread evenly."""
        shuffled = rng.permutation(self.n_trials)
        codes = self._group[shuffled]
        size = np.bincount(codes)
        by_group = np.argsort(codes, kind="stable")
        rank = np.empty(self.n_trials)
        first = np.cumsum(size) - size
        rank[by_group] = np.arange(self.n_trials) - first[codes[by_group]]
        # One offset a group: neighbours stay a group's spacing apart.
        place = (rank + rng.random(len(size))[codes]) / size[codes]
        order: NDArray[np.int64] = shuffled[np.argsort(place, kind="stable")]
        return order
