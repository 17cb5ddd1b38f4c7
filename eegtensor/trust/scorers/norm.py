"""The length of features: what cosines leave out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_option
from eegtensor.trust.scorers.base import standardiser

SIDES = ("large", "both")


def unit(h: NDArray) -> NDArray:
    """Return features divided by their length, shape (n_trials, n_features)."""
    h = np.asarray(h, dtype=np.float64)
    # By the largest entry first: squares of small features would underflow.
    top = np.abs(h).max(axis=1, keepdims=True)
    h = h / np.where(top > 0, top, 1.0)
    length = np.linalg.norm(h, axis=1, keepdims=True)
    return h / np.where(length > 0, length, 1.0)


class NormTerm:
    """How far the logarithm of a feature's length is from those of training.

    In standard deviations, the same whatever the unit of the features.

    Parameters
    ----------
    h : ndarray, shape (n_trials, n_features)
        Of training.
    side : "large" | "both"
        Whether short features are familiar, or as strange as long ones.
    """

    def __init__(self, h: NDArray, side: str = "both") -> None:
        self.side = check_option("norm_side", side, SIDES)
        self.centre, self.scale = standardiser(_log_length(h))

    def __call__(self, h: NDArray) -> NDArray:
        """Return z of log ||h||, or |z|, shape (n_trials,)."""
        z = (_log_length(h) - self.centre) / self.scale
        return np.abs(z) if self.side == "both" else z


def _log_length(h: NDArray) -> NDArray:
    length = np.linalg.norm(np.asarray(h, dtype=np.float64), axis=1)
    return np.log(np.maximum(length, np.finfo(np.float64).tiny))
