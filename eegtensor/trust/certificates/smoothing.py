"""Randomized smoothing: the vote of a decoder on noisy copies of a trial."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_count, check_signals, fail
from eegtensor.trust.certificates.bounds import lower_confidence
from eegtensor.trust.certificates.functional import SmoothingNoise
from eegtensor.trust.certificates.record import ABSTAIN, Certificates

# Trials (n_trials, n_channels, n_times) to codes of classes, each by itself.
Decide = Callable[[NDArray], NDArray]


class Votes(NamedTuple):
    """How many noisy copies vote.

    Attributes
    ----------
    select : int
        To choose the class.
    estimate : int
        To bound its share; of others, so that the choice does not bias it.
    alpha : float
        Chance that the bound is wrong.
    batch_size : int
        Copies at a time.
    """

    select: int = 100
    estimate: int = 10_000
    alpha: float = 1e-3
    batch_size: int = 256

    def checked(self) -> Votes:
        """Return itself, or raise for numbers that mean nothing."""
        check_count("votes to select", self.select)
        check_count("votes to estimate", self.estimate)
        check_count("batch_size", self.batch_size)
        if not 0.0 < self.alpha < 0.5:
            fail(f"alpha={self.alpha!r}", fix="choose a chance in (0, 0.5)")
        return self


def count_votes(
    decide: Decide,
    x: NDArray,
    scale: NDArray,
    noise: SmoothingNoise,
    n: int,
    n_classes: int,
    rng: np.random.Generator,
    batch_size: int = 256,
) -> NDArray:
    """Return how often each class is said of a trial with noise, (n_classes,).

    Parameters
    ----------
    decide : callable
    x : ndarray, shape (n_channels, n_times)
    scale : ndarray, shape (1, n_channels, 1)
        A standard deviation of each channel.
    noise : SmoothingNoise
        In standard deviations.
    n, n_classes : int
    rng : Generator
    batch_size : int
    """
    counts = np.zeros(n_classes, dtype=np.int64)
    for start in range(0, n, batch_size):
        z = noise.draw(min(batch_size, n - start), rng).reshape(-1, *x.shape)
        said = decide((x + scale * z).astype(x.dtype))
        counts += np.bincount(said, minlength=n_classes)
    return counts


def certify(
    decide: Decide,
    X: NDArray,
    *,
    scale: NDArray,
    noise: SmoothingNoise,
    n_classes: int,
    votes: Votes | None = None,
    random_state: int | np.random.Generator | None = 0,
) -> Certificates:
    """Return the class that a decoder's votes under noise settle on, and how far.

    Parameters
    ----------
    decide : callable
        Trials to codes of classes. What it says of a trial must not depend on those
        beside it.
    X : ndarray, shape (n_trials, n_channels, n_times)
    scale : ndarray, shape (1, n_channels, 1)
        A standard deviation of each channel, not of these trials but fixed before.
    noise : SmoothingNoise
    n_classes : int
    votes : Votes | None
    random_state : int | Generator | None

    Returns
    -------
    Certificates

    Raises
    ------
    EEGTensorError
        If shapes or numbers do not fit.

    References
    ----------
    J. Cohen, E. Rosenfeld and Z. Kolter, "Certified adversarial robustness via
    randomized smoothing", ICML 2019 (procedure CERTIFY); for other noise D. Zhang et
    al., NeurIPS 2020.
    """
    X, votes, noise = check_signals(X), (votes or Votes()).checked(), noise.checked()
    if noise.d != X[0].size:
        fail(f"Noise of {noise.d} values for trials of {X[0].size}")
    rng = np.random.default_rng(random_state)
    # One source of error for l1 and l2; the bound of linf is drawn, too.
    alpha = votes.alpha / 2 if noise.norm == "linf" else votes.alpha
    codes, p = np.full(len(X), ABSTAIN), np.zeros(len(X))
    radius = np.zeros(len(X))
    for i, x in enumerate(X):
        args = (decide, x, scale, noise)
        first = count_votes(*args, votes.select, n_classes, rng, votes.batch_size)
        top = int(first.argmax())
        found = count_votes(*args, votes.estimate, n_classes, rng, votes.batch_size)
        p[i] = lower_confidence(found[top], votes.estimate, alpha)
        if p[i] > 0.5:
            codes[i] = top
            radius[i] = _radius(noise, float(p[i]), alpha)
    return Certificates(
        codes, radius, noise.norm, p, votes.alpha, noise.d, power_of(X, scale)
    )


@lru_cache(maxsize=4096)
def _radius(noise: SmoothingNoise, p: float, alpha: float) -> float:
    # Trials with as many votes have the same radius, and it may take a second.
    return noise.radius(p, alpha=alpha)


def power_of(X: NDArray, scale: NDArray) -> NDArray:
    """Return the sum of squares of trials about their channels' means, by scale."""
    z = (X - X.mean(axis=2, keepdims=True)) / scale
    return np.einsum("nct,nct->n", z, z, dtype=np.float64)
