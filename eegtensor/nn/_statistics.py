"""Running statistics of normalisation layers: rows of a table, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.geometry._groups import Groups, group_trials
from eegtensor.geometry._segments import make_segments
from eegtensor.geometry.normalization import Momenta, Statistics, _wide
from eegtensor.nn._reduce import all_reduce, is_distributed
from eegtensor.nn._spaces import Pair, Space

# Buffers with one row per domain, and one more for trials of no known domain.
ROWS = ("mean", "variance", "test_mean", "test_variance", "seen", "n_trials", "source")


class RunningStatistics(nn.Module):
    """Base of layers that normalise with running statistics, one row per domain.

    The last row stands for trials of no known domain. Statistics are float64
    whatever the dtype of the layer.

    Attributes
    ----------
    mean, variance : Tensor, shape (n_domains + 1, ...)
        Statistics of training, in the coordinates of the layer's metric.
    test_mean, test_variance : Tensor, shape (n_domains + 1, ...)
        Statistics of evaluation.
    seen : Tensor of bool, shape (n_domains + 1,)
        Rows that hold more than their start.
    n_trials : Tensor, shape (n_domains + 1,)
        Trials behind a row that was fitted or streamed; else 0.
    source : Tensor of bool, shape (n_domains + 1,)
        Domains that enter the pooled statistic.
    """

    space: Space
    # What a state_dict says its statistics are.
    kind: str
    # A group of one trial has no dispersion.
    least_variance = 0.0
    mean: Tensor
    variance: Tensor
    test_mean: Tensor
    test_variance: Tensor
    seen: Tensor
    n_trials: Tensor
    source: Tensor

    def _start_statistics(
        self,
        space: Space,
        start: Pair,
        *,
        eta: float,
        eta_test: float,
        synchronise: bool,
        device: torch.device | str | None,
    ) -> None:
        self.space = space
        self.set_momentum(eta, eta_test)
        self.synchronise = synchronise
        # As numbers: tensors that are no buffers would not follow the device.
        self._start = tuple(part.tolist() for part in start)
        for name, rows in self._new_rows(1, device).items():
            self.register_buffer(name, rows)

    def _new_rows(
        self, n: int, device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        """Return n rows of every statistic, as they are before any trial."""
        real: Any = {"dtype": torch.float64, "device": device}
        flag: Any = {"dtype": torch.bool, "device": device}
        mean, variance = (torch.tensor(part, **real) for part in self._start)
        means = mean.expand(n, *mean.shape)
        variances = variance.expand(n, *variance.shape)
        return {
            "mean": means.clone(),
            "variance": variances.clone(),
            "test_mean": means.clone(),
            "test_variance": variances.clone(),
            "seen": torch.zeros(n, **flag),
            "n_trials": torch.zeros(n, **real),
            "source": torch.ones(n, **flag),
        }

    @property
    def n_domains(self) -> int:
        """Number of named domains."""
        return len(self.mean) - 1

    def set_momentum(self, eta: float, eta_test: float) -> None:
        """Set the weight of a new batch in the statistics.

        Parameters
        ----------
        eta, eta_test : float in [0, 1]
            For the statistics of training and of evaluation.
        """
        for name, value in (("eta", eta), ("eta_test", eta_test)):
            if not 0.0 <= value <= 1.0:
                fail(f"{name}={value!r}", fix="give the weight of a new batch, 0 to 1")
        self.momenta = Momenta(float(eta), float(eta_test))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # .half() and .float() would round statistics that took an epoch to gather.
        kept = {k: b for k, b in self._buffers.items() if b is not None}
        for name in kept:
            del self._buffers[name]
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = fn(buffer)
            same = moved.dtype == buffer.dtype
            self._buffers[name] = moved if same else buffer.to(moved.device)
        return self

    def _train(self, V: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Groups]:
        """Move the statistics; return those of the groups present."""
        rows, groups = group_trials(codes, len(self.mean), self._reduce())
        # Copies: the buffers are written below, and backward comes later.
        names = Statistics._fields
        old = Statistics(*(getattr(self, name)[rows].clone() for name in names))
        new = self.space.update(V, groups, old, self.momenta)
        with torch.no_grad():
            for name in names[:-1]:
                value = groups.choose(getattr(new, name), getattr(old, name))
                getattr(self, name)[rows] = value
            seen = groups.present if groups.present is not None else True
            self.seen[rows] |= seen
        return new.mean, new.variance, groups

    def _enter(self, X: Tensor, *, learn: bool) -> Tensor:
        """Return checked inputs in the coordinates of the statistics."""
        raise NotImplementedError

    def _look_up(self, V: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Groups]:
        """Return the statistics that normalise in evaluation."""
        raise NotImplementedError

    def _reduce(self) -> Callable[[Tensor], Tensor] | None:
        return all_reduce if self.synchronise and is_distributed() else None

    def _fit(self, V: Tensor, slot: Tensor, weights: Any = None) -> Pair:
        """Return mean and dispersion of each group, without momentum."""
        parts = make_segments(len(V), weights, slot, device=V.device)
        # Groups are numbered without gaps: all of them have trials.
        every = torch.arange(parts.n, device=V.device)[:, None]
        member = (slot == every).double()
        groups = Groups(slot, member, member * parts.share)
        return self.space.fit(V, groups)

    def _replace(self, V: Tensor, codes: Tensor, weights: Any = None) -> None:
        """Set the statistics of the rows in a batch to the batch's own."""
        rows, slot, count = torch.unique(codes, return_inverse=True, return_counts=True)
        mean, variance = self._fit(V, slot, weights)
        self._write(rows, (mean, variance.clamp_min(self.least_variance)), count)

    def _stream(self, V: Tensor, codes: Tensor, prior: float) -> None:
        """Move the statistics of the rows in a batch by their new trials."""
        if not prior >= 0:
            fail(f"prior_trials={prior!r}", fix="choose 0 or more")
        rows, slot, count = torch.unique(codes, return_inverse=True, return_counts=True)
        # A domain without trials of its own starts at the last row.
        start = torch.where(self.seen[rows], rows, self.n_domains)
        known = self.seen[start]
        before = self.n_trials[rows]
        before = torch.where(before > 0, before, torch.where(known, prior, 0.0))
        new = self._fit(V, slot)
        # Without a start, too, the trials are all there is.
        old = (
            torch.where(_wide(known, new[0]), self.test_mean[start], new[0]),
            torch.where(_wide(known, new[1]), self.test_variance[start], new[1]),
        )
        moved = self.space.move(old, new, count / (before + count))
        self._write(rows, moved, before + count)

    def _write(self, rows: Tensor, statistics: Pair, n_trials: Tensor) -> None:
        for name, value in zip(("mean", "variance"), statistics, strict=True):
            getattr(self, name)[rows] = value
            getattr(self, f"test_{name}")[rows] = value
        self.n_trials[rows] = n_trials.double()
        self.seen[rows] = True
