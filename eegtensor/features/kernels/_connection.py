"""Parallel transport between nodes of a surface, and the smoothest fields on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist

from eegtensor._check import check_option
from eegtensor.geometry.spectral import eigh


class Fields(NamedTuple):
    """Smooth vector fields on a surface given by points.

    Attributes
    ----------
    frames : ndarray, shape (n_nodes, 3, 2)
        Orthonormal tangents at each node.
    values : ndarray, shape (n_fields,)
        Eigenvalues of the connection Laplacian: 0 is a parallel field.
    fields : ndarray, shape (n_nodes, 3, n_fields)
        Eigenvectors as arrows in space, of mean square one.
    """

    frames: NDArray
    values: NDArray
    fields: NDArray


def tangent_frames(X: NDArray, n_neighbors: int) -> NDArray:
    """Return orthonormal tangents of a surface by principal components of neighbours.

    Parameters
    ----------
    X : ndarray, shape (n_nodes, 3)
    n_neighbors : int

    Returns
    -------
    frames : ndarray, shape (n_nodes, 3, 2)
    """
    near = np.argsort(cdist(X, X), axis=1)[:, : n_neighbors + 1]
    around = X[near] - X[near].mean(axis=1, keepdims=True)
    _, vectors = eigh(around.transpose(0, 2, 1) @ around)
    return vectors[:, :, :0:-1]


def connection_laplacian(frames: NDArray, A: NDArray) -> NDArray:
    """Return the Laplacian of vectors: differences after parallel transport.

    (L v)_i = sum_j A_ij (v_i - R_ij v_j) in coordinates of the frames, R_ij the
    rotation or reflection nearest to frame_i' frame_j.

    Parameters
    ----------
    frames : ndarray, shape (n_nodes, 3, m)
    A : ndarray, shape (n_nodes, n_nodes)
        Symmetric weights.

    Returns
    -------
    L : ndarray, shape (n_nodes m, n_nodes m)
        Symmetric, eigenvalues from 0 up.

    References
    ----------
    A. Singer and H.-T. Wu, "Vector diffusion maps and the connection Laplacian",
    Comm. Pure Appl. Math., 2012.
    """
    n, _, m = frames.shape
    L = np.zeros((n, m, n, m))
    for i, j in zip(*np.nonzero(np.triu(A, k=1)), strict=True):
        # The polar factor: the nearest to frame_j of frame_i R.
        R, _ = orthogonal_procrustes(frames[i], frames[j])
        L[i, :, j] = -A[i, j] * R
        L[j, :, i] = -A[i, j] * R.T
    degree = A.sum(axis=1) - np.diag(A)
    for i in range(n):
        L[i, :, i] += degree[i] * np.eye(m)
    return L.reshape(n * m, n * m)


def smooth_fields(
    X: NDArray,
    *,
    n_neighbors: int = 10,
    n_fields: int = 50,
    weights: str = "gaussian",
    frames: NDArray | None = None,
) -> Fields:
    """Return the smoothest vector fields on the surface that points lie on.

    Parameters
    ----------
    X : ndarray, shape (n_nodes, 3)
        Electrodes, any unit.
    n_neighbors : int
        Of the graph; frames take half as many again.
    n_fields : int
    weights : "gaussian" | "binary"
        Of the graph's edges; binary ones are published.
    frames : ndarray, shape (n_nodes, 3, 2) | None
        Tangents, where they are known.
    """
    check_option("weights", weights, ("gaussian", "binary"))
    n = len(X)
    D = cdist(X, X)
    np.fill_diagonal(D, np.inf)
    near = np.argsort(D, axis=1)[:, :n_neighbors]
    A = np.zeros((n, n))
    np.put_along_axis(A, near, 1.0, axis=1)
    A = np.maximum(A, A.T)
    if weights == "gaussian":
        # In the distance of the last neighbour: no unit, and twice as near to the
        # surface's own Laplacian as edges of weight one.
        reach = np.median(np.sort(D, axis=1)[:, n_neighbors - 1])
        A = np.where(A > 0, np.exp(-2 * (D / reach) ** 2), 0.0)
    if frames is None:
        frames = tangent_frames(X, min(n - 1, int(1.5 * n_neighbors)))
    m = frames.shape[2]
    values, vectors = eigh(connection_laplacian(frames, A))
    kept = min(n_fields, n * m)
    U = vectors[:, :kept].reshape(n, m, kept) * np.sqrt(n)
    return Fields(frames, np.maximum(values[:kept], 0.0), frames @ U)
