"""Inference over people: intervals and paired tests; trials are never resampled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

# 2^14 flips cost about what DRAWS do, and an enumerated p has no sampling error.
EXACT_PEOPLE = 14
DRAWS = 10_000
RESAMPLES = 5_000


def bootstrap_interval(
    values: NDArray,
    *,
    confidence: float = 0.95,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a bootstrap interval (BCa) of the mean over people.

    With few people it is too narrow: a 95 % interval of normal values held the
    true mean in 84 % of simulations with 5 people, 89 % with 10, 92 % with 20.

    Parameters
    ----------
    values : ndarray, shape (n_people,)
        One value a person; NaN is left out.
    confidence : float
    n_resamples : int
    seed : int

    Returns
    -------
    low, high : float
        NaN for fewer than two people.

    References
    ----------
    .. [1] Efron, Better bootstrap confidence intervals, JASA 82, 1987.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    n_people = len(x)
    if n_people < 2:
        return float("nan"), float("nan")
    if np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    # One seed for all methods: they are compared on the same draws of people.
    rng = np.random.default_rng(seed)
    means = x[rng.integers(0, n_people, (n_resamples, n_people))].mean(axis=1)
    # Few people make few distinct means: counting ties by half keeps the bias at 0.
    below = np.mean(means < x.mean()) + np.mean(means == x.mean()) / 2
    bias = ndtri(np.clip(below, 1 / n_resamples, 1 - 1 / n_resamples))
    # The jackknife of a mean is the mean of deviations, so skewness is enough.
    centred = x - x.mean()
    acceleration = np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    z = bias + ndtri(tails)
    levels = ndtr(bias + z / (1 - acceleration * z))
    low, high = np.quantile(means, levels)
    return float(low), float(high)


class SignFlips(NamedTuple):
    """Result of `sign_flip_test`, one entry a comparison."""

    p: NDArray
    p_corrected: NDArray
    p_smallest: NDArray
    n_people: NDArray
    exact: bool


def sign_flip_test(
    differences: NDArray, *, n_draws: int = DRAWS, seed: int = 0
) -> SignFlips:
    """Test paired differences by flipping signs of people, two-sided.

    All 2^n flips are enumerated for n <= 14 people, else `n_draws` are drawn.
    The statistic is |sum d| / sqrt(sum d^2), which orders flips as Student's t
    does; its maximum over comparisons controls the family-wise error.

    Parameters
    ----------
    differences : ndarray, shape (n_people,) or (n_people, n_comparisons)
        A person's NaN leaves that person out of that comparison.
    n_draws : int
    seed : int

    Returns
    -------
    SignFlips
        p values, p values corrected by the maximum statistic, the smallest p
        that so many people can give (2 / 2^n; 0.0625 for five), and n.

    References
    ----------
    .. [1] Nichols and Holmes, Nonparametric permutation tests for functional
       neuroimaging: a primer, Human Brain Mapping 15, 2002.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[:, np.newaxis] if d.ndim == 1 else d
    known = np.isfinite(d)
    n_people = known.sum(axis=0)
    d = np.where(known, d, 0.0)
    norm = np.sqrt(np.sum(d**2, axis=0))
    unit = np.divide(d, norm, out=np.zeros_like(d), where=norm > 0)
    exact = len(d) <= EXACT_PEOPLE
    signs = _all_signs(len(d)) if exact else _drawn_signs(len(d), n_draws, seed)
    null = np.abs(signs @ unit)
    # Flips that tie with the observed sum must count in spite of rounding.
    observed = np.abs(unit.sum(axis=0)) - 1e-10
    # Drawn flips lack the observed one, without which p could be 0.
    added = 0 if exact else 1
    total = len(signs) + added
    p = ((null >= observed).sum(axis=0) + added) / total
    highest = null.max(axis=1, initial=0.0)
    p_corrected = ((highest[:, np.newaxis] >= observed).sum(axis=0) + added) / total
    smallest = np.minimum(1.0, np.maximum(2.0 ** (1.0 - n_people), added / total))
    return SignFlips(p, p_corrected, smallest, n_people, exact)


def _all_signs(n_people: int) -> NDArray:
    bits = np.arange(2**n_people)[:, np.newaxis] >> np.arange(n_people)
    return 1.0 - 2.0 * (bits & 1)


def _drawn_signs(n_people: int, n_draws: int, seed: int) -> NDArray:
    rng = np.random.default_rng(seed)
    return 1.0 - 2.0 * rng.integers(0, 2, (n_draws, n_people))
