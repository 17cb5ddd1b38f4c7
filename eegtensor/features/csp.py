"""Common spatial patterns: log-variances along directions that separate classes."""

from __future__ import annotations

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
from eegtensor.geometry.covariance import ESTIMATORS
from eegtensor.geometry.metrics import METRICS

INPUTS = ("signals", "covariances")


class CSP(DomainTransformer):
    """Common spatial patterns.

    Parameters
    ----------
    n_components : int
        Filters; of two classes, taken from both ends in turn. At most the rank
        of the data are kept.
    estimator : "oas" | "lwf" | "scm"
        Covariance of a trial in `fit`; variances in `transform` are plain.
    metric : str
        Metric of the mean of a class's covariances, any of
        `eegtensor.geometry.distance`.
    log : bool
        Whether the features are log-variances or variances.
    norm_trace : bool
        Whether, as in Ramoser et al., each covariance is divided by its trace
        in `fit` and each feature by the sum over components in `transform`: a
        trial's gain then plays no part.
    multiclass : "joint" | "one-versus-rest"
        Three and more classes: approximate joint diagonalisation ordered by
        mutual information, or `n_components` filters for each class against
        the others.
    input : "signals" | "covariances"
        What X is.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    filters_, patterns_ : ndarray, shape (n_filters, n_channels)

    References
    ----------
    H. Ramoser, J. Muller-Gerking, G. Pfurtscheller, "Optimal spatial filtering
    of single trial EEG during imagined hand movement", IEEE Trans. Rehabil.
    Eng., 2000. B. Blankertz et al., "Optimizing spatial filters for robust EEG
    single-trial analysis", IEEE Signal Process. Mag., 2008. M. Grosse-Wentrup,
    M. Buss, "Multiclass common spatial patterns and information theoretic
    feature extraction", IEEE Trans. Biomed. Eng., 2008.
    """

    def __init__(
        self,
        n_components: int = 4,
        estimator: str = "oas",
        metric: str = "euclidean",
        log: bool = True,
        norm_trace: bool = False,
        multiclass: str = "joint",
        input: str = "signals",
    ) -> None:
        self.n_components = n_components
        self.estimator = estimator
        self.metric = metric
        self.log = log
        self.norm_trace = norm_trace
        self.multiclass = multiclass
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
        """Find the filters.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times) or (n_trials, n, n)
        y : array-like, shape (n_trials,)
            Class labels.
        subjects, sessions : ignored
        sample_weight : array-like, shape (n_trials,) | None
            Weights in the class means.
        """
        check_option("input", self.input, INPUTS)
        check_option("estimator", self.estimator, ESTIMATORS)
        check_option("metric", self.metric, METRICS)
        check_option("multiclass", self.multiclass, ("joint", "one-versus-rest"))
        check_components(self.n_components, self.norm_trace)
        if self.input == "signals":
            X = check_signals(X)
            C, plain = spatial.signal_moments(X, self.estimator)
        else:
            C = check_matrices(X)
            plain = C.mean(axis=0)
        self.classes_, codes = class_codes(y, len(C), "CSP", floats=True)
        check_lengths(len(C), sample_weight=sample_weight)
        self.n_features_in_ = C.shape[-1]
        found = [
            spatial.find_filters(
                C,
                plain,
                task,
                self.n_components,
                metric=self.metric,
                norm_trace=self.norm_trace,
                weights=sample_weight,
            )
            for task in spatial.tasks(codes, self.multiclass)
        ]
        self.filters_ = np.concatenate([f.filters for f in found])
        self.patterns_ = np.concatenate([f.patterns for f in found])
        self._per_task = [len(f.filters) for f in found]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the (log-)variances along the filters.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times) or (n_trials, n, n)
        subjects, sessions : ignored

        Returns
        -------
        F : ndarray, shape (n_trials, n_filters), float64
        """
        check_fitted(self, "filters_")
        signals = self.input == "signals"
        X = check_signals(X) if signals else check_matrices(X)
        if X.shape[1] != self.n_features_in_:
            fail(
                f"X has {X.shape[1]} channels, fit saw {self.n_features_in_}",
                fix="give the same channels in the same order",
            )
        # Plain variances: shrinkage would mix other directions' power into each.
        project = spatial.filtered_variances if signals else spatial.matrix_variances
        power = project(X, self.filters_)
        if self.log or self.norm_trace:
            spatial.refuse_flat(power)
        if self.norm_trace:
            # One versus the rest: each task's components have a sum of their own.
            bounds = np.cumsum(self._per_task)[:-1]
            parts = np.split(power, bounds, axis=1)
            power = np.hstack([p / p.sum(axis=1, keepdims=True) for p in parts])
        return np.log(power) if self.log else power


def check_components(n_components: int, norm_trace: bool) -> None:
    """Raise unless there are enough components to be a feature."""
    least = 2 if norm_trace else 1
    if n_components < least:
        fail(
            f"n_components={n_components} is too small",
            why="One component divided by its own sum is constant"
            if norm_trace
            else None,
            fix=f"choose at least {least}",
        )
