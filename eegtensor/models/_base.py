"""What networks on SPD matrices share."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.nn._domains import DomainStatistics, Name
from eegtensor.nn._precision import check_finite_trials


def as_generator(random_state: int | torch.Generator | None) -> torch.Generator | None:
    """Return a generator from a seed or a generator; None is torch's global one."""
    if random_state is None or isinstance(random_state, torch.Generator):
        return random_state
    # On the CPU: the same weights on every device.
    return torch.Generator().manual_seed(int(random_state))


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return float32 or float64 from torch's name or from a string."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.float64):
        fail(
            f"dtype={dtype!r}",
            why="Eigenvalues need float32 or float64",
            fix="choose 'float32' or 'float64'",
        )
    return found


class SPDNetwork(nn.Module):
    """Trials to SPD matrices, these to features, features to logits.

    Subclasses set `tail` and `head`, and define `spd`.

    Parameters
    ----------
    n_outputs : int
    norm : "domain" | "batch" | "none"

    Attributes
    ----------
    tail : torch.nn.Module
        SPD matrices and domains to features; holds the norm.
    head : torch.nn.Module
        Features to logits.
    ignores_domains : bool
        Whether one set of statistics, or none, serves all trials.
    """

    tail: Any
    head: nn.Module
    ignores_domains: bool

    def __init__(self, n_outputs: int, norm: str) -> None:
        super().__init__()
        if not isinstance(n_outputs, Integral) or n_outputs < 1:
            fail(f"n_outputs={n_outputs!r}", fix="give the number of classes")
        self.ignores_domains = norm != "domain"

    @abstractmethod
    def spd(self, x: Tensor) -> Tensor:
        """Return the SPD matrices of trials that enter the tail."""

    def embed(self, vectors: Tensor) -> Tensor:
        """Return the features of the head from the tail's output."""
        return vectors

    def features(self, x: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return what the head classifies, shape (batch, n_features).

        Parameters
        ----------
        x : Tensor
            As for `forward`.
        domain : Tensor of int64, shape (batch,) | None
        """
        S = self.spd(x)
        check_finite_trials(S)
        return self.embed(self.tail(S, self._domain(domain)))

    def forward(self, x: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return logits, shape (batch, n_outputs).

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times), volts
        domain : Tensor of int64, shape (batch,) | None
            Codes of ``net.norm.encode(names)``; -1 is unseen, None all unseen.
        """
        features = self.features(x, domain)
        # A head of fixed vectors has buffers alone.
        weight = next(itertools.chain(self.head.parameters(), self.head.buffers()))
        logits: Tensor = self.head(features.to(weight.dtype))
        return logits

    def fit_statistics(
        self,
        x: Tensor,
        domain: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        batch_size: int = 256,
    ) -> None:
        """Replace the norm's statistics of every domain in x by those of x.

        Without labels and without gradient: what adapts to a new person. Does
        nothing in a network without a norm.

        Parameters
        ----------
        x : Tensor
            All trials of the domains.
        domain : Tensor of int64, shape (batch,) | None
        weights : Tensor, shape (batch,) | None
            Weights of the trials in their domain's statistics.
        batch_size : int
            Trials at a time before the norm; the result does not depend on it.
        """
        # Layers before the norm do the same in training and evaluation.
        with torch.no_grad():
            S = torch.cat([self.spd(part) for part in x.split(batch_size)])
            check_finite_trials(S)
            self.tail.fit_statistics(S, self._domain(domain), weights=weights)

    def update_statistics(
        self, x: Tensor, domain: Tensor | None = None, *, prior_trials: float = 10.0
    ) -> None:
        """Move the norm's statistics of the domains in x by its trials.

        Parameters
        ----------
        x : Tensor
            One trial or more.
        domain : Tensor of int64, shape (batch,) | None
        prior_trials : float
            For how many trials the pooled statistic counts, where a new domain
            starts.
        """
        with torch.no_grad():
            S = self.spd(x)
            check_finite_trials(S)
            self.tail.update_statistics(
                S, self._domain(domain), prior_trials=prior_trials
            )

    @property
    def norms(self) -> tuple[DomainStatistics, ...]:
        """All norms with statistics, of which most networks have one."""
        return tuple(m for m in self.modules() if isinstance(m, DomainStatistics))

    @property
    def norm(self) -> Any:
        """The norm (the first one, where bands have their own), or None."""
        return next(iter(self.norms), None)

    def add_domains(self, names: Iterable[Name], *, source: bool = True) -> None:
        """Add domains to every norm; see `DomainSPDBatchNorm.add_domains`."""
        names = list(names)
        if self.ignores_domains:
            return
        for norm in self.norms:
            norm.add_domains(names, source=source)

    def forget(self, names: Iterable[Name]) -> None:
        """Remove domains from every norm; see `DomainSPDBatchNorm.forget`."""
        names = list(names)
        for norm in self.norms:
            norm.forget(names)

    def _domain(self, domain: Tensor | None) -> Tensor | None:
        if domain is None or self.ignores_domains:
            return None
        return torch.as_tensor(domain)
