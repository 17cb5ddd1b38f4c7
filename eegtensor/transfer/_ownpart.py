"""What one person's decisions have beside the directions that all share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eegtensor.geometry.spectral import eigh

# Of the largest eigenvalue: below it a kernel says nothing.
NOTHING = 1e-12


class OwnPart(NamedTuple):
    """A kernel expansion in a person's calibration trials.

    Attributes
    ----------
    trials : ndarray, shape (n_trials, n_features)
    coefficients : ndarray, shape (n_problems, n_trials)
    """

    trials: NDArray
    coefficients: NDArray


class Coordinates(NamedTuple):
    """Features of trials whose inner products are a kernel.

    Attributes
    ----------
    features : ndarray, shape (n_trials, r)
    back : ndarray, shape (n_trials, r)
        From weights of these features to coefficients of the kernel.
    """

    features: NDArray
    back: NDArray


def coordinates(K: NDArray, group: NDArray, variance: float) -> Coordinates:
    """Return features of the kernel `variance` K, zero between groups.

    Parameters
    ----------
    K : ndarray, shape (n_trials, n_trials)
    group : ndarray of int, shape (n_trials,)
    variance : float
        Of a person's own part, where K is 1.
    """
    if variance == 0.0:
        empty = np.zeros((len(K), 0))
        return Coordinates(empty, empty)
    K = variance * np.where(group[:, None] == group, K, 0.0)
    values, vectors = eigh(K)
    kept = values > NOTHING * max(float(values[-1]), 0.0)
    root = np.sqrt(np.asarray(values)[kept])
    vectors = np.asarray(vectors)[:, kept]
    return Coordinates(vectors * root, variance * vectors / root)
