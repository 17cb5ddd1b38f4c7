"""Spatial filters from class covariances: what CSP and its filter bank share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyriemann.geometry.ajd import ajd_pham

from eegtensor._check import fail, listing
from eegtensor.geometry import congruence, covariances, frechet_mean
from eegtensor.geometry.spectral import eigh


class Filters(NamedTuple):
    """Rows are spatial filters and the patterns that belong to them."""

    filters: NDArray
    patterns: NDArray


def signal_moments(X: NDArray, estimator: str) -> tuple[NDArray, NDArray]:
    """Return the trials' covariances and their mean without shrinkage.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
    estimator : "oas" | "lwf" | "scm"

    Returns
    -------
    C : ndarray, shape (n_trials, n_channels, n_channels), float64
    plain : ndarray, shape (n_channels, n_channels), float64
        Shrinkage hides the directions that hold no signal; this shows them.
    """
    # Some 32 MB in float64 at a time: X may be a memory map of all people.
    step = max(1, (1 << 22) // X[0].size)
    pieces, plain = [], np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), step):
        piece = np.asarray(X[start : start + step], dtype=np.float64)
        C = covariances(piece, estimator=estimator)
        scm = C if estimator == "scm" else covariances(piece, estimator="scm")
        pieces.append(C)
        plain += scm.sum(axis=0)
    return np.concatenate(pieces), plain / len(X)


def refuse_flat(power: NDArray) -> None:
    """Raise for trials without any power; `power` has one row per trial."""
    flat = np.flatnonzero(~(power > 0).reshape(len(power), -1).all(axis=1))
    if flat.size:
        fail(
            f"{len(flat)} of {len(power)} trials are constant (trials {listing(flat)})",
            why="Their log-variance is minus infinity",
            fix="drop these trials, or read with on_bad='drop'",
        )


def tasks(codes: NDArray, multiclass: str) -> list[NDArray]:
    """Return the codings of trials that filters are sought for, one or one a class."""
    n_classes = int(codes.max()) + 1
    if n_classes == 2 or multiclass == "joint":
        return [codes]
    # A class against the others: code 0 is the class, so that its filters lead.
    return [(codes != k).astype(np.int64) for k in range(n_classes)]


def find_filters(
    C: NDArray,
    plain: NDArray,
    codes: NDArray,
    n_components: int,
    *,
    metric: str,
    norm_trace: bool,
    weights: ArrayLike | None,
) -> Filters:
    """Return the filters of one task, sought where the data hold signal.

    Parameters
    ----------
    C : ndarray, shape (n_trials, n_channels, n_channels)
    plain : ndarray, shape (n_channels, n_channels)
        Mean covariance without shrinkage.
    codes : ndarray of int, shape (n_trials,)
    n_components : int
    metric : str
        Of the class means.
    norm_trace : bool
        Whether each covariance is divided by its trace first.
    weights : array-like, shape (n_trials,) | None

    Raises
    ------
    EEGTensorError
        If a trial is constant.
    """
    basis = _signal_range(plain)
    if norm_trace and basis.shape[1] == 1:
        fail(
            "The data have a single channel or component",
            why="One variance divided by the sum of variances is constant",
            fix="use norm_trace=False, or more channels",
        )
    C = congruence(basis.T, C)
    traces = np.trace(C, axis1=1, axis2=2)
    refuse_flat(traces)
    if norm_trace:
        C = C / traces[:, np.newaxis, np.newaxis]
    means = frechet_mean(C, metric=metric, weights=weights, segments=codes)
    if len(means) == 2:
        found = two_class_filters(means[0], means[1], n_components)
    else:
        w = None if weights is None else np.asarray(weights, dtype=np.float64)
        mass = np.bincount(codes, weights=w)
        found = joint_filters(means, mass / mass.sum(), n_components)
    return _signed(found.filters @ basis.T, found.patterns @ basis.T)


def _signal_range(plain: NDArray) -> NDArray:
    """Return an orthonormal basis, shape (n_channels, rank), of what holds signal.

    An average reference or ICA leaves directions of rounding noise, which
    whitening would blow up.
    """
    values, vectors = eigh(plain)
    return vectors[:, values > len(plain) * 1e-12 * values[-1]]


def two_class_filters(A: NDArray, B: NDArray, n_components: int) -> Filters:
    """Return the filters that extremise the variance ratio of two classes.

    Solves A w = mu (A + B) w and takes eigenvectors from both ends in turn,
    the largest mu (variance in A) first (Koles 1990; Ramoser et al. 2000).

    Parameters
    ----------
    A, B : ndarray, shape (n, n)
        Mean covariances, A + B of full rank.
    n_components : int

    Returns
    -------
    filters, patterns : ndarray, shape (min(n_components, n), n)
    """
    values, vectors = eigh(A + B)
    whitener = vectors / np.sqrt(values)
    _, rotation = eigh(congruence(whitener.T, A))
    filters = (whitener @ rotation).T
    patterns = filters @ (A + B)
    n = len(filters)
    order = [n - 1 - k // 2 if k % 2 == 0 else k // 2 for k in range(n)]
    return Filters(filters[order][:n_components], patterns[order][:n_components])


def joint_filters(means: NDArray, shares: NDArray, n_components: int) -> Filters:
    """Return filters of several classes by approximate joint diagonalisation.

    The filters that tell most about the class come first, by the approximate
    mutual information of Grosse-Wentrup and Buss (2008).

    Parameters
    ----------
    means : ndarray, shape (n_classes, n, n)
    shares : ndarray, shape (n_classes,)
        Class probabilities.
    n_components : int

    Returns
    -------
    filters, patterns : ndarray, shape (min(n_components, n), n)
    """
    total = np.einsum("k,kij->ij", shares, means)
    values, vectors = eigh(total)
    whitener = vectors / np.sqrt(values)
    rotation, _ = ajd_pham(congruence(whitener.T, means), eps=1e-9, n_iter_max=100)
    filters = rotation @ whitener.T
    filters = filters / np.sqrt(_variances(filters, total))[:, np.newaxis]
    ratios = np.stack([_variances(filters, mean) for mean in means])
    # Negentropy of a Gaussian mixture: the class-wise log-variances minus a
    # fourth-order term for the mixture's own departure from Gaussianity.
    information = (
        -0.5 * shares @ np.log(ratios) - 3 / 16 * (shares @ (ratios**2 - 1)) ** 2
    )
    order = np.argsort(-information, kind="stable")
    # Haufe et al. (2014): the columns of the inverse are what each filter sees.
    patterns = np.linalg.inv(filters).T
    return Filters(filters[order][:n_components], patterns[order][:n_components])


def _variances(filters: NDArray, C: NDArray) -> NDArray:
    return ((filters @ C) * filters).sum(axis=-1)


def _signed(filters: NDArray, patterns: NDArray) -> Filters:
    """Make the largest entry of every pattern positive: eigenvectors have no sign."""
    rows = np.arange(len(patterns))
    sign = np.sign(patterns[rows, np.abs(patterns).argmax(axis=1)])[:, np.newaxis]
    return Filters(filters * sign, patterns * sign)


def filtered_variances(X: NDArray, filters: NDArray) -> NDArray:
    """Return each filtered trial's variance over time, shape (n_trials, n_filters).

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
    filters : ndarray, shape (n_filters, n_channels)
    """
    step = max(1, (1 << 22) // X[0].size)
    pieces = []
    for start in range(0, len(X), step):
        piece = np.asarray(X[start : start + step], dtype=np.float64)
        pieces.append((filters @ piece).var(axis=-1))
    return np.concatenate(pieces)


def matrix_variances(C: NDArray, filters: NDArray) -> NDArray:
    """Return w' C w for each trial and filter, shape (n_trials, n_filters)."""
    return np.einsum("fi,tij,fj->tf", filters, C, filters, optimize=True)
