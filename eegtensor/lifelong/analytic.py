"""Ridge regression from sums: exact merging, updating and forgetting.

All of it is of the sums ``G = H'H`` and ``Q = H'Y`` of features H, shape
(n_trials, n_features), and one-hot labels Y, shape (n_trials, n_classes): sums over
people, sites and time add up, and what was added can be taken away.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigvalsh

from eegtensor._check import fail

# Of I - X R X' where trials are taken away: below it too few digits are left.
LEAST_EIGENVALUE = 1e-10


class Sums(NamedTuple):
    """What a ridge regression needs of some trials.

    Attributes
    ----------
    gram : ndarray, shape (n_features, n_features)
        H'H, float64.
    moment : ndarray, shape (n_features, n_classes)
        H'Y, float64.
    n_trials : int
    """

    gram: NDArray
    moment: NDArray
    n_trials: int

    def __add__(self, other: object) -> Sums:
        """Return the sums of both sets of trials."""
        if not isinstance(other, Sums):
            return NotImplemented
        return Sums(
            self.gram + other.gram,
            self.moment + other.moment,
            self.n_trials + other.n_trials,
        )

    def __sub__(self, other: Sums) -> Sums:
        """Return the sums without those trials."""
        return Sums(
            self.gram - other.gram,
            self.moment - other.moment,
            self.n_trials - other.n_trials,
        )


def sums_of(H: NDArray, codes: NDArray, n_classes: int) -> Sums:
    """Return the sums of trials.

    Parameters
    ----------
    H : ndarray, shape (n_trials, n_features)
    codes : ndarray of int, shape (n_trials,)
        Classes.
    n_classes : int
    """
    H = np.asarray(H, dtype=np.float64)
    Y = np.eye(n_classes)[codes]
    return Sums(H.T @ H, H.T @ Y, len(H))


def solve(sums: Sums, ridge: float) -> NDArray:
    """Return W = (G + ridge I)^-1 Q, shape (n_features, n_classes).

    Raises
    ------
    EEGTensorError
        If the matrix is singular, which a positive ridge prevents.
    """
    C = sums.gram + ridge * np.eye(len(sums.gram))
    try:
        return cho_solve(cho_factor(C), sums.moment)
    except LinAlgError as error:
        fail(
            f"The sums of {sums.n_trials} trials of {len(C)} features are singular "
            f"with ridge={ridge:g}",
            fix="raise the ridge, or give more trials than features",
            cause=error,
        )


class Site(NamedTuple):
    """What one site sends: its regression and the matrix that weighs it.

    Attributes
    ----------
    weights : ndarray, shape (n_features, n_classes)
        C^-1 H'Y.
    matrix : ndarray, shape (n_features, n_features)
        C = H'H + n_ridges ridge I.
    n_ridges : int
    """

    weights: NDArray
    matrix: NDArray
    n_ridges: int = 1


def site_of(sums: Sums, ridge: float) -> Site:
    """Return what a site sends, ``(C^-1 Q, C)`` with ``C = G + ridge I``."""
    return Site(
        solve(sums, ridge), sums.gram + ridge * np.eye(len(sums.gram)), n_ridges=1
    )


def merge_sites(first: Site, second: Site) -> Site:
    """Return the regression of the trials of both sites, whose ridges add up.

    W = (C_1 + C_2)^-1 (C_1 W_1 + C_2 W_2): any order of merging gives the same.
    """
    C = first.matrix + second.matrix
    Q = first.matrix @ first.weights + second.matrix @ second.weights
    return Site(cho_solve(cho_factor(C), Q), C, first.n_ridges + second.n_ridges)


def one_ridge(site: Site, ridge: float) -> NDArray:
    """Return the weights with the ridge of a single site instead of one a site.

    (C - (K - 1) ridge I)^-1 C W is what pooled training gives. (The authors' code
    takes all K away, which leaves plain least squares.)
    """
    surplus = (site.n_ridges - 1) * ridge * np.eye(len(site.matrix))
    return np.linalg.solve(site.matrix - surplus, site.matrix @ site.weights)


def update(R: NDArray, W: NDArray, X: NDArray, Y: NDArray) -> tuple[NDArray, NDArray]:
    """Return R = (H'H + ridge I)^-1 and the weights with some trials more.

    ``R <- R - R X' (I + X R X')^-1 X R``, ``W <- W + R X' (Y - X W)`` with the new R.

    Parameters
    ----------
    R : ndarray, shape (n_features, n_features)
    W : ndarray, shape (n_features, n_classes)
    X : ndarray, shape (n_new, n_features)
    Y : ndarray, shape (n_new, n_classes)
        One-hot.
    """
    RX = R @ X.T
    R = R - RX @ np.linalg.solve(np.eye(len(X)) + X @ RX, RX.T)
    R = (R + R.T) / 2.0
    return R, W + R @ (X.T @ (Y - X @ W))


def downdate(
    R: NDArray, W: NDArray, X: NDArray, Y: NDArray
) -> tuple[NDArray, NDArray] | None:
    """Return R and the weights without some trials, or None where digits would go.

    ``R <- R + R X' (I - X R X')^-1 X R``, ``W <- W - R X' (Y - X W)`` with the new R.
    None where the smallest eigenvalue of I - X R X' is at most 1e-10: solve anew.

    Parameters
    ----------
    R, W, X, Y
        As for `update`; the trials must be among those of R.
    """
    RX = R @ X.T
    inner = np.eye(len(X)) - X @ RX
    inner = (inner + inner.T) / 2.0
    if eigvalsh(inner, subset_by_index=(0, 0))[0] <= LEAST_EIGENVALUE:
        return None
    R = R + RX @ np.linalg.solve(inner, RX.T)
    R = (R + R.T) / 2.0
    return R, W - R @ (X.T @ (Y - X @ W))
