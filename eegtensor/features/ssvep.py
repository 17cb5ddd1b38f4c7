"""Steady-state visual evoked potentials by canonical correlation with sinusoids."""

from __future__ import annotations

import re
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, check_signals, fail, listing
from eegtensor.features._base import DomainTransformer, labels_of
from eegtensor.features._ssvep import (
    CorrelationClassifier,
    filter_bank_weights,
    softmax_scale,
)
from eegtensor.features.covariance import split_bands
from eegtensor.geometry.spectral import eigh


def reference_bases(
    frequencies: tuple[float, ...], sfreq: float, n_harmonics: int, n_times: int
) -> list[NDArray]:
    """Return an orthonormal basis of sines and cosines for each frequency.

    Parameters
    ----------
    frequencies : tuple of float, hertz
    sfreq : float, hertz
    n_harmonics : int
        Harmonics at or above half the sampling rate are left out.
    n_times : int

    Returns
    -------
    bases : list of ndarray, shape (n_times, 2 * harmonics), without mean
    """
    times = np.arange(n_times) / sfreq
    bases = []
    for frequency in frequencies:
        tones = frequency * np.arange(1, n_harmonics + 1)
        tones = tones[tones < sfreq / 2]
        angles = 2 * np.pi * tones * times[:, np.newaxis]
        waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        # A window of broken cycles leaves the waves a mean, which the data lose.
        bases.append(np.linalg.qr(waves - waves.mean(axis=0))[0])
    return bases


def canonical_correlations(X: NDArray, bases: list[NDArray]) -> NDArray:
    """Return each trial's largest canonical correlation with each basis.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
        Linearly dependent channels are allowed.
    bases : list of ndarray, shape (n_times, n_columns)
        Orthonormal and without mean.

    Returns
    -------
    r : ndarray, shape (n_trials, n_bases), in [0, 1]

    Raises
    ------
    EEGTensorError
        If channels and columns outnumber the samples less one.
    """
    sizes = np.cumsum([basis.shape[1] for basis in bases])[:-1]
    all_bases = np.concatenate(bases, axis=1)
    n_columns = max(basis.shape[1] for basis in bases)
    if X.shape[1] + n_columns > X.shape[2] - 1:
        fail(
            f"{X.shape[2]} samples are too few for {X.shape[1]} channels and "
            f"{n_columns} sines and cosines",
            why="Their subspaces meet by dimension alone: every correlation is 1",
            fix="use longer windows, fewer channels or fewer harmonics",
        )
    step = max(1, (1 << 22) // X[0].size)
    out = []
    for start in range(0, len(X), step):
        piece = np.asarray(X[start : start + step], dtype=np.float64)
        piece = piece - piece.mean(axis=-1, keepdims=True)
        # Singular values of whitened data against an orthonormal basis: the same
        # as the textbook's two inverses, and sound when channels depend.
        values, vectors = eigh(piece @ np.swapaxes(piece, -1, -2))
        floor = values.shape[-1] * 1e-12 * values[:, -1:]
        kept = (values > floor) & (values > 0)
        inverse_root = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1)), 0)
        whitener = vectors * inverse_root[:, np.newaxis, :]
        shared = np.swapaxes(whitener, -1, -2) @ (piece @ all_bases)
        parts = np.split(shared, sizes, axis=-1)
        largest = [np.linalg.svd(part, compute_uv=False)[:, 0] for part in parts]
        out.append(np.stack(largest, axis=1))
    return np.minimum(np.concatenate(out), 1.0)


class CCAFeatures(DomainTransformer):
    """Canonical correlations with the sinusoids of each frequency.

    Parameters
    ----------
    frequencies : tuple of float, hertz
    sfreq : float
        Sampling rate of X, hertz.
    n_harmonics : int
    n_bands : int
        Bands stacked on the channel axis; each gives its own correlations.

    References
    ----------
    Z. Lin, C. Zhang, W. Wu, X. Gao, "Frequency recognition based on canonical
    correlation analysis for SSVEP-based BCIs", IEEE Trans. Biomed. Eng., 2006.
    """

    trialwise = True

    def __init__(
        self,
        frequencies: tuple[float, ...] = (),
        sfreq: float = 256.0,
        n_harmonics: int = 3,
        n_bands: int = 1,
    ) -> None:
        self.frequencies = frequencies
        self.sfreq = sfreq
        self.n_harmonics = n_harmonics
        self.n_bands = n_bands

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Check the parameters; nothing is learned."""
        check_tones(self.frequencies, self.sfreq, self.n_harmonics)
        self.n_features_in_ = check_signals(X, finite=False).shape[1]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return correlations, shape (n_trials, n_bands * n_frequencies).

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_bands * n_channels, n_times), any unit
        subjects, sessions : ignored
        """
        check_tones(self.frequencies, self.sfreq, self.n_harmonics)
        X = check_signals(X)
        bases = reference_bases(
            self.frequencies, self.sfreq, self.n_harmonics, X.shape[-1]
        )
        bands = split_bands(X, self.n_bands)
        each = [canonical_correlations(bands[:, b], bases) for b in range(self.n_bands)]
        return np.hstack(each)

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn that there is nothing to fit."""
        return True


class CCA(CorrelationClassifier):
    """SSVEP classifier: the frequency with the largest canonical correlation.

    With several bands (FBCCA) the squared correlations are summed with weights
    n^-1.25 + 0.25. A rest class wins where no correlation reaches a threshold
    learned in `fit`; nothing else but the scale of the probabilities is.

    Parameters
    ----------
    frequencies : tuple of float or None, hertz
        One per class; None or 0 stands for rest.
    sfreq : float
        Sampling rate of X, hertz.
    n_harmonics : int
    class_names : tuple of str | None
        The classes in the order of `frequencies`. By default every frequency
        is looked up in the names in y ("13", "13 Hz", "ssvep_13.0"), and the
        name without one is rest.
    n_bands : int
        Bands stacked on the channel axis, the one that holds all harmonics first.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        Sorted names.
    frequencies_ : ndarray, shape (n_classes,), hertz
        Of each class; 0 for rest.
    threshold_ : float | None
        Score below which a trial is rest; its column in `decision_function`.
    scale_ : float
        Of the probabilities; 1 when fitted without labels.

    References
    ----------
    Z. Lin et al., IEEE Trans. Biomed. Eng., 2006. X. Chen et al., "Filter bank
    canonical correlation analysis for implementing a high-speed SSVEP-based
    brain-computer interface", J. Neural Eng., 2015.
    """

    def __init__(
        self,
        frequencies: tuple[float | None, ...] = (),
        sfreq: float = 256.0,
        n_harmonics: int = 3,
        class_names: tuple[str, ...] | None = None,
        n_bands: int = 1,
    ) -> None:
        self.frequencies = frequencies
        self.sfreq = sfreq
        self.n_harmonics = n_harmonics
        self.class_names = class_names
        self.n_bands = n_bands

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn the rest threshold and the scale of the probabilities.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_bands * n_channels, n_times), any unit
        y : array-like, shape (n_trials,) | None
            May be None where `class_names` is given and there is no rest class.
        subjects, sessions : ignored
        sample_weight : array-like, shape (n_trials,) | None
        """
        X = check_signals(X)
        tones = tuple(f for f in self.frequencies if f)
        check_tones(tones, self.sfreq, self.n_harmonics)
        n_rest = len(self.frequencies) - len(tones)
        if n_rest > 1:
            fail(
                f"frequencies={self.frequencies} holds {n_rest} rest classes",
                fix="give one None at most",
            )
        self.threshold_: float | None = None
        self.n_features_in_ = X.shape[1]
        # Tones alone need no training: an online speller starts with none.
        untrained = y is None and self.class_names is not None and not n_rest
        labels = self.class_names if untrained else labels_of(y, len(X), "CCA")
        names = self._names(np.asarray(labels))
        order = np.argsort(names, kind="stable")
        self.classes_ = names[order]
        self.frequencies_ = np.array([self.frequencies[k] or 0.0 for k in order])
        if untrained:
            self.scale_ = 1.0
            return self
        check_lengths(len(X), sample_weight=sample_weight)
        codes = np.searchsorted(self.classes_, np.asarray(labels))
        scores = self._tone_scores(X)
        if n_rest:
            rest = self.frequencies_[codes] == 0
            self.threshold_ = rest_threshold(scores.max(axis=1), rest, sample_weight)
        self.scale_ = softmax_scale(self._with_rest(scores), codes, sample_weight)
        return self

    def _correlations(self, X: NDArray) -> NDArray:
        X = check_signals(X)
        if X.shape[1] != self.n_features_in_:
            fail(f"X has {X.shape[1]} channels, fit saw {self.n_features_in_}")
        return self._with_rest(self._tone_scores(X))

    def _tone_scores(self, X: NDArray) -> NDArray:
        bases = reference_bases(
            tuple(self.frequencies_[self.frequencies_ > 0]),
            self.sfreq,
            self.n_harmonics,
            X.shape[-1],
        )
        bands = split_bands(X, self.n_bands)
        if self.n_bands == 1:
            # One band keeps r, whose scale the threshold and the softmax learn.
            return canonical_correlations(X, bases)
        squared = [
            canonical_correlations(bands[:, b], bases) ** 2 for b in range(self.n_bands)
        ]
        return np.tensordot(filter_bank_weights(self.n_bands), squared, axes=1)

    def _with_rest(self, scores: NDArray) -> NDArray:
        if self.threshold_ is None:
            return scores
        rest = int(np.flatnonzero(self.frequencies_ == 0)[0])
        return np.insert(scores, rest, self.threshold_, axis=1)

    def _names(self, labels: NDArray) -> NDArray:
        present = np.unique(labels)
        if self.class_names is None:
            names = _names_by_number(present, self.frequencies)
        else:
            names = np.asarray(self.class_names)
        strange = [name for name in present if name not in names]
        if strange or len(names) != len(self.frequencies):
            fail(
                f"{len(self.frequencies)} frequencies and class names "
                f"{listing(map(repr, names.tolist()))} do not fit the labels "
                f"{listing(map(repr, present.tolist()))}",
                fix="give class_names, one for each frequency, in the same order",
            )
        return names


def check_tones(frequencies: Any, sfreq: float, n_harmonics: int) -> None:
    """Raise unless there are frequencies below half the sampling rate."""
    if not len(frequencies):
        fail(
            "frequencies is empty",
            fix="give the stimulation frequencies, e.g. frequencies=(13.0, 17.0)",
        )
    bad = [f for f in frequencies if f is None or not 0 < f < sfreq / 2]
    if bad or n_harmonics < 1:
        fail(
            f"frequencies {listing(bad)} with sfreq={sfreq:g} Hz and "
            f"n_harmonics={n_harmonics} make no reference",
            why="A reference needs a frequency above 0 and below sfreq / 2",
            fix="check frequencies, sfreq (of X, after resampling) and n_harmonics",
        )


def _names_by_number(present: NDArray, frequencies: tuple) -> NDArray:
    """Return the class name of each frequency by the number in the name."""
    numbers = {
        name: [float(n) for n in re.findall(r"\d+(?:\.\d+)?", str(name))]
        for name in present.tolist()
    }
    found = []
    for frequency in frequencies:
        if frequency:
            hits = [name for name, ns in numbers.items() if frequency in ns]
        else:
            tones = [f for f in frequencies if f]
            hits = [n for n, ns in numbers.items() if not any(f in ns for f in tones)]
        if len(hits) != 1:
            what = f"{frequency:g} Hz" if frequency else "rest"
            fail(
                f"Which class is {what} cannot be read from the names in y: "
                f"{listing(map(repr, present.tolist()))}",
                fix="give class_names, one for each frequency, in the same order",
            )
        found.append(hits[0])
    return np.asarray(found, dtype=present.dtype)


def rest_threshold(best: NDArray, rest: NDArray, weights: ArrayLike | None) -> float:
    """Return the cut on the best score with the highest balanced accuracy."""
    if rest.all() or not rest.any():
        fail(
            "fit saw trials of rest alone or of no rest",
            why="The threshold between rest and stimulation is learned from both",
            fix="give both, or frequencies without None",
        )
    w = np.ones(len(best)) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(best, kind="stable")
    ranked, share = best[order], np.where(rest, w, -w)[order]
    share = np.where(share > 0, share / w[rest].sum(), share / w[~rest].sum())
    # Cutting after trial k calls the first k + 1 rest.
    gain = np.cumsum(share)[:-1]
    gain[ranked[1:] == ranked[:-1]] = -np.inf
    # The middle of equally good cuts is furthest from the trials on both sides.
    winners = np.flatnonzero(gain >= gain.max() - 1e-12)
    k = winners[len(winners) // 2]
    return float((ranked[k] + ranked[k + 1]) / 2)
