"""Principal subspaces of feature maps, and what lies outside of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from eegtensor._check import fail
from eegtensor.geometry.spectral import eigh


class Principal(NamedTuple):
    """Mean (n_features,) and leading directions (n_features, q) of a map."""

    mean: NDArray
    directions: NDArray

    def residual(self, phi: NDArray) -> NDArray:
        """Return the squared distance to the subspace, shape (n_trials,)."""
        centred = phi - self.mean
        inside = centred @ self.directions
        # The difference vector, not one of squares: the latter would cancel.
        outside = centred - inside @ self.directions.T
        return np.einsum("nf,nf->n", outside, outside)


def principal(phi: NDArray, explained: float) -> Principal:
    """Return the fewest directions that hold a share of the variance.

    Parameters
    ----------
    phi : ndarray, shape (n_trials, n_features)
    explained : float
        In (0, 1]; 1 keeps all that hold any variance.
    """
    if not 0.0 < explained <= 1.0:
        fail(f"explained={explained!r}", fix="choose a share in (0, 1]")
    mean = phi.mean(axis=0)
    centred = phi - mean
    few = len(phi) < phi.shape[1]
    gram = centred @ centred.T if few else centred.T @ centred
    values, vectors = (np.asarray(a)[..., ::-1] for a in eigh(gram))
    values = np.maximum(values, 0.0)
    held = values > 1e-12 * values[0]
    share = np.cumsum(values) / max(values.sum(), np.finfo(float).tiny)
    q = min(int(np.searchsorted(share, explained - 1e-12)) + 1, int(held.sum()))
    if explained == 1.0:
        q = int(held.sum())
    U = vectors[:, :q]
    if few:
        # From trials to features.
        U = (centred.T @ U) / np.sqrt(values[:q])
    return Principal(mean, U)


def median_gamma(rows: NDArray, limit: int = 1000) -> float:
    """Return 1 / median squared distance of rows, of at most so many of them."""
    step = max(1, -(-len(rows) // limit))
    middle = float(np.median(pdist(rows[::step], "sqeuclidean")))
    return 1.0 / middle if middle > 0 else 1.0
