"""TSMNet on a filter bank: a block of covariances for each frequency band."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor.geometry import congruence
from eegtensor.models._base import SPDNetwork, as_dtype, as_generator
from eegtensor.models._tails import make_band_tail, n_features
from eegtensor.nn import BiMap, CovarianceFront, make_head
from eegtensor.nn._domains import Name
from eegtensor.nn._initial import fill_uniform
from eegtensor.nn._precision import full_precision


class FilterBankTSMNet(SPDNetwork):
    """TSMNet whose temporal filters are a fixed bank, band by band.

    Each band has its own spatial filters, BiMap, ReEig, norm by domain and
    LogEig; the tangent vectors of all bands are classified together. Bands
    differ in power by orders of magnitude and between people: each is aligned
    by itself. (Ours; TSMNet with the filter bank of Ang et al., FBCSP, 2008.)

    Parameters
    ----------
    n_chans : int
        Channels of x: those of all bands together.
    n_outputs, n_times : int
    n_bands : int
        Bands stand one after the other on the channel axis.
    sfreq : float | None
        Not used; for the sake of other networks' signature.
    domains : iterable of names
    n_spatial_filters, subspace : int | None
        Of each band; by default 40 and 20, or what the channels of a band allow.
    threshold, norm, head, metric, unseen, norm_options, random_state, device
        As in `TSMNet`.
    dtype : str or torch.dtype
    """

    def __init__(
        self,
        n_chans: int,
        n_outputs: int,
        n_times: int,
        *,
        n_bands: int,
        sfreq: float | None = None,
        domains: Iterable[Name] = (),
        n_spatial_filters: int | None = None,
        subspace: int | None = None,
        threshold: float = 1e-4,
        norm: str = "domain",
        head: str = "linear",
        metric: str = "affine-invariant",
        unseen: str = "pooled",
        norm_options: Mapping[str, Any] | None = None,
        dtype: torch.dtype | str = torch.float64,
        random_state: int | torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(n_outputs, norm)
        generator = as_generator(random_state)
        where: Any = {"dtype": as_dtype(dtype), "device": device}
        self.front = CovarianceFront(n_chans, n_times, n_bands=n_bands)
        size = self.front.size
        # More rows than channels would make every covariance singular.
        n_spatial = min(40, size) if n_spatial_filters is None else n_spatial_filters
        subspace = min(20, size) if subspace is None else subspace
        self.spatial = nn.Parameter(torch.empty(n_bands, n_spatial, size, **where))
        fill_uniform(self.spatial, fan_in=size, generator=generator)
        self.bimap = BiMap(
            n_spatial, subspace, n_maps=n_bands, generator=generator, **where
        )
        self.tail = make_band_tail(
            n_bands,
            subspace,
            domains,
            norm=norm,
            metric=metric,
            unseen=unseen,
            threshold=threshold,
            options=norm_options,
            **where,
        )
        width = n_bands * n_features(subspace)
        self.head = make_head(head, width, n_outputs, generator=generator, **where)

    def spd(self, x: Tensor) -> Tensor:
        """Return the SPD matrices that enter the tail, (batch, n_bands, 1, n, n).

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times), volts
            Or (batch, n_bands, channels, n_times), or ``net.front.statistics``.
        """
        with full_precision(x):
            S = self.front(x)[:, :, 0].to(self.spatial.dtype)
            # Spatial filters and BiMap are both linear: one filter.
            Z: Tensor = congruence(self.bimap.weight.mT @ self.spatial, S)
        return Z.unsqueeze(2)

    def embed(self, vectors: Tensor) -> Tensor:
        """Return the tangent vectors of all bands as one."""
        return vectors.flatten(1)
