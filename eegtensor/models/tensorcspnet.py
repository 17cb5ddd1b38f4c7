"""Tensor-CSPNet: a stack of covariances over time and frequency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor.models._base import SPDNetwork, as_dtype, as_generator
from eegtensor.models._tails import make_band_tail, make_layers, n_features
from eegtensor.nn import CovarianceFront, make_head
from eegtensor.nn._domains import Name
from eegtensor.nn._initial import fill_uniform


class TensorCSPNet(SPDNetwork):
    """Covariances of time windows and bands, BiMaps each, convolution over time.

    A trial is cut into windows; each (band, window) has a covariance and a stack
    of BiMap and ReEig of its own, then norm and LogEig. A convolution over time
    takes the tangent vectors of all bands in neighbouring windows to `n_maps`
    numbers, which are classified.

    Parameters
    ----------
    n_chans : int
        Channels of x: those of all bands together.
    n_outputs, n_times : int
    n_bands : int
        Bands stand one after the other on the channel axis.
    n_windows : int
    sfreq : float | None
        Not used; for the sake of other networks' signature.
    domains : iterable of names
    sizes : sequence of int | None
        Size of the matrices after each BiMap, not growing; by default that of
        a band's channels, at most 22, once.
    n_maps, kernel : int
        Of the convolution over windows.
    estimator, threshold, norm, head, metric, unseen, norm_options, random_state,
    device
        As in `TSMNet` and `SPDNet`.
    dtype : str or torch.dtype

    Notes
    -----
    Choices of ours, where the published network differs or leaves it open:
    tangent vectors have n (n + 1) / 2 entries instead of n^2; BiMaps do not grow;
    statistics of the norm are those of a domain and band, over its windows.

    References
    ----------
    C. Ju and C. Guan, "Tensor-CSPNet: a novel geometric deep learning framework
    for motor imagery classification", IEEE Trans. Neural Netw. Learn. Syst., 2022.
    """

    def __init__(
        self,
        n_chans: int,
        n_outputs: int,
        n_times: int,
        *,
        n_bands: int = 1,
        n_windows: int = 3,
        sfreq: float | None = None,
        domains: Iterable[Name] = (),
        sizes: Sequence[int] | None = None,
        n_maps: int = 16,
        kernel: int = 2,
        estimator: str = "scm",
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
        self.front = CovarianceFront(
            n_chans, n_times, n_bands=n_bands, n_windows=n_windows, estimator=estimator
        )
        size = self.front.size
        sizes = (min(size, 22),) if sizes is None else sizes
        self.layers = make_layers(
            size,
            sizes,
            threshold=threshold,
            n_maps=n_bands * n_windows,
            generator=generator,
            **where,
        )
        self.tail = make_band_tail(
            n_bands,
            sizes[-1],
            domains,
            norm=norm,
            metric=metric,
            unseen=unseen,
            threshold=threshold,
            options=norm_options,
            **where,
        )
        # One window has no neighbours.
        kernel = min(kernel, n_windows)
        width = n_bands * n_features(sizes[-1])
        self.over_time = nn.Conv1d(width, n_maps, kernel, **where)
        fill_uniform(
            self.over_time.weight,
            self.over_time.bias,
            fan_in=width * kernel,
            generator=generator,
        )
        n_mapped = n_maps * (n_windows - kernel + 1)
        self.head = make_head(head, n_mapped, n_outputs, generator=generator, **where)

    def spd(self, x: Tensor) -> Tensor:
        """Return the matrices that enter the tail, (batch, n_bands, n_windows, n, n).

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times), volts
            Or (batch, n_bands, channels, n_times), or ``net.front.statistics``.
        """
        S = self.front(x)
        Z: Tensor = self.layers(S.flatten(1, 2))
        return Z.unflatten(1, S.shape[1:3])

    def embed(self, vectors: Tensor) -> Tensor:
        """Return the maps of the convolution over windows, (batch, n_features)."""
        # (batch, bands, windows, features) to (batch, bands x features, windows).
        rows = vectors.transpose(2, 3).flatten(1, 2).to(self.over_time.weight.dtype)
        maps: Tensor = self.over_time(rows)
        return maps.flatten(1)
