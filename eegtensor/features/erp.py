"""Covariances of trials joined with class templates, for event-related potentials."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyriemann.spatialfilters import Xdawn as _Xdawn

from eegtensor._check import check_lengths, check_option, check_signals, fail, listing
from eegtensor.features._base import DomainTransformer, check_fitted, labels_of
from eegtensor.features.covariance import check_full_rank
from eegtensor.geometry import covariances, rank
from eegtensor.geometry.covariance import ESTIMATORS


class _TemplateCovariances(DomainTransformer):
    """Base: what is added to each trial before its covariance is taken."""

    estimator: str
    templates_: NDArray

    @abstractmethod
    def _signals(self, X: NDArray) -> NDArray:
        """Return the trials as they are joined with the templates."""

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the covariance of each trial stacked under the templates.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        subjects, sessions : ignored

        Returns
        -------
        C : ndarray, shape (n_trials, n, n), float64
            n is the number of template rows and of (filtered) channels.

        Raises
        ------
        EEGTensorError
            If shapes differ from those of `fit`, or, with estimator "scm", a
            matrix is rank deficient.
        """
        check_fitted(self, "templates_")
        X = check_signals(X)
        if X.shape[1:] != self.shape_:
            fail(
                f"Trials have shape {X.shape[1:]} (channels, times), fit saw "
                f"{self.shape_}",
                fix="give the same channels and the same window",
            )
        # Templates stand beside every trial: bound the copies to some 32 MB.
        step = max(1, (1 << 22) // (self.templates_.size + X[0].size))
        pieces = []
        for start in range(0, len(X), step):
            piece = self._signals(X[start : start + step].astype(np.float64))
            templates = np.broadcast_to(
                self.templates_, (len(piece), *self.templates_.shape)
            )
            joined = np.concatenate([templates, piece], axis=1)
            pieces.append(covariances(joined, estimator=self.estimator))
        C = np.concatenate(pieces)
        check_full_rank(C, X, shrunk=self.estimator != "scm")
        return C

    def _start(self, X: Any, y: Any, classes: Sequence[Any] | None) -> tuple:
        """Return checked trials, labels and the classes to make templates of."""
        check_option("estimator", self.estimator, ESTIMATORS)
        X = check_signals(X)
        labels = labels_of(y, len(X), type(self).__name__)
        self.classes_ = _chosen_classes(labels, classes)
        self.shape_ = X.shape[1:]
        self.n_features_in_ = X.shape[1]
        return X, labels


class ERPCovariances(_TemplateCovariances):
    """Covariances of [class averages; trial].

    The cross-covariance between a trial and the averages tells in which class's
    waveform the trial lies.

    Parameters
    ----------
    classes : tuple | None
        Classes whose averages are used; by default all. For a P300 the target
        class alone suffices.
    estimator : "oas" | "lwf" | "scm"
    svd : int | None
        Reduce each average to this many spatial components.

    Attributes
    ----------
    classes_ : ndarray
    templates_ : ndarray, shape (n_rows, n_times), volts

    References
    ----------
    A. Barachant, M. Congedo, "A plug&play P300 BCI using information geometry",
    arXiv:1409.0107, 2014.
    """

    def __init__(
        self,
        classes: tuple | None = None,
        estimator: str = "oas",
        svd: int | None = None,
    ) -> None:
        self.classes = classes
        self.estimator = estimator
        self.svd = svd

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Average the trials of each class.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,)
        subjects, sessions : ignored
        sample_weight : array-like, shape (n_trials,) | None
        """
        X, labels = self._start(X, y, self.classes)
        if self.svd is not None and self.svd < 1:
            fail(f"svd={self.svd} keeps no component", fix="choose 1 or more, or None")
        check_lengths(len(X), sample_weight=sample_weight)
        w = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight)
        templates = []
        for name in self.classes_:
            own = labels == name
            if not w[own].sum() > 0:
                fail(f"The trials of class {name!r} weigh nothing")
            average = np.average(X[own], axis=0, weights=w[own])
            # Rows of fewer components: the matrix grows with classes x channels.
            if self.svd is not None:
                directions = np.linalg.svd(average, full_matrices=False)[0]
                average = directions[:, : self.svd].T @ average
            templates.append(average)
        self.templates_ = np.concatenate(templates)
        return self

    def _signals(self, X: NDArray) -> NDArray:
        return X


class XdawnCovariances(_TemplateCovariances):
    """Covariances of [Xdawn-filtered class averages; Xdawn-filtered trial].

    Parameters
    ----------
    nfilter : int
        Spatial filters of each class, at most the number of channels.
    classes : tuple | None
        Classes whose averages are used; by default all.
    estimator : "oas" | "lwf" | "scm"
        Covariance of the joined trial.
    xdawn_estimator : "oas" | "lwf" | "scm"
        Covariances within Xdawn.
    applyfilters : bool
        Whether the trial is filtered too, or only the averages.

    Attributes
    ----------
    classes_ : ndarray
    filters_, patterns_ : ndarray, shape (n_rows, n_channels)
    templates_ : ndarray, shape (n_rows, n_times)

    References
    ----------
    B. Rivet et al., "xDAWN algorithm to enhance evoked potentials: application
    to brain-computer interface", IEEE Trans. Biomed. Eng., 2009. A. Barachant,
    "MEG decoding using Riemannian geometry and unsupervised classification",
    technical report, 2014.
    """

    def __init__(
        self,
        nfilter: int = 4,
        classes: tuple | None = None,
        estimator: str = "oas",
        xdawn_estimator: str = "scm",
        applyfilters: bool = True,
    ) -> None:
        self.nfilter = nfilter
        self.classes = classes
        self.estimator = estimator
        self.xdawn_estimator = xdawn_estimator
        self.applyfilters = applyfilters

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Find Xdawn filters and filtered averages.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,)
        subjects, sessions : ignored

        Raises
        ------
        EEGTensorError
            If the channels are linearly dependent and `xdawn_estimator` is "scm".
        """
        check_option("xdawn_estimator", self.xdawn_estimator, ESTIMATORS)
        if self.nfilter < 1:
            fail(f"nfilter={self.nfilter} keeps no filter", fix="choose 1 or more")
        X, labels = self._start(X, y, self.classes)
        n_filters = len(self.classes_) * min(self.nfilter, X.shape[1])
        if self.estimator == "scm" and self.applyfilters and n_filters > X.shape[1]:
            fail(
                f"nfilter={self.nfilter} for {len(self.classes_)} classes makes "
                f"{n_filters} filters of {X.shape[1]} channels",
                why="They are linearly dependent, so sample covariances are singular",
                fix="use estimator='oas', a smaller nfilter or fewer classes",
            )
        if self.xdawn_estimator == "scm":
            _check_channels(X)
        # pyriemann's Xdawn inverts the covariance of the concatenated trials
        # unchecked, hence the rank above; the sorted list fixes the rows' order.
        xdawn = _Xdawn(
            nfilter=self.nfilter,
            classes=list(self.classes_),
            estimator=self.xdawn_estimator,
        ).fit(X.astype(np.float64), labels)
        self.filters_ = xdawn.filters_
        self.patterns_ = xdawn.patterns_
        self.templates_ = xdawn.evokeds_
        return self

    def _signals(self, X: NDArray) -> NDArray:
        return self.filters_ @ X if self.applyfilters else X


def _chosen_classes(labels: NDArray, classes: Sequence[Any] | None) -> NDArray:
    present = np.unique(labels)
    if classes is None:
        return present
    absent = [name for name in classes if name not in present]
    if absent or not len(classes):
        fail(
            f"Classes {listing(map(repr, absent))} have no trial; y holds "
            f"{listing(map(repr, present.tolist()))}",
            fix="name classes that y holds, or classes=None for all",
        )
    return np.asarray(classes)


def _check_channels(X: NDArray) -> None:
    """Raise if channels are linearly dependent over all trials."""
    # In float64: float32 rounding would fill the missing rank.
    gram = np.zeros((X.shape[1], X.shape[1]))
    for x in X:
        x = x.astype(np.float64) - x.mean(axis=1, keepdims=True, dtype=np.float64)
        gram += x @ x.T
    found = int(rank(gram))
    if found < len(gram):
        fail(
            f"The signals have rank {found} of {len(gram)} channels",
            why="Xdawn divides by their covariance. Likely cause: an average "
            "reference, ICA, interpolated or duplicated channels",
            fix="use xdawn_estimator='oas' or 'lwf', or drop redundant channels",
        )
