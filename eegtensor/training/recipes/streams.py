"""Endless batches of the trials of some domains, for recipes with several streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError, fail, listing
from eegtensor.training.batch import Batch
from eegtensor.training.samplers.domainbalanced import DomainBalancedSampler


class Stream:
    """Batch after batch of some trials; the t-th depends on the seed and t alone.

    Parameters
    ----------
    data : Batch
        With the domains of trials.
    index : Tensor of int64, shape (n,)
        The trials among `data`.
    batch_size, domains_per_batch : int
        As for `DomainBalancedSampler`; where no domain has two trials, or fewer
        trials than a batch, a batch is all of them.
    seed : int
    """

    def __init__(
        self,
        data: Batch,
        index: Tensor,
        *,
        batch_size: int,
        domains_per_batch: int,
        seed: int,
    ) -> None:
        assert data.domain is not None
        self.index = index.cpu()
        domain, y = (
            None if part is None else part.cpu()[self.index]
            for part in (data.domain, data.y)
        )
        self._sampler: DomainBalancedSampler | None = None
        try:
            self._sampler = DomainBalancedSampler(
                domain,
                y if y is not None and not y.is_floating_point() else None,
                batch_size=min(batch_size, max(len(index), 2)),
                domains_per_batch=domains_per_batch,
                random_state=seed,
            )
            self._length = len(self._sampler.indices(1))
        except EEGTensorError:
            self._length = 0
        self._pass = 0
        self._batches: list[Tensor] = []

    def __len__(self) -> int:
        """Number of trials."""
        return len(self.index)

    def at(self, t: int) -> Tensor:
        """Return the trials of the t-th batch, counted from 0."""
        if self._sampler is None or not self._length:
            return self.index
        number, place = divmod(t, self._length)
        if number + 1 != self._pass:
            self._pass = number + 1
            self._batches = self._sampler.indices(self._pass)
        # The draws of a pass differ: some hold a batch less than the first.
        return self.index[self._batches[place % len(self._batches)]]

    def epoch(self) -> list[Tensor]:
        """Return the batches of the first pass."""
        return [self.at(t) for t in range(max(self._length, 1))]

    def one_pass(self) -> list[Tensor]:
        """Return all trials once, in batches of about the size of the others."""
        count = max(self._length, 1)
        order = np.random.default_rng(0).permutation(len(self.index))
        parts = np.array_split(order, count)
        return [self.index[torch.from_numpy(part)] for part in parts if len(part)]


def trials_of(
    data: Batch, domains: Sequence[int], *, others: bool = False, who: str = ""
) -> Tensor:
    """Return the places of trials of some domains, or of all others, int64.

    Parameters
    ----------
    data : Batch
    domains : sequence of int
        Codes.
    others : bool
    who : str
        For errors.

    Raises
    ------
    EEGTensorError
        If trials have no domains, or a domain has no trial.
    """
    if data.domain is None:
        fail(
            f"{who} got trials without domains",
            why="It is told by domain whose trials these are",
            fix="give domain to the Batch, or subjects and sessions to fit",
        )
    codes = torch.as_tensor(list(domains), dtype=torch.int64, device=data.domain.device)
    absent = codes[~torch.isin(codes, data.domain)].tolist()
    if absent:
        fail(
            f"{who}: domains {listing(absent)} have no trial",
            fix=f"choose among {listing(data.domain.unique().tolist())}",
        )
    return torch.isin(data.domain, codes, invert=others).nonzero()[:, 0]
