"""Domain-specific standardisation of feature vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail, listing
from eegtensor.features._base import check_fitted
from eegtensor.transfer._perdomain import PerDomain


class DomainStandardScaler(PerDomain):
    """Give every feature mean 0 and variance 1 within each domain.

    Labels are not used, so an unseen person's trials set their own statistics
    through `adapt`.

    Parameters
    ----------
    unseen : "pooled" | "adapt" | "raise"
        What `transform` does with a domain it has no statistics for: use the
        sources' mean and variance within domains, the statistics of the given
        batch, or raise.
    prior_trials : float
        How many trials the sources' statistics count for when `partial_adapt`
        meets a new domain; afterwards mean and variance run (Welford).

    Attributes
    ----------
    domains_ : DomainTable
    mean_, scale_ : ndarray, shape (n_domains, n_features)
        Mean and standard deviation (of the population). Where a feature is
        constant in a domain the pooled scale stands in, and 1 where it is
        constant in all.
    count_ : ndarray, shape (n_domains,)
        Trials seen of each domain.
    pooled_mean_, pooled_scale_ : ndarray, shape (n_features,)
        Mean over source trials; root of the variance within source domains.
    last_target_ : Domain | None
        What `transform` without domains uses.

    References
    ----------
    R. J. Kobler et al., "SPD domain-specific batch normalization to crack
    interpretable unsupervised domain adaptation in EEG", NeurIPS, 2022
    (FBCSP + DSS + LDA among its baselines).
    """

    def __init__(self, unseen: str = "pooled", prior_trials: float = 5.0) -> None:
        self.unseen = unseen
        self.prior_trials = prior_trials

    @property
    def mean_(self) -> NDArray:
        """Means of the domains, in order of `domains_`."""
        check_fitted(self, "statistics_")
        return self.statistics_[:, 0]

    @property
    def scale_(self) -> NDArray:
        """Standard deviations of the domains, in order of `domains_`."""
        check_fitted(self, "statistics_")
        return self._scales(self.statistics_)

    @property
    def count_(self) -> NDArray:
        """Trials seen of each domain."""
        check_fitted(self, "statistics_")
        return self.counts_

    @property
    def pooled_mean_(self) -> NDArray:
        """Mean over all source trials."""
        check_fitted(self, "statistics_")
        return self.pooled_[0]

    @property
    def pooled_scale_(self) -> NDArray:
        """Standard deviation within source domains; 1 for constant features."""
        check_fitted(self, "statistics_")
        return _scale(self.pooled_, np.ones(self.pooled_.shape[-1]))

    def _scales(self, statistics: NDArray) -> NDArray:
        return _scale(statistics, self.pooled_scale_)

    def _check(self, X: Any) -> NDArray:
        array = np.asarray(X)
        if array.ndim != 2 or 0 in array.shape:
            fail(
                f"X has shape {array.shape}, not (n_trials, n_features)",
                fix="put features such as CSP or TangentSpace before this step",
            )
        if array.dtype.kind not in "fiub":
            fail(f"X has dtype {array.dtype}, not numbers")
        if array.dtype.kind != "f":
            array = array.astype(np.float64)
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            fail(
                f"X holds NaN or infinity in trials {listing(np.flatnonzero(~finite))}",
                fix="drop these trials",
            )
        return array

    def _statistics(
        self, X: NDArray, codes: NDArray, n_domains: int, weights: NDArray | None
    ) -> NDArray:
        """Return mean and variance, shape (n_domains, 2, n_features)."""
        w = np.ones(len(X)) if weights is None else weights
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(n_domains))
        X, codes, w = X[order].astype(np.float64), codes[order], w[order]
        share = (w / np.add.reduceat(w, starts)[codes])[:, np.newaxis]
        # Two passes: the variance of features far from 0 would cancel in one.
        mean = np.add.reduceat(share * X, starts)
        variance = np.add.reduceat(share * (X - mean[codes]) ** 2, starts)
        return np.stack([mean, variance], axis=1)

    def _pool(self, statistics: NDArray, counts: NDArray) -> NDArray:
        return np.asarray(np.average(statistics, axis=0, weights=counts))

    def _update(self, statistic: NDArray, x: NDArray, weight: float) -> NDArray:
        mean, variance = statistic
        # Welford (1962) with the running weight in place of 1 / n.
        step = x - mean
        return np.stack(
            [mean + weight * step, (1 - weight) * (variance + weight * step**2)]
        )

    def _apply(self, X: NDArray, statistics: NDArray, codes: NDArray) -> NDArray:
        return (X - statistics[codes, 0]) / self._scales(statistics)[codes]


def _scale(statistics: NDArray, constant: NDArray) -> NDArray:
    """Return standard deviations, and `constant` where there is only rounding."""
    mean, variance = statistics[..., 0, :], statistics[..., 1, :]
    scale = np.sqrt(variance)
    # The mean itself is known to some ulps: less spread than that is none.
    rounding = 16 * np.finfo(np.float64).eps * np.abs(mean)
    return np.where(scale > rounding, scale, constant)
