"""Dual smoothing: two decoders, each of every other sample of a trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_option, check_signals, fail
from eegtensor.trust.certificates.bounds import dual_radius, lower_confidence
from eegtensor.trust.certificates.functional import SmoothingNoise
from eegtensor.trust.certificates.record import ABSTAIN, Certificates
from eegtensor.trust.certificates.smoothing import Decide, Votes, count_votes, power_of

SPLITS = ("samples", "checkerboard")


def halves(n_channels: int, n_times: int, split: str = "samples") -> NDArray:
    """Return which values each half has, bool (2, n_channels, n_times).

    Parameters
    ----------
    n_channels, n_times : int
    split : "samples" | "checkerboard"
        Every other sample, of all channels alike or of neighbours in turn.
    """
    check_option("split", split, SPLITS)
    at = np.add.outer(
        np.arange(n_channels) * (split == "checkerboard"), np.arange(n_times)
    )
    return np.stack([at % 2 == 0, at % 2 == 1])


def filled(X: NDArray, mask: NDArray) -> NDArray:
    """Return trials with what a half lacks filled in between its samples.

    A linear map of the values that the half has: whatever sees the result sees
    nothing of the others.

    Parameters
    ----------
    X : ndarray, shape (..., n_channels, n_times)
    mask : ndarray of bool, shape (n_channels, n_times)
        Every other sample is True.
    """
    # The ends have one neighbour.
    before = np.concatenate([X[..., 1:2], X[..., :-1]], axis=-1)
    after = np.concatenate([X[..., 1:], X[..., -2:-1]], axis=-1)
    return np.where(mask, X, 0.5 * (before + after)).astype(X.dtype)


def certify_dual(
    decide: tuple[Decide, Decide],
    X: NDArray,
    *,
    scale: NDArray,
    sigma: float,
    n_classes: int,
    split: str = "samples",
    votes: Votes | None = None,
    random_state: int | np.random.Generator | None = 0,
) -> Certificates:
    """Return what the summed votes of two halves settle on, and how far in l2.

    Parameters
    ----------
    decide : pair of callables
        As for `certify`; each gets trials whose other half is filled in.
    X : ndarray, shape (n_trials, n_channels, n_times)
    scale : ndarray, shape (1, n_channels, 1)
    sigma : float
        Of Gaussian noise, in standard deviations.
    n_classes : int
    split : "samples" | "checkerboard"
    votes : Votes | None
        Of each half; each bound fails with half the chance.
    random_state : int | Generator | None

    Returns
    -------
    Certificates
        `p` is the mean of both bounds.

    Notes
    -----
    See `dual_radius`: (R_l + R_r) / sqrt(2), where the release over-claims.
    """
    X, votes = check_signals(X), (votes or Votes()).checked()
    if X.shape[2] < 2:
        fail("Trials of one sample have no halves")
    masks = halves(X.shape[1], X.shape[2], split)
    noise = SmoothingNoise("l2", sigma, X[0].size).checked()
    rng = np.random.default_rng(random_state)
    codes, p = np.full(len(X), ABSTAIN), np.zeros(len(X))
    radius = np.zeros(len(X))

    def of_half(k: int) -> Decide:
        # Noise first: a half sees that of its own samples alone.
        return lambda noisy: decide[k](filled(noisy, masks[k]))

    sides = [of_half(0), of_half(1)]
    for i, x in enumerate(X):
        rest = (n_classes, rng, votes.batch_size)
        first = [count_votes(d, x, scale, noise, votes.select, *rest) for d in sides]
        top = int(np.sum(first, axis=0).argmax())
        found = [count_votes(d, x, scale, noise, votes.estimate, *rest) for d in sides]
        low = [lower_confidence(f[top], votes.estimate, votes.alpha / 2) for f in found]
        r = float(dual_radius(low[0], low[1], sigma))
        p[i] = np.mean(low)
        if r > 0:
            codes[i], radius[i] = top, r
    return Certificates(
        codes, radius, "l2", p, votes.alpha, noise.d, power_of(X, scale)
    )
