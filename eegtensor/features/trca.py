"""Task-related component analysis for SSVEP."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_signals, fail, listing
from eegtensor.features._base import labels_of
from eegtensor.features._ssvep import (
    CorrelationClassifier,
    filter_bank_weights,
    softmax_scale,
)
from eegtensor.features.covariance import split_bands
from eegtensor.geometry import congruence
from eegtensor.geometry.spectral import eigh


class TRCA(CorrelationClassifier):
    """SSVEP classifier: filters that make a class's trials alike, and templates.

    A trial is correlated with the average trial of each class after spatial
    filtering. Averages only make sense when stimulation starts at the same
    phase in every trial.

    Parameters
    ----------
    n_components : int
        Filters of each class.
    ensemble : bool
        Whether a trial is compared through the filters of all classes at once.
    n_bands : int
        Bands stacked on the channel axis, the one that holds all harmonics
        first; their correlations are summed with weights n^-1.25 + 0.25.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    filters_ : ndarray, shape (n_bands, n_classes, n_components, n_channels)
    templates_ : ndarray, shape (n_bands, n_classes, n_channels, n_times)
    scale_ : float
        Of the probabilities, learned on the training trials, each left out of
        its class's average but not of the filters.

    References
    ----------
    M. Nakanishi et al., "Enhancing detection of SSVEPs for a high-speed brain
    speller using task-related component analysis", IEEE Trans. Biomed. Eng.,
    2018, eq. 4-11.
    """

    def __init__(
        self, n_components: int = 1, ensemble: bool = True, n_bands: int = 1
    ) -> None:
        self.n_components = n_components
        self.ensemble = ensemble
        self.n_bands = n_bands

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Find filters and templates of each class.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_bands * n_channels, n_times), any unit
        y : array-like, shape (n_trials,)
        subjects, sessions : ignored

        Raises
        ------
        EEGTensorError
            If a class has a single trial.
        """
        X = check_signals(X)
        labels = labels_of(y, len(X), "TRCA")
        if self.n_components < 1:
            fail(f"n_components={self.n_components} keeps no filter", fix="choose 1")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        counts = np.bincount(codes)
        if len(counts) < 2 or counts.min() < 2:
            few = self.classes_[counts < 2].tolist()
            fail(
                f"{len(counts)} classes, of which {listing(map(repr, few)) or 'none'} "
                "have a single trial",
                why="Task-related components are what the trials of a class share",
                fix="give two classes and two trials of each at least",
            )
        bands = split_bands(X, self.n_bands)
        self.n_features_in_ = X.shape[1]
        filters, templates = [], []
        for b in range(self.n_bands):
            own = [_centred(bands[codes == k, b]) for k in range(len(counts))]
            filters.append([task_related(trials, self.n_components) for trials in own])
            templates.append([trials.mean(axis=0) for trials in own])
        self.filters_ = np.array(filters)
        self.templates_ = np.array(templates)
        # A trial correlates with an average that holds it even in pure noise: the
        # scale of the probabilities would be learned from that.
        scores = self._correlations(X)
        for k in range(len(counts)):
            scores[codes == k, k] = self._left_out(bands[codes == k], k)
        self.scale_ = softmax_scale(scores, codes, None)
        return self

    def _left_out(self, own: NDArray, k: int) -> NDArray:
        """Return correlations of a class's trials with the average of the others."""
        n = len(own)
        scores = []
        for b in range(self.n_bands):
            filters = self.filters_[b] if self.ensemble else self.filters_[b, k]
            filters = filters.reshape(-1, filters.shape[-1])
            seen = filters @ _centred(own[:, b])
            others = (n * (filters @ self.templates_[b, k]) - seen) / (n - 1)
            scores.append((_unit_rows(seen) * _unit_rows(others)).sum(axis=1))
        return np.tensordot(filter_bank_weights(self.n_bands), scores, axes=1)

    def _correlations(self, X: NDArray) -> NDArray:
        X = check_signals(X)
        n_times = self.templates_.shape[-1]
        if X.shape[1:] != (self.n_features_in_, n_times):
            fail(
                f"Trials have shape {X.shape[1:]} (channels, times), fit saw "
                f"{(self.n_features_in_, n_times)}",
                why="Trials are compared with averages sample by sample",
                fix="give the same channels and the same window",
            )
        bands = split_bands(X, self.n_bands)
        scores = [
            self._band_correlations(bands[:, b], self.filters_[b], self.templates_[b])
            for b in range(self.n_bands)
        ]
        return np.tensordot(filter_bank_weights(self.n_bands), scores, axes=1)

    def _band_correlations(
        self, band: NDArray, filters: NDArray, templates: NDArray
    ) -> NDArray:
        """Return two-dimensional correlations, shape (n_trials, n_classes)."""
        trials = _centred(band)
        if self.ensemble:
            common = filters.reshape(-1, filters.shape[-1])
            seen = _unit_rows(common @ trials)
            return seen @ _unit_rows(common @ templates).T
        columns = [
            _unit_rows(own @ trials) @ _unit_rows((own @ template)[np.newaxis])[0]
            for own, template in zip(filters, templates, strict=True)
        ]
        return np.stack(columns, axis=1)


def task_related(trials: NDArray, n_components: int) -> NDArray:
    """Return filters w that maximise w'Sw / w'Qw, shape (n_components, n_channels).

    S sums the cross-covariances of all pairs of different trials and Q the
    trials' own covariances.

    Parameters
    ----------
    trials : ndarray, shape (n_trials, n_channels, n_times), without mean over time
    n_components : int
    """
    total = trials.sum(axis=0)
    Q = np.einsum("ict,idt->cd", trials, trials, optimize=True)
    # All ordered pairs at once: (sum x)(sum x)' less each trial with itself.
    S = total @ total.T - Q
    # Directions without signal are left out before whitening divides by them.
    values, vectors = eigh(Q)
    kept = values > len(values) * 1e-12 * values[-1]
    if kept.sum() < n_components:
        fail(
            f"n_components={n_components} exceeds the rank {int(kept.sum())} of the "
            "trials",
            fix="choose fewer components",
        )
    whitener = vectors[:, kept] / np.sqrt(values[kept])
    rotation = eigh(congruence(whitener.T, S))[1]
    filters = (whitener @ rotation[:, ::-1][:, :n_components]).T
    # Eigenvectors have no sign; templates and trials pass the same filter, but
    # `filters_` should be the same on every machine.
    largest = np.abs(filters).argmax(axis=1)
    return filters * np.sign(filters[np.arange(len(filters)), largest])[:, np.newaxis]


def _centred(X: NDArray) -> NDArray:
    X = np.asarray(X, dtype=np.float64)
    return X - X.mean(axis=-1, keepdims=True)


def _unit_rows(X: NDArray) -> NDArray:
    """Return each trial as a row of norm one; the rows have no mean already."""
    flat = X.reshape(len(X), -1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(norm > 0, norm, 1)
