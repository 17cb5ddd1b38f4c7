"""Where domains lie before and after recentring."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.features import Covariances
from eegtensor.geometry import (
    congruence,
    frechet_mean,
    inv_sqrtm,
    logm,
    upper_vector,
)
from eegtensor.geometry.spectral import eigh
from eegtensor.transfer import Recenter
from eegtensor.trials import Trials

MAX_TRIALS = 600
MAX_COMPONENTS = 24
_BAND = re.compile(r"^(?P<channel>.*\S)\s+(?P<band>[0-9.]+-[0-9.]+ ?Hz)$")


@dataclass(frozen=True)
class Sample:
    """Covariances of a seeded sample of trials, equal numbers from each domain.

    Attributes
    ----------
    C : ndarray, shape (n_trials, n_components, n_components)
        Volts squared; channels, or leading spatial components of many channels.
    basis : ndarray, shape (n_channels, n_components)
        Components as columns; the identity where channels are few.
    bands : ndarray of str, shape (n_components,)
        Filter band of each component, "" where channels name none.
    labels : ndarray of str, shape (n_trials,)
        Class of each trial; "low" and "high" halves of continuous targets.
    values : ndarray | None
        Continuous targets.
    subjects, sessions : ndarray of str, shape (n_trials,)
    codes : ndarray of int, shape (n_trials,)
        Domain of each trial, from 0 without gaps.
    trials : ndarray of int, shape (n_trials,)
        Where the sample stands among all trials.
    """

    C: NDArray
    basis: NDArray
    bands: NDArray
    labels: NDArray
    values: NDArray | None
    subjects: NDArray
    sessions: NDArray
    codes: NDArray
    trials: NDArray

    @cached_property
    def recenter(self) -> Recenter:
        """A fitted `Recenter`."""
        return Recenter().fit(self.C, subjects=self.subjects, sessions=self.sessions)

    @cached_property
    def recentred(self) -> NDArray:
        """Covariances with every domain's mean moved to the identity."""
        return self.recenter.transform(
            self.C, subjects=self.subjects, sessions=self.sessions
        )


def sample_covariances(
    trials: Trials, *, max_trials: int = MAX_TRIALS, seed: int = 0
) -> Sample:
    """Return covariances of at most about `max_trials` trials.

    Parameters
    ----------
    trials : Trials
    max_trials : int
        Shared equally by the domains, at least four each; domains beyond
        ``max_trials / 4`` are left out, drawn by the seed.
    seed : int

    Raises
    ------
    EEGTensorError
        If there are no labels, or a trial's covariance is singular.
    """
    if trials.y is None:
        fail("The trials have no labels", fix="set y")
    rng = np.random.default_rng(seed)
    all_codes, names = trials.domain
    chosen = np.arange(len(names))
    if len(names) > max_trials // 4:
        chosen = np.sort(rng.choice(len(names), max_trials // 4, replace=False))
    each = max(4, max_trials // len(chosen))
    index: list[int] = []
    for code in chosen:
        here = np.flatnonzero(all_codes == code)
        if len(here) > each:
            here = np.sort(rng.choice(here, each, replace=False))
        index.extend(here.tolist())
    rows = np.asarray(index)
    C = _covariances(trials.X, rows)
    bands = np.asarray([split_band(name)[1] for name in trials.ch_names])
    basis = _leading(C, bands)
    if basis.shape[1] < len(basis):
        C, bands = congruence(basis.T, C), _bands_of(basis, bands)
    y = trials.y[rows]
    values = y if y.dtype.kind == "f" else None
    labels = y if values is None else np.where(y > np.median(y), "high", "low")
    return Sample(
        C,
        basis,
        bands,
        labels.astype(str),
        values,
        trials.subjects[rows],
        trials.sessions[rows],
        np.unique(all_codes[rows], return_inverse=True)[1],
        rows,
    )


def split_band(name: str) -> tuple[str, str]:
    """Return channel and filter band of a stacked channel's name.

    Examples
    --------
    >>> split_band("Oz 12.5-13.5Hz"), split_band("Oz")
    (('Oz', '12.5-13.5Hz'), ('Oz', ''))
    """
    match = _BAND.match(name)
    return (match["channel"], match["band"]) if match else (name, "")


def _covariances(X: NDArray, rows: NDArray) -> NDArray:
    """Return covariances, reading a memory map in pieces of some 64 MB."""
    covariances = Covariances()
    step = max(1, (1 << 23) // max(1, X.shape[1] * X.shape[2]))
    pieces = [
        covariances.fit_transform(np.asarray(X[rows[i : i + step]], dtype=np.float64))
        for i in range(0, len(rows), step)
    ]
    return np.concatenate(pieces)


def _leading(C: NDArray, bands: NDArray) -> NDArray:
    """Return the leading spatial components of each band, or the identity."""
    n = C.shape[-1]
    if n <= MAX_COMPONENTS:
        return np.eye(n)
    names = list(dict.fromkeys(bands.tolist()))
    each = max(2, MAX_COMPONENTS // len(names))
    columns = []
    # A trial counts the same whatever its power.
    power = np.trace(C, axis1=1, axis2=2)[:, np.newaxis, np.newaxis]
    mean = (C / power).mean(axis=0)
    for name in names:
        here = np.flatnonzero(bands == name)
        vectors = eigh(mean[np.ix_(here, here)])[1][:, ::-1][:, :each]
        block = np.zeros((n, vectors.shape[1]))
        block[here] = vectors
        columns.append(block)
    return np.concatenate(columns, axis=1)


def _bands_of(basis: NDArray, bands: NDArray) -> NDArray:
    return bands[np.abs(basis).argmax(axis=0)]


@dataclass(frozen=True)
class View:
    """One of the two halves of a domain map.

    Attributes
    ----------
    trials : ndarray, shape (n_trials, 2)
    domains : ndarray, shape (n_domains, 2)
        Mean of each domain.
    cells : dict of (domain, class) to ndarray of shape (2,)
        Mean of each class in each domain.
    between_domains, between_classes : float
        Share of the spread of all trials that lies between the means of domains,
        and of classes; of the whole tangent space, not of the two axes.
    """

    trials: NDArray
    domains: NDArray
    cells: dict[tuple[int, str], NDArray]
    between_domains: float
    between_classes: float


def domain_map(sample: Sample) -> tuple[View, View]:
    """Return trials in the plane before and after recentring.

    Covariances become tangent vectors at their Frechet mean, where Euclidean
    distance approximates the affine-invariant one; the plane is spanned by the
    principal components of the class means of every domain, so that it shows
    what differs between domains and classes rather than between trials.

    Parameters
    ----------
    sample : Sample

    Returns
    -------
    before, after : View
    """
    # A picture needs no more than four digits.
    pooled = frechet_mean(sample.C, tol=1e-4)
    before = upper_vector(logm(congruence(inv_sqrtm(pooled), sample.C)))
    after = upper_vector(logm(sample.recentred))
    return _view(before, sample), _view(after, sample)


def _view(tangents: NDArray, sample: Sample) -> View:
    codes, labels = sample.codes, sample.labels
    cells = {
        (int(code), str(name)): tangents[(codes == code) & (labels == name)].mean(
            axis=0
        )
        for code, name in dict.fromkeys(zip(codes, labels, strict=True))
    }
    # Means of cells, not trials: a session with more trials must not tilt the axes.
    means = np.stack(list(cells.values()))
    centre = means.mean(axis=0)
    axes = _principal_axes(means - centre)
    domains = np.stack(
        [tangents[codes == code].mean(axis=0) for code in range(codes.max() + 1)]
    )
    return View(
        (tangents - centre) @ axes,
        (domains - centre) @ axes,
        {key: (mean - centre) @ axes for key, mean in cells.items()},
        between_share(tangents, codes),
        between_share(tangents, labels),
    )


def _principal_axes(points: NDArray) -> NDArray:
    """Return two orthonormal axes, shape (n_features, 2), with a fixed sign."""
    axes = np.zeros((points.shape[1], 2))
    vectors = np.linalg.svd(points, full_matrices=False)[2][:2].T
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    axes[:, : vectors.shape[1]] = vectors * np.where(signs == 0, 1.0, signs)
    return axes


def between_share(points: NDArray, groups: NDArray) -> float:
    """Return the share of points' squared spread that lies between groups' means.

    Parameters
    ----------
    points : ndarray, shape (n_points, n_features)
    groups : ndarray, shape (n_points,)

    Returns
    -------
    float
        From 0 (all groups have one mean) to 1; NaN where points do not differ.
    """
    centred = points - points.mean(axis=0)
    total = float((centred**2).sum())
    if total == 0:
        return float("nan")
    between = 0.0
    for group in np.unique(groups):
        here = centred[groups == group]
        between += len(here) * float((here.mean(axis=0) ** 2).sum())
    return between / total
