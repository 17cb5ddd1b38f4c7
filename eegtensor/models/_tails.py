"""Layers between SPD matrices, and from them to features, with or without a norm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.nn import BiMap, DomainBatchNorm, LogEig, ReEig, SPDTail
from eegtensor.nn._domains import Name
from eegtensor.nn.eigen import check_threshold

NORMS = ("domain", "batch", "none")


def n_features(n: int, features: str = "spd") -> int:
    """Return the number of features that a tail makes of n x n matrices."""
    return n * (n + 1) // 2 if features == "spd" else n


def make_tail(
    n: int,
    domains: Iterable[Name],
    *,
    norm: str,
    metric: str,
    unseen: str,
    threshold: float,
    features: str = "spd",
    options: Mapping[str, Any] | None = None,
    **where: Any,
) -> nn.Module:
    """Return ReEig, a norm and LogEig, or an ablation of them.

    Parameters
    ----------
    n : int
        Size of the matrices.
    domains : iterable of names
    norm : "domain" | "batch" | "none"
        Statistics for each domain, one for all trials, or none.
    metric, unseen : str
        Of the norm; log-variances know one metric only.
    threshold : float
        Of ReEig, or of the variances, relative to their mean.
    features : "spd" | "log-variance"
    options : mapping | None
        More options of the norm, such as ``eta``.
    **where
        ``dtype`` and ``device`` of the norm's parameters.

    Returns
    -------
    tail : torch.nn.Module
        ``tail(S, domain)`` and ``tail.fit_statistics(S, domain)``; its ``norm``
        is None without one.
    """
    check_option("norm", norm, NORMS)
    check_option("features", features, ("spd", "log-variance"))
    names = tuple(domains)
    if norm != "domain" and names:
        # A network whose names do nothing would look as if it had adapted.
        fail(
            f"norm={norm!r} keeps no statistics of {len(names)} domains",
            fix="leave domains out, or choose norm='domain'",
        )
    settings = {"unseen": unseen, **where, **(options or {})}
    if norm == "batch":
        # All trials are of its one row: none of them is unseen.
        settings["unseen"] = "pooled"
    if features == "log-variance":
        return LogVarianceTail(n, names, norm=norm, threshold=threshold, **settings)
    if norm == "none":
        return PlainTail(threshold=threshold)
    return SPDTail(n, names, threshold=threshold, **{"metric": metric, **settings})


def make_layers(
    n: int,
    sizes: Sequence[int],
    *,
    threshold: float,
    n_maps: int | None = None,
    generator: torch.Generator | None = None,
    **where: Any,
) -> nn.Sequential:
    """Return a BiMap to each size, with ReEig between them.

    Parameters
    ----------
    n : int
        Size of the matrices that enter.
    sizes : sequence of int
    threshold : float
        Of ReEig.
    n_maps, generator, **where
        As in `BiMap`.
    """
    if not len(sizes):
        fail("sizes is empty", fix="give the size after each BiMap, such as (20, 10)")
    layers: list[nn.Module] = []
    for n_in, n_out in zip((n, *sizes), sizes, strict=False):
        # The last ReEig is the tail's.
        layers += [ReEig(threshold)] if layers else []
        layers += [BiMap(n_in, n_out, n_maps=n_maps, generator=generator, **where)]
    return nn.Sequential(*layers)


def make_band_tail(n_bands: int, *args: Any, **options: Any) -> BandTail:
    """Return a `make_tail` for each of n_bands, with the same arguments."""
    return BandTail([make_tail(*args, **options) for _ in range(n_bands)])


class FirstUnit(nn.Module):
    """Divides matrices by the mean variance of the first batch in training.

    Without a norm the unit of the signals would decide where training starts:
    the logarithm of volts squared is -25.
    """

    unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unit", torch.zeros((), dtype=torch.float64))

    def forward(self, S: Tensor) -> Tensor:
        """Return S of shape (batch, n, n) in the unit of the first batch."""
        if self.training:
            with torch.no_grad():
                level = S.diagonal(dim1=-2, dim2=-1).double().mean()
                self.unit.copy_(torch.where(self.unit == 0, level, self.unit))
        return S / torch.where(self.unit == 0, 1.0, self.unit).to(S.dtype)


class PlainTail(nn.Module):
    """ReEig and LogEig: the tail without a norm.

    Parameters
    ----------
    threshold : float
    """

    norm = None

    def __init__(self, *, threshold: float = 1e-4) -> None:
        super().__init__()
        self.scale = FirstUnit()
        self.rectify = ReEig(threshold)
        self.log = LogEig(vector=True)

    def forward(self, S: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return tangent vectors, shape (batch, n (n + 1) / 2)."""
        vectors: Tensor = self.log(self.rectify(self.scale(S)))
        return vectors

    def fit_statistics(self, S: Tensor, domain: Tensor | None, **options: Any) -> None:
        """Do nothing: there are none."""

    def update_statistics(
        self, S: Tensor, domain: Tensor | None, **options: Any
    ) -> None:
        """Do nothing: there are none."""


class LogVarianceTail(nn.Module):
    """Logarithms of variances and a Euclidean norm: the network without SPD.

    Parameters
    ----------
    n : int
    domains : iterable of names
    norm : "domain" | "batch" | "none"
    threshold : float
        Variances are raised to this part of their mean over channels.
    **options
        Of `DomainBatchNorm`.
    """

    def __init__(
        self,
        n: int,
        domains: Iterable[Name] = (),
        *,
        norm: str = "domain",
        threshold: float = 1e-4,
        **options: Any,
    ) -> None:
        super().__init__()
        self.threshold = check_threshold(threshold)
        # A norm takes the unit out itself.
        self.scale = FirstUnit() if norm == "none" else nn.Identity()
        self.norm: Any = (
            None if norm == "none" else DomainBatchNorm(n, domains, **options)
        )

    def forward(self, S: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return normalised log variances, shape (batch, n)."""
        logs = self._logs(S)
        return logs if self.norm is None else self.norm(logs, domain)

    def _logs(self, S: Tensor) -> Tensor:
        variance = self.scale(S).diagonal(dim1=-2, dim2=-1)
        floor = self.threshold * variance.mean(dim=-1, keepdim=True)
        return torch.maximum(variance, floor).log()

    def fit_statistics(self, S: Tensor, domain: Tensor | None, **options: Any) -> None:
        """Replace the norm's statistics of the domains in a batch."""
        if self.norm is not None:
            self.norm.fit_statistics(self._logs(S), domain, **options)

    def update_statistics(
        self, S: Tensor, domain: Tensor | None, **options: Any
    ) -> None:
        """Move the norm's statistics of the domains by new trials."""
        if self.norm is not None:
            self.norm.update_statistics(self._logs(S), domain, **options)


class BandTail(nn.Module):
    """A tail for each frequency band, side by side.

    Bands differ in power by orders of magnitude, so that each has its own
    statistics. Windows of one band share theirs.

    Parameters
    ----------
    tails : sequence of torch.nn.Module
    """

    def __init__(self, tails: Sequence[nn.Module]) -> None:
        super().__init__()
        self.tails: Any = nn.ModuleList(tails)

    def forward(self, S: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return features (batch, n_bands, n_windows, n_features).

        Parameters
        ----------
        S : Tensor, shape (batch, n_bands, n_windows, n, n)
        domain : Tensor of int64, shape (batch,) | None
        """
        # A window is a trial of its own to the norm, of the same domain.
        windows = S.shape[2]
        domain = _repeat(domain, windows)
        features = [tail(band, domain) for tail, band in self._bands(S)]
        return torch.stack(features, dim=1).unflatten(0, (-1, windows)).transpose(1, 2)

    def fit_statistics(
        self, S: Tensor, domain: Tensor | None, *, weights: Tensor | None = None
    ) -> None:
        """Replace the statistics of the domains in a batch, in every band."""
        domain, weights = _repeat(domain, S.shape[2]), _repeat(weights, S.shape[2])
        for tail, band in self._bands(S):
            tail.fit_statistics(band, domain, weights=weights)

    def update_statistics(
        self, S: Tensor, domain: Tensor | None, **options: Any
    ) -> None:
        """Move the statistics of the domains by new trials, in every band."""
        domain = _repeat(domain, S.shape[2])
        for tail, band in self._bands(S):
            tail.update_statistics(band, domain, **options)

    def _bands(self, S: Tensor) -> Iterator[tuple[Any, Tensor]]:
        for i, tail in enumerate(self.tails):
            yield tail, S[:, i].flatten(0, 1)


def _repeat(values: Tensor | None, times: int) -> Tensor | None:
    """Return each trial's entry for each of its windows."""
    if values is None or times == 1:
        return values
    return values[:, None].expand(-1, times).flatten()
