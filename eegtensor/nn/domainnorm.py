"""Domain-specific batch normalisation of SPD matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from torch import Tensor

from eegtensor.nn._domains import DomainStatistics, Name
from eegtensor.nn.batchnorm import SPDNorm, SPDNormOptions


class DomainSPDBatchNorm(DomainStatistics, SPDNorm):
    """Batch normalisation of SPD matrices with statistics of each domain.

    Each domain (one sitting of one person) is centred by its own mean and
    scaled by its own dispersion; what follows is shared. Training normalises
    with running statistics whose momentum is set from outside
    (`set_momentum`), evaluation with statistics of a momentum of their own or,
    after `fit_statistics`, with those of the domain's trials, which need no
    labels.

    With R and v of a trial's domain, training does

        R <- R #_eta B,  v <- (1 - eta) v + eta mean_i d^2(X_i, R)
        Y = (R^{-1/2} X R^{-1/2})^{s / sqrt(v + eps)}

    where B is one Karcher step from the arithmetic mean of the domain's trials
    in the batch, and distances are taken in the tangent space there. A domain's
    first batch sets its statistics (eta = 1), so that units do not matter.

    Parameters
    ----------
    n : int
        Matrices are n x n.
    domains : iterable of str or (dataset, subject, session)
        Domains known from the start; `add_domains` adds others.
    unseen : "pooled" | "adapt" | "raise"
        What evaluation does with trials of domains without statistics (code -1):
        normalise by the mean of the source domains' statistics, by statistics of
        these very trials, or refuse. "adapt" and "raise" look at the codes: under
        torch.export, and without waiting for a GPU, there is "pooled" only.
    **options
        See `SPDBatchNorm`.

    References
    ----------
    Kobler, Hirayama, Zhao and Kawanabe, SPD domain-specific batch normalization
    to crack interpretable unsupervised domain adaptation in EEG, NeurIPS 2022;
    Chen, Song, Liu and Sebe, A Lie group approach to Riemannian batch
    normalization, ICLR 2024 (the other metrics).

    Examples
    --------
    >>> import torch
    >>> norm = DomainSPDBatchNorm(2, ["ann", "bob"])
    >>> X = torch.eye(2) * torch.tensor([1.0, 4.0, 2.0, 8.0])[:, None, None]
    >>> domain = norm.encode(["ann", "ann", "bob", "bob"])
    >>> norm.fit_statistics(X, domain)
    >>> norm.eval().log(X, domain)[:, 0, 0]
    tensor([-0.7071,  0.7071, -0.7071,  0.7071], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        n: int,
        domains: Iterable[Name] = (),
        *,
        unseen: str = "pooled",
        **options: Unpack[SPDNormOptions],
    ) -> None:
        super().__init__(n, **options)
        # Names add rows to the statistics, which must be there.
        self._name_rows(domains, unseen)

    def forward(self, X: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return normalised SPD matrices.

        Parameters
        ----------
        X : Tensor, shape (batch, n, n)
        domain : Tensor of int64, shape (batch,) | None
            Codes of `encode`; -1 and None are no known domain.

        Returns
        -------
        Y : Tensor, shape (batch, n, n)
        """
        return self._normalise(X, self._rows(X, domain), log=False)

    def log(
        self, X: Tensor, domain: Tensor | None = None, *, symmetric: bool = False
    ) -> Tensor:
        """Return the logarithms of `forward` without decomposing again.

        log(Z^p) is p log Z: the power costs nothing where the logarithm follows.

        Parameters
        ----------
        X : Tensor, shape (batch, n, n)
        domain : Tensor of int64, shape (batch,) | None
        symmetric : bool
            Whether X is known to be symmetric to the last bit, float32 or float64,
            and of the right shape, which is then neither checked nor made so.
        """
        codes = self._rows(X, domain)
        return self._normalise(X, codes, log=True, symmetric=symmetric)
