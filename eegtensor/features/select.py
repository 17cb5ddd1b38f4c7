"""Feature selection by mutual information with the class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import xlogy

# Linear binning and interpolation then widen a window by less than a thousandth.
_GRID_PER_WIDTH = 16
_GRID_LIMIT = 1 << 15


def mutual_information(
    F: NDArray, codes: NDArray, *, weights: ArrayLike | None = None
) -> NDArray:
    """Return the mutual information of each feature and the class, in bits.

    I(f; c) = H(c) - H(c | f), with p(f | c) from Parzen windows: Gaussian, of
    width (4 / 3 n_c)^(1/5) sigma_c. Windows are summed on a grid of a sixteenth
    of the narrowest width, so the cost is linear in the trials.

    Parameters
    ----------
    F : ndarray, shape (n_trials, n_features)
    codes : ndarray of int, shape (n_trials,)
        Class of each trial, 0 .. n_classes - 1.
    weights : array-like, shape (n_trials,) | None

    Returns
    -------
    information : ndarray, shape (n_features,), bits
        0 for a constant feature.

    References
    ----------
    K. K. Ang et al., "Filter bank common spatial pattern algorithm on BCI
    Competition IV datasets 2a and 2b", Front. Neurosci., 2012.
    """
    F = np.asarray(F, dtype=np.float64)
    w = np.ones(len(F)) if weights is None else np.asarray(weights, dtype=np.float64)
    # Where nobody weighs anything a density may be 0, and 0 / 0 would spread.
    F, codes, w = F[w > 0], codes[w > 0], w[w > 0]
    mass = np.bincount(codes, weights=w)
    priors = mass / mass.sum()
    entropy = -xlogy(priors, priors).sum()
    conditional = [_conditional_entropy(f, codes, w, priors) for f in F.T]
    return (entropy - np.asarray(conditional)) / np.log(2)


def _conditional_entropy(
    f: NDArray, codes: NDArray, weights: NDArray, priors: NDArray
) -> float:
    """Return H(c | f) in nats, averaged over the trials."""
    spread = f.std()
    if not spread > 1e-12 * np.abs(f).max():
        return float(-xlogy(priors, priors).sum())
    # A class without spread would be a line; the floor keeps it on the grid.
    widths = [_width(f[codes == k], weights[codes == k]) for k in range(len(priors))]
    widths = [max(width, 1e-3 * spread) for width in widths]
    step = max(min(widths) / _GRID_PER_WIDTH, np.ptp(f) / _GRID_LIMIT)
    margin = 6 * max(widths)
    start = f.min() - margin
    n_points = int(np.ceil((np.ptp(f) + 2 * margin) / step)) + 2
    position = (f - start) / step
    left = position.astype(np.int64)
    right_share = position - left
    joint = np.empty((len(priors), len(f)))
    for k, prior in enumerate(priors):
        own = codes == k
        mass = np.bincount(left[own], (1 - right_share[own]) * weights[own], n_points)
        mass += np.bincount(left[own] + 1, right_share[own] * weights[own], n_points)
        density = gaussian_filter1d(mass, widths[k] / step, mode="constant", truncate=6)
        density *= prior / mass.sum()
        joint[k] = (1 - right_share) * density[left] + right_share * density[left + 1]
    posterior = joint / joint.sum(axis=0)
    return float(-np.average(xlogy(posterior, posterior).sum(axis=0), weights=weights))


def _width(f: NDArray, weights: NDArray) -> float:
    """Return the normal-reference width, with the effective number of trials."""
    total = weights.sum()
    mean = weights @ f / total
    sigma = np.sqrt(weights @ (f - mean) ** 2 / total)
    effective = total**2 / (weights**2).sum()
    return float((4 / (3 * effective)) ** 0.2 * sigma)


def best_with_partners(scores: NDArray, partners: NDArray, n_best: int) -> NDArray:
    """Return the sorted indices of the best features and of their partners.

    Parameters
    ----------
    scores : ndarray, shape (n_features,)
    partners : ndarray of int, shape (n_features,)
        The feature that belongs to each, possibly itself.
    n_best : int
    """
    best = np.argsort(-scores, kind="stable")[:n_best]
    return np.unique(np.concatenate([best, partners[best]]))
