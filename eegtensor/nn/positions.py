"""Where electrodes lie, as numbers a network can take: any cap, any count."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import fail
from eegtensor.geometry import spectral

# Spherical harmonics of degree 1 to 3, then Laplacian eigenvectors turned towards
# those of degree 1 and 2.
N_HARMONICS = 15
N_VECTORS = 8
N_FEATURES = N_HARMONICS + N_VECTORS
# Finer patterns weigh less, or near electrodes had features as unlike as far ones.
_WEIGHTS = np.repeat([1.0, 0.5, 0.25, 1.0, 0.5], [3, 5, 7, 3, 5])
# Relative: distances and eigenvalues that differ by less are alike.
_ALIKE = 1e-6


def spherical_harmonics(coordinates: ArrayLike) -> NDArray:
    """Return the real spherical harmonics of degree 1 to 3 at some electrodes.

    Parameters
    ----------
    coordinates : array, shape (n_channels, 3)
        From the head's centre; of any length but zero.

    Returns
    -------
    values : ndarray, shape (n_channels, 15)
        Each of mean square one over the sphere. The first three are the unit
        vector's y, z and x, times the root of three.
    """
    x, y, z = _directions(coordinates).T
    root = np.sqrt
    values = [
        root(3) * y,
        root(3) * z,
        root(3) * x,
        root(15) * x * y,
        root(15) * y * z,
        root(5 / 4) * (3 * z**2 - 1),
        root(15) * x * z,
        root(15 / 4) * (x**2 - y**2),
        root(35 / 8) * y * (3 * x**2 - y**2),
        root(105) * x * y * z,
        root(21 / 8) * y * (5 * z**2 - 1),
        root(7 / 4) * z * (5 * z**2 - 3),
        root(21 / 8) * x * (5 * z**2 - 1),
        root(105 / 4) * z * (x**2 - y**2),
        root(35 / 8) * x * (x**2 - 3 * y**2),
    ]
    return np.stack(values, axis=1)


def montage_laplacian(coordinates: ArrayLike, *, n_neighbours: int = 5) -> NDArray:
    """Return the Laplacian of the graph of nearest electrodes.

    Electrodes are joined to their nearest ones along the sphere, with the weight
    exp(-(angle / scale)^2), where the scale is the mean angle of neighbours.

    Parameters
    ----------
    coordinates : array, shape (n_channels, 3)
        From the head's centre.
    n_neighbours : int
        At least; neighbours as near as the last are joined too, so that the
        order of electrodes does not matter.

    Returns
    -------
    laplacian : ndarray, shape (n_channels, n_channels)
        Degrees minus weights.
    """
    if n_neighbours < 1:
        fail(f"n_neighbours={n_neighbours!r}", fix="give at least one")
    directions = _directions(coordinates)
    n = len(directions)
    if n == 1:
        return np.zeros((1, 1))
    # Of chords, not of cosines, whose arccos loses half the digits near zero.
    chords = np.linalg.norm(directions[:, None] - directions, axis=-1)
    angles = 2 * np.arcsin(np.minimum(chords / 2, 1))
    last = np.sort(angles, axis=1)[:, min(n_neighbours, n - 1)]
    near = angles <= (last * (1 + _ALIKE))[:, None]
    near = (near | near.T) & ~np.eye(n, dtype=bool)
    scale = angles[near].mean()
    weights = np.where(near, np.exp(-((angles / (scale or 1.0)) ** 2)), 0.0)
    return np.diag(weights.sum(axis=1)) - weights


def laplacian_features(coordinates: ArrayLike, *, n_neighbours: int = 5) -> NDArray:
    """Return the smoothest patterns over a cap, in an orientation of their own.

    The eigenvectors of the montage's Laplacian with the smallest eigenvalues, but
    for the constant one, are free in sign, and in rotation where eigenvalues
    agree. Here they are turned towards the spherical harmonics of degree 1 and 2
    (the orthogonal Procrustes problem), so that neither is left open and the
    features of two caps mean the same.

    Parameters
    ----------
    coordinates : array, shape (n_channels, 3)
        From the head's centre.
    n_neighbours : int
        See `montage_laplacian`.

    Returns
    -------
    features : ndarray, shape (n_channels, 8)
        Columns have mean zero and, in caps of nine electrodes or more, mean square
        one; zeros for one electrode.

    References
    ----------
    Huang et al., "STD-PLM: understanding both spatial and temporal properties of
    spatial-temporal data with PLM", AAAI, 2025 (embeddings from a graph's
    Laplacian); Schoenemann, "A generalized solution of the orthogonal Procrustes
    problem", Psychometrika, 1966.
    """
    laplacian = montage_laplacian(coordinates, n_neighbours=n_neighbours)
    n = len(laplacian)
    if n == 1:
        return np.zeros((1, N_VECTORS))
    # The constant goes to the end: two islands have a second eigenvalue of zero.
    top = 2 * laplacian.diagonal().max() + 1.0
    values, vectors = spectral.eigh(laplacian + top / n)
    values, vectors = np.asarray(values), np.asarray(vectors)
    k = min(N_VECTORS, n - 1)
    if k < n - 1 and values[k] - values[k - 1] <= _ALIKE * top:
        # Of equal eigenvalues all or none: their vectors are free to turn.
        k = int((values < values[k] - _ALIKE * top).sum())
    chosen = vectors[:, :k]
    left, size, right = np.linalg.svd(
        chosen.T @ spherical_harmonics(coordinates)[:, :N_VECTORS],
        full_matrices=False,
    )
    kept = size > _ALIKE * max(float(size.max(initial=0.0)), 1e-300)
    turned = chosen @ (left[:, kept] @ right[kept])
    return np.asarray(turned * np.sqrt(n))


def electrode_features(coordinates: ArrayLike, *, n_neighbours: int = 5) -> NDArray:
    """Return what a network is told of where each electrode lies.

    Spherical harmonics of the place itself, which mean the same in every cap, and
    the place among the others of the cap (`laplacian_features`). Patterns of degree
    d weigh 2^(1 - d), so that features differ as places do.

    Parameters
    ----------
    coordinates : array, shape (n_channels, 3)
        From the head's centre, in any unit. NaN where a place is unknown.
    n_neighbours : int
        See `montage_laplacian`.

    Returns
    -------
    features : ndarray, shape (n_channels, 23)
        Zeros where the place is unknown.
    """
    places = np.asarray(coordinates, dtype=np.float64)
    if places.ndim != 2 or places.shape[1] != 3:
        fail(f"coordinates have shape {places.shape}", fix="give (n_channels, 3)")
    features = np.zeros((len(places), N_FEATURES))
    known = np.isfinite(places).all(axis=1)
    if known.any():
        features[known, :N_HARMONICS] = spherical_harmonics(places[known])
        features[known, N_HARMONICS:] = laplacian_features(
            places[known], n_neighbours=n_neighbours
        )
    return features * _WEIGHTS


def _directions(coordinates: ArrayLike) -> NDArray:
    places = np.asarray(coordinates, dtype=np.float64)
    if places.ndim != 2 or places.shape[1:] != (3,) or not len(places):
        fail(f"coordinates have shape {places.shape}", fix="give (n_channels, 3)")
    length = np.linalg.norm(places, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        fail(
            "an electrode lies at the centre of the head, or nowhere",
            fix="give coordinates from the head's centre, NaN only to "
            "electrode_features",
        )
    return np.asarray(places / length)
