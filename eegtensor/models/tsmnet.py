"""TSMNet: a linear front, an SPD network and a norm for each domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from eegtensor.models._base import SPDNetwork, as_dtype, as_generator
from eegtensor.models._tails import make_tail, n_features
from eegtensor.nn import BiMap, LinearFront, make_head
from eegtensor.nn._domains import Name


class TSMNet(SPDNetwork):
    """Tangent space mapping network (Kobler et al. 2022), exact and accelerated.

    Temporal and spatial filters, covariance, BiMap, ReEig, batch norm by domain,
    LogEig, classifier. Defaults are the published ones; two things differ: the
    initial BiMap is uniform over the Stiefel manifold, and the threshold of
    ReEig is relative to each matrix, so that no result depends on the unit.

    Parameters
    ----------
    n_chans, n_outputs, n_times : int
    sfreq : float | None
        Not used; for the sake of other networks' signature.
    domains : iterable of names
        A name is a string or (dataset, subject, session). More can be added
        later (`add_domains`).
    front : "conv" | "lag"
        How covariances are computed: the same numbers. ``"lag"`` takes
        ``net.front.statistics(x)`` as well as trials, and pays when these are
        computed once. ``net.front.path`` changes it at any time.
    n_temporal_filters, temporal_kernel, n_spatial_filters, subspace : int
        Sizes of the filters, and of the SPD matrices.
    threshold : float
        Of ReEig, relative to the mean eigenvalue.
    norm : "domain" | "batch" | "none"
        Statistics by domain, one for all trials, or none (ablations).
    features : "spd" | "log-variance"
        The second leaves the SPD part out (ablation).
    head : "linear" | "grassmann" | "simplex" | "orthogonal"
    metric : str
        Of the norm: "affine-invariant", "log-euclidean" or "log-cholesky".
    unseen : "pooled" | "adapt" | "raise"
        What evaluation does with domains without statistics.
    norm_options : mapping | None
        More options of `DomainSPDBatchNorm` (`DomainBatchNorm` for log-variance),
        such as ``eta`` or ``dispersion``.
    front_dtype, spd_dtype : str or torch.dtype
        float32 and float64, as published.
    random_state : int | torch.Generator | None
        Of the initial weights.
    device : torch.device | str | None

    Attributes
    ----------
    front : LinearFront
    bimap : BiMap or None
    tail : SPDTail
        ``net.tail(S, domain)``: ReEig, norm and LogEig of `spd`'s matrices.
    head : torch.nn.Module

    References
    ----------
    Kobler, Hirayama, Zhao and Kawanabe, "SPD domain-specific batch normalization
    to crack interpretable unsupervised domain adaptation in EEG", NeurIPS 2022.
    """

    def __init__(
        self,
        n_chans: int,
        n_outputs: int,
        n_times: int,
        *,
        sfreq: float | None = None,
        domains: Iterable[Name] = (),
        front: str = "conv",
        n_temporal_filters: int = 4,
        temporal_kernel: int = 25,
        n_spatial_filters: int = 40,
        subspace: int = 20,
        threshold: float = 1e-4,
        norm: str = "domain",
        features: str = "spd",
        head: str = "linear",
        metric: str = "affine-invariant",
        unseen: str = "pooled",
        norm_options: Mapping[str, Any] | None = None,
        front_dtype: torch.dtype | str = torch.float32,
        spd_dtype: torch.dtype | str = torch.float64,
        random_state: int | torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(n_outputs, norm)
        generator = as_generator(random_state)
        where: Any = {"dtype": as_dtype(spd_dtype), "device": device}
        self.front = LinearFront(
            n_chans,
            n_times,
            n_temporal=n_temporal_filters,
            kernel=temporal_kernel,
            n_spatial=n_spatial_filters,
            path=front,
            generator=generator,
            dtype=as_dtype(front_dtype),
            device=device,
        )
        spd = features == "spd"
        # The ablation takes variances of the filters' outputs: no matrices, no BiMap.
        size = subspace if spd else n_spatial_filters
        self.bimap = (
            BiMap(n_spatial_filters, subspace, generator=generator, **where)
            if spd
            else None
        )
        self.tail = make_tail(
            size,
            domains,
            norm=norm,
            metric=metric,
            unseen=unseen,
            threshold=threshold,
            features=features,
            options=norm_options,
            **where,
        )
        self.head = make_head(
            head, n_features(size, features), n_outputs, generator=generator, **where
        )

    def spd(self, x: Tensor) -> Tensor:
        """Return the SPD matrices that enter the tail.

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times), volts
            With the lag path also ``net.front.statistics`` of trials.

        Returns
        -------
        S : Tensor, shape (batch, subspace, subspace)
        """
        if self.bimap is None:
            S: Tensor = self.front(x)
            return S
        # The BiMap's W is handed to the front: two linear maps are one filter.
        W = self.bimap.weight
        S = self.front(x, projection=W)
        # The front in float32, as published; what follows needs its digits.
        return S.to(W.dtype)
