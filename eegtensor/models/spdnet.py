"""SPDNet: BiMap and ReEig, layer upon layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from eegtensor.models._base import SPDNetwork, as_dtype, as_generator
from eegtensor.models._tails import make_layers, make_tail, n_features
from eegtensor.nn import CovarianceFront, make_head
from eegtensor.nn._domains import Name


class SPDNet(SPDNetwork):
    """Huang and Van Gool's network on covariances, with a norm by domain.

    Covariance, then BiMap and ReEig for each size, LogEig, classifier. The norm
    stands before LogEig; ``norm="none"`` is the network as published.

    Parameters
    ----------
    n_chans, n_outputs, n_times : int
    sfreq : float | None
        Not used; for the sake of other networks' signature.
    domains : iterable of names
    sizes : sequence of int | None
        Size of the matrices after each BiMap, not growing; by default half of
        n_chans, then a quarter, but at least 2 (or n_chans).
    estimator : str
        Of the covariance; see `CovariancePool`.
    threshold, norm, head, metric, unseen, norm_options, random_state, device
        As in `TSMNet`.
    dtype : str or torch.dtype

    References
    ----------
    Z. Huang and L. Van Gool, "A Riemannian network for SPD matrix learning",
    AAAI 2017.
    """

    def __init__(
        self,
        n_chans: int,
        n_outputs: int,
        n_times: int,
        *,
        sfreq: float | None = None,
        domains: Iterable[Name] = (),
        sizes: Sequence[int] | None = None,
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
        self.front = CovarianceFront(n_chans, n_times, estimator=estimator)
        if sizes is None:
            # A 1 x 1 matrix would keep nothing but a variance.
            least = min(2, n_chans)
            sizes = (max(n_chans // 2, least), max(n_chans // 4, least))
        self.layers = make_layers(
            n_chans, sizes, threshold=threshold, generator=generator, **where
        )
        self.tail = make_tail(
            sizes[-1],
            domains,
            norm=norm,
            metric=metric,
            unseen=unseen,
            threshold=threshold,
            options=norm_options,
            **where,
        )
        self.head = make_head(
            head, n_features(sizes[-1]), n_outputs, generator=generator, **where
        )

    def spd(self, x: Tensor) -> Tensor:
        """Return the SPD matrices that enter the tail, (batch, n, n).

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times), volts
            Or ``net.front.statistics`` of trials.
        """
        S: Tensor = self.layers(self.front(x)[:, 0, 0])
        return S
