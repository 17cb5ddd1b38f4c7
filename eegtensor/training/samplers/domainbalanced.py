"""Batches of so many trials of so many domains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import RandomState, check_count, check_lengths, fail
from eegtensor.training.samplers.seeded import Seeded, as_codes
from eegtensor.training.seeds import as_seed

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


class DomainBalancedSampler(Seeded):
    """Batches of as many trials of each of a few domains.

    In every epoch each domain is cut at random into groups of ``batch_size /
    domains_per_batch`` trials, which share each class to one trial and so keep
    the domain's proportions of classes; each batch takes a group of each of so many
    distinct domains, drawn at random among those with groups left. The epoch
    ends when too few domains have groups left: what remains, and what a domain
    holds beyond whole groups, is left out until the next epoch draws anew.
    (TSMNet, Kobler et al. 2022; their code stratifies by domain alone.)

    The batches depend on the seed and the epoch only.

    Parameters
    ----------
    domain : array-like, shape (n_trials,)
        Codes or names.
    y : array-like, shape (n_trials,) | None
        Classes.
    batch_size : int
    domains_per_batch : int
        All domains where there are fewer.
    stratify : bool
        Whether groups keep the domain's proportions of classes (if `y` is given).
    random_state : int | numpy.random.Generator | torch.Generator | None

    Attributes
    ----------
    domains_per_batch : int
        Distinct domains in every batch.
    group_size : int
        Trials of a domain in a batch, at least 2: one trial has no dispersion.
        A domain with fewer gives one group of all its trials; one with a single
        trial none.

    Raises
    ------
    EEGTensorError
        If lengths differ, or no domain has two trials.
    """

    def __init__(
        self,
        domain: Any,
        y: Any = None,
        *,
        batch_size: int = 50,
        domains_per_batch: int = 5,
        stratify: bool = True,
        random_state: RandomState | torch.Generator = 0,
    ) -> None:
        self._domain = as_codes("domain", domain)
        check_lengths(len(self._domain), y=y)
        check_count("batch_size", batch_size, least=2)
        check_count("domains_per_batch", domains_per_batch)
        self._class = (
            np.zeros_like(self._domain)
            if y is None or not stratify
            else as_codes("y", y)
        )
        self._size = np.bincount(self._domain)
        usable = int((self._size > 1).sum())
        if usable == 0:
            fail(
                f"None of {len(self._size)} domains has two trials",
                why="Statistics of a domain need at least two of its trials in a batch",
                fix="check subjects and sessions, or use ShuffleSampler",
            )
        self.batch_size = batch_size
        self.domains_per_batch = min(domains_per_batch, usable)
        self.group_size = max(2, round(batch_size / self.domains_per_batch))
        self.seed = as_seed(random_state)

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> DomainBalancedSampler:
        """Return the sampler of a run's trials."""
        return cls(
            setup.data.domain,
            setup.data.y,
            **{
                "batch_size": setup.batch_size,
                "domains_per_batch": setup.domains_per_batch,
                "random_state": setup.seed,
            }
            | options,
        )

    def indices(self, epoch: int) -> list[Tensor]:
        """Return the trials of each batch, int64; no trial occurs twice."""
        rng = np.random.default_rng([self.seed, epoch])
        order, start = self._groups(rng)
        groups = np.split(order, start[1:])
        owner = self._domain[order[start]]
        # Groups of a domain stand in a row: its next one is first + used.
        left = np.bincount(owner, minlength=len(self._size))
        following = np.cumsum(left) - left
        batches = []
        while np.count_nonzero(left) >= self.domains_per_batch:
            drawn = rng.choice(
                np.flatnonzero(left), self.domains_per_batch, replace=False
            )
            batch = np.concatenate([groups[g] for g in following[drawn]])
            batches.append(torch.from_numpy(batch))
            following[drawn] += 1
            left[drawn] -= 1
        return batches

    def _groups(self, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Return trials in order of domain and group, and where groups start."""
        n_trials, domain = len(self._domain), self._domain
        n_groups = np.maximum(self._size // self.group_size, self._size > 1)
        kept_size = np.where(
            self._size < self.group_size, self._size, n_groups * self.group_size
        )
        # Even spacing of each class along its domain: what is cut off at the end
        # has the domain's proportions.
        _, cell, cell_size = np.unique(
            np.stack([domain, self._class]),
            axis=1,
            return_inverse=True,
            return_counts=True,
        )
        shuffled = rng.permutation(n_trials)
        spacing = (_rank(cell.ravel(), shuffled) + rng.random(n_trials)) / cell_size[
            cell.ravel()
        ]
        kept = _rank(domain, np.argsort(spacing)) < kept_size[domain]
        # Dealt like cards, class after class: each group gets its share to one.
        turn = rng.permutation(cell_size.size)[cell.ravel()]
        hand = np.lexsort((rng.permutation(n_trials), turn))
        dealt = _rank(domain, hand[kept[hand]]) % np.maximum(n_groups[domain], 1)
        dealt[~kept] = -1
        order = np.lexsort((rng.permutation(n_trials), dealt, domain))
        order = order[(kept & (n_groups[domain] > 0))[order]]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (np.diff(domain[order]) != 0) | (np.diff(dealt[order]) != 0)
        return order, np.flatnonzero(new)


def _rank(label: NDArray, order: NDArray) -> NDArray:
    """Return each trial's place among those of its label, along `order`.

    Trials that are not in `order` get 0.
    """
    by_label = order[np.argsort(label[order], kind="stable")]
    sorted_label = label[by_label]
    first = np.searchsorted(sorted_label, sorted_label)
    rank = np.zeros(len(label), dtype=np.int64)
    rank[by_label] = np.arange(len(by_label)) - first
    return rank
