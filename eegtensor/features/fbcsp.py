"""Filter-bank common spatial patterns with mutual-information selection."""

from __future__ import annotations

from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, check_option, check_signals, fail
from eegtensor.features import _spatial as spatial
from eegtensor.features._base import (
    DomainTransformer,
    check_fitted,
    check_matrices,
    class_codes,
)
from eegtensor.features.covariance import split_bands
from eegtensor.features.csp import INPUTS, check_components
from eegtensor.features.select import best_with_partners, mutual_information
from eegtensor.geometry.covariance import ESTIMATORS
from eegtensor.geometry.metrics import METRICS


class FilterBankCSP(DomainTransformer):
    """Common spatial patterns in every band, and the features that tell most.

    Three and more classes are taken one versus the rest: each class has its
    own filters and its own selection, and the features stand side by side.

    Parameters
    ----------
    n_bands : int
        Bands stacked on the channel axis: all channels of band 1, then 2, ...
    n_components : int
        Filters a band, in pairs from both ends of the spectrum (2 m of the
        paper); at most the rank of the data.
    select : "mutual-information" | "all"
        Whether the best features are kept, each with its partner from the
        other end, or all.
    n_selected : int
        Best features a class task; with partners `n_selected` to twice as many
        are kept.
    estimator, metric, norm_trace, input
        As in `CSP`. Covariances may be stacked or blocks, shape
        (n_trials, n_bands * n, n_bands * n), or (n_trials, n_bands, n, n).

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    filters_, patterns_ : ndarray, shape (n_tasks, n_bands, n_components, n_channels)
        One task for two classes, else one a class.
    information_ : ndarray, shape (n_tasks, n_bands, n_components), bits
    selected_ : ndarray of int, shape (n_selected_features, 3)
        Task, band and component of every feature.

    References
    ----------
    K. K. Ang, Z. Y. Chin, H. Zhang, C. Guan, "Filter bank common spatial
    pattern (FBCSP) in brain-computer interface", IJCNN, 2008; K. K. Ang et
    al., Front. Neurosci., 2012 (selection: the MIBIF algorithm; the classifier
    there is a naive Bayesian Parzen window).
    """

    def __init__(
        self,
        n_bands: int = 1,
        n_components: int = 4,
        select: str = "mutual-information",
        n_selected: int = 4,
        estimator: str = "oas",
        metric: str = "euclidean",
        norm_trace: bool = True,
        input: str = "signals",
    ) -> None:
        self.n_bands = n_bands
        self.n_components = n_components
        self.select = select
        self.n_selected = n_selected
        self.estimator = estimator
        self.metric = metric
        self.norm_trace = norm_trace
        self.input = input

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Find the filters of every band and select features.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_bands * n_channels, n_times) or covariances
        y : array-like, shape (n_trials,)
            Class labels.
        subjects, sessions : ignored
        sample_weight : array-like, shape (n_trials,) | None
        """
        self._fit(X, y, sample_weight)
        return self

    def fit_transform(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        **fit_params: ArrayLike | None,
    ) -> NDArray:
        """Fit and return the features that selection has computed already."""
        logs = self._fit(X, y, **fit_params)
        return self._chosen(logs)

    def _fit(
        self, X: NDArray, y: ArrayLike | None, sample_weight: ArrayLike | None = None
    ) -> NDArray:
        check_option("input", self.input, INPUTS)
        check_option("estimator", self.estimator, ESTIMATORS)
        check_option("metric", self.metric, METRICS)
        check_option("select", self.select, ("mutual-information", "all"))
        check_components(self.n_components, self.norm_trace)
        if self.n_selected < 1:
            fail(f"n_selected={self.n_selected} keeps nothing", fix="choose 4")
        banded = self._bands(X)
        n_trials = len(banded[0])
        self.classes_, codes = class_codes(y, n_trials, "FilterBankCSP", floats=True)
        check_lengths(n_trials, sample_weight=sample_weight)
        tasks = spatial.tasks(codes, "one-versus-rest")
        found = [self._band_filters(band, tasks, sample_weight) for band in banded]
        # Bands may differ in rank; what all of them have is kept.
        n = min(len(f.filters) for band in found for f in band)
        per_task = list(zip(*found, strict=True))
        self.filters_ = np.array([[f.filters[:n] for f in band] for band in per_task])
        self.patterns_ = np.array([[f.patterns[:n] for f in band] for band in per_task])
        self.n_features_in_ = self.n_bands * self.filters_.shape[-1]
        # Of the trials that found the filters: optimistic for all bands alike.
        logs = self._log_variances(banded)
        self.information_ = np.stack(
            [
                mutual_information(
                    logs[:, k].reshape(n_trials, -1), task, weights=sample_weight
                )
                for k, task in enumerate(tasks)
            ]
        ).reshape(len(tasks), self.n_bands, n)
        self.selected_ = self._selection()
        return logs

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the selected log-variances.

        Parameters
        ----------
        X : ndarray
            As in `fit`.
        subjects, sessions : ignored

        Returns
        -------
        F : ndarray, shape (n_trials, n_selected_features), float64
        """
        check_fitted(self, "selected_")
        banded = self._bands(X)
        if banded[0].shape[1] != self.filters_.shape[-1]:
            fail(
                f"X has {banded[0].shape[1]} channels a band, fit saw "
                f"{self.filters_.shape[-1]}",
                fix="give the same channels in the same order",
            )
        return self._chosen(self._log_variances(banded))

    def _bands(self, X: NDArray) -> list[NDArray]:
        """Return views of X, one a band, of signals or covariances."""
        if self.input == "signals":
            banded = split_bands(check_signals(X), self.n_bands)
            return [banded[:, b] for b in range(self.n_bands)]
        X = check_matrices(X, ndim=(3, 4))
        if X.ndim == 4 and X.shape[1] == self.n_bands:
            return [X[:, b] for b in range(self.n_bands)]
        if X.ndim == 4 or self.n_bands < 1 or X.shape[1] % self.n_bands:
            fail(
                f"X of shape {X.shape} is not {self.n_bands} bands of equal size",
                fix="set n_bands to the number of bands read with bands=...",
            )
        # Blocks between bands hold covariance that CSP of one band does not use.
        edges = np.arange(self.n_bands + 1) * (X.shape[1] // self.n_bands)
        return [X[:, i:j, i:j] for i, j in pairwise(edges)]

    def _band_filters(
        self, band: NDArray, tasks: list[NDArray], weights: ArrayLike | None
    ) -> list[spatial.Filters]:
        if self.input == "signals":
            C, plain = spatial.signal_moments(band, self.estimator)
        else:
            C, plain = band, band.mean(axis=0)
        return [
            spatial.find_filters(
                C,
                plain,
                task,
                self.n_components,
                metric=self.metric,
                norm_trace=self.norm_trace,
                weights=weights,
            )
            for task in tasks
        ]

    def _log_variances(self, banded: list[NDArray]) -> NDArray:
        """Return all features, shape (n_trials, n_tasks, n_bands, n_components)."""
        n_tasks, n_bands, n, n_channels = self.filters_.shape
        signals = self.input == "signals"
        project = spatial.filtered_variances if signals else spatial.matrix_variances
        filters = np.swapaxes(self.filters_, 0, 1).reshape(n_bands, -1, n_channels)
        power = np.stack(
            [project(band, filters[b]) for b, band in enumerate(banded)], axis=1
        ).reshape(-1, n_bands, n_tasks, n)
        spatial.refuse_flat(power)
        if self.norm_trace:
            power = power / power.sum(axis=-1, keepdims=True)
        return np.log(np.swapaxes(power, 1, 2))

    def _selection(self) -> NDArray:
        n_tasks, n_bands, n = self.information_.shape
        places = np.indices((n_tasks, n_bands, n)).reshape(3, -1).T
        if self.select == "all":
            return places
        component = np.arange(n)
        # Filters come from both ends in turn: 0 with 1, 2 with 3, an odd one alone.
        partner = np.minimum(component ^ 1, n - 1)
        partners = (np.arange(n_bands)[:, np.newaxis] * n + partner).ravel()
        chosen = []
        for k in range(n_tasks):
            scores = self.information_[k].ravel()
            best = best_with_partners(scores, partners, self.n_selected)
            chosen.append(places[k * n_bands * n + best])
        return np.concatenate(chosen)

    def _chosen(self, logs: NDArray) -> NDArray:
        task, band, component = self.selected_.T
        return logs[:, task, band, component]
