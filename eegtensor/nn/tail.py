"""ReEig, domain batch norm and LogEig as one layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor, nn

from eegtensor.geometry._bridge import floating
from eegtensor.geometry.normalization import rectify_where_needed
from eegtensor.geometry.vectors import upper_vector
from eegtensor.nn._domains import Name
from eegtensor.nn._precision import full_precision
from eegtensor.nn.batchnorm import SPDNormOptions
from eegtensor.nn.domainnorm import DomainSPDBatchNorm
from eegtensor.nn.eigen import check_threshold


class SPDTail(nn.Module):
    """ReEig, `DomainSPDBatchNorm` and LogEig as one layer, from SPD to vectors.

    Equal to the three layers one after the other, with half of their
    eigendecompositions in training and a third in evaluation: a Cholesky
    factorisation tells where ReEig has nothing to do, and the logarithm of a
    power is a multiple of the logarithm.

    Parameters
    ----------
    n : int
        Matrices are n x n.
    domains : iterable of str or (dataset, subject, session)
    threshold : float
        Eigenvalues are raised to this multiple of their mean (ReEig), whatever
        the unit.
    unseen : "pooled" | "adapt" | "raise"
    **options
        See `DomainSPDBatchNorm`.

    Attributes
    ----------
    norm : DomainSPDBatchNorm
    """

    def __init__(
        self,
        n: int,
        domains: Iterable[Name] = (),
        *,
        threshold: float = 1e-4,
        unseen: str = "pooled",
        **options: Unpack[SPDNormOptions],
    ) -> None:
        super().__init__()
        self.threshold = check_threshold(threshold)
        self.norm = DomainSPDBatchNorm(n, domains, unseen=unseen, **options)

    def forward(self, S: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return tangent vectors.

        Parameters
        ----------
        S : Tensor, shape (batch, n, n)
            Covariance matrices.
        domain : Tensor of int64, shape (batch,) | None
            Codes of ``norm.encode``; -1 and None are no known domain.

        Returns
        -------
        v : Tensor, shape (batch, n (n + 1) / 2)
            In the order of `eegtensor.geometry.upper_vector`.
        """
        with full_precision(S):
            X = self.rectified(S)
            vector: Tensor = upper_vector(self.norm.log(X, domain, symmetric=True))
            return vector

    def rectified(self, S: Tensor) -> Tensor:
        """Return the matrices that enter the norm, shape (batch, n, n)."""
        self.norm.check_shape(S)
        return rectify_where_needed(floating(S), self.threshold)

    def fit_statistics(
        self, S: Tensor, domain: Tensor, *, weights: Tensor | None = None
    ) -> None:
        """Replace the statistics of every domain in a batch; see the norm's."""
        with torch.no_grad(), full_precision(S):
            X = self.rectified(S.double())
            self.norm.fit_statistics(X, domain, weights=weights)

    def update_statistics(
        self, S: Tensor, domain: Tensor, *, prior_trials: float = 10.0
    ) -> None:
        """Move the statistics of the domains by new trials; see the norm's."""
        with torch.no_grad(), full_precision(S):
            X = self.rectified(S.double())
            self.norm.update_statistics(X, domain, prior_trials=prior_trials)
