"""Radii that follow from votes under Gaussian noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm


def lower_confidence(hits: ArrayLike, n: int, alpha: float) -> NDArray:
    """Return Clopper and Pearson's lower bound of a probability.

    Exact: below the truth with probability at least 1 - alpha.

    Parameters
    ----------
    hits : array-like of int
        Out of `n` independent trials.
    n : int
    alpha : float
    """
    k = np.asarray(hits, dtype=np.float64)
    low = beta.ppf(alpha, np.maximum(k, 1.0), n - k + 1.0)
    return np.where(k > 0, low, 0.0)


def gaussian_radius(p: ArrayLike, sigma: float) -> NDArray:
    """Return sigma Phi^-1(p): negative below one half.

    References
    ----------
    J. Cohen, E. Rosenfeld and Z. Kolter, "Certified adversarial robustness via
    randomized smoothing", ICML 2019, theorem 1 with the second class at 1 - p.
    """
    return np.asarray(sigma * norm.ppf(np.asarray(p, dtype=np.float64)))


def dual_radius(p_left: ArrayLike, p_right: ArrayLike, sigma: float) -> NDArray:
    """Return the l2 radius of the sum of the votes on two halves of a signal.

    With R = sigma Phi^-1(p) of each half, both signed, a perturbation d = (d_l, d_r)
    leaves Phi((R_l - |d_l|) / sigma) + Phi((R_r - |d_r|) / sigma) > 1 while
    |d_l| + |d_r| < R_l + R_r, and |d_l| + |d_r| <= sqrt(2) |d|:
    the radius is (R_l + R_r) / sqrt(2).

    Parameters
    ----------
    p_left, p_right : array-like
        Lower bounds that hold together: each at alpha / 2.
    sigma : float

    Returns
    -------
    radius : ndarray
        -inf or negative where nothing is certified.

    References
    ----------
    S. Xia et al., "Mitigating the curse of dimensionality for certified robustness
    via dual randomized smoothing", ICLR 2024. The released sqrt(R_l^2 + R_r^2) is
    too large unless R_l = R_r.
    """
    # +inf and -inf, of votes that are all alike, certify nothing.
    with np.errstate(invalid="ignore"):
        total = gaussian_radius(p_left, sigma) + gaussian_radius(p_right, sigma)
    return np.where(np.isnan(total), -np.inf, total / np.sqrt(2.0))
