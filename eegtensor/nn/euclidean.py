"""Domain-specific batch normalisation of feature vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.geometry._bridge import floating
from eegtensor.nn._domains import DomainStatistics, Name
from eegtensor.nn._precision import full_precision
from eegtensor.nn._spaces import VectorSpace


class DomainBatchNorm(DomainStatistics):
    """Batch normalisation of feature vectors with statistics of each domain.

    What `DomainSPDBatchNorm` is for SPD matrices: the same domains, momenta,
    refit and unseen policies. With the mean M and variance v of a trial's
    domain, y = s (x - M) / sqrt(v + eps) + b.

    Parameters
    ----------
    n_features : int
    domains : iterable of str or (dataset, subject, session)
    dispersion : "vector" | "scalar" | "none"
        One variance for each feature, one for all, or centring only.
    eta, eta_test : float
        Weight of a new batch in the statistics of training and evaluation.
    eps : float
    unseen : "pooled" | "adapt" | "raise"
        As in `DomainSPDBatchNorm`.
    synchronise : bool
        Whether processes that train together share the statistics of a batch.
    dtype : torch.dtype | None
        Of the parameters; statistics are float64.
    device : torch.device | str | None

    References
    ----------
    Chang, You, Seo, Kwak and Han, Domain-specific batch normalization for
    unsupervised domain adaptation, CVPR 2019; Yong, Huang, Meng, Hua and Zhang,
    Momentum batch normalization, ECCV 2020.
    """

    def __init__(
        self,
        n_features: int,
        domains: Iterable[Name] = (),
        *,
        dispersion: str = "vector",
        eta: float = 1.0,
        eta_test: float = 0.1,
        eps: float = 1e-5,
        unseen: str = "pooled",
        synchronise: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_option("dispersion", dispersion, ("vector", "scalar", "none"))
        if n_features < 1 or not eps >= 0:
            fail(
                f"n_features={n_features}, eps={eps}",
                fix="n_features from 1, eps from 0 up",
            )
        self.n_features = n_features
        self.eps = eps
        self.dispersion = dispersion
        self.kind = f"Euclidean, dispersion {dispersion}"
        shape = (n_features,) if dispersion == "vector" else ()
        self._start_statistics(
            VectorSpace(dispersion),
            (torch.zeros(n_features), torch.ones(shape)),
            eta=eta,
            eta_test=eta_test,
            synchronise=synchronise,
            device=device,
        )
        new: Any = {"dtype": dtype, "device": device}
        self.scale: nn.Parameter | None = None
        if dispersion != "none":
            self.scale = nn.Parameter(torch.ones(shape, **new))
        self.bias = nn.Parameter(torch.zeros(n_features, **new))
        self._name_rows(domains, unseen)

    def forward(self, x: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return normalised vectors.

        Parameters
        ----------
        x : Tensor, shape (batch, n_features)
        domain : Tensor of int64, shape (batch,) | None
            Codes of `encode`; -1 and None are no known domain.

        Returns
        -------
        y : Tensor, shape (batch, n_features)
        """
        codes = self._rows(x, domain)
        with full_precision(x):
            V = self._enter(x, learn=False)
            statistics = self._train if self.training else self._look_up
            mean, variance, groups = statistics(V, codes)
            y = V - groups.spread(mean).to(V.dtype)
            if self.scale is not None:
                factor = self.scale * groups.spread((variance + self.eps).rsqrt())
                # One variance a trial, or one a feature.
                factor = factor if factor.ndim == 2 else factor[:, None]
                y = y * factor.to(V.dtype)
            return y + self.bias.to(V.dtype)

    def _enter(self, X: Tensor, *, learn: bool) -> Tensor:
        if X.ndim != 2 or X.shape[1] != self.n_features:
            fail(
                f"x has shape {tuple(X.shape)}",
                fix=f"give vectors of shape (batch, {self.n_features})",
            )
        # Nothing to learn: a variance takes the unit out by itself.
        return floating(X)
