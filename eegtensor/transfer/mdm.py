"""Minimum distance to the Riemannian mean, over one or several bands."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin

from eegtensor._check import check_lengths, check_option, fail
from eegtensor.domains import domain_names, encode_domains
from eegtensor.features._base import (
    DomainEstimator,
    check_fitted,
    check_matrices,
    class_codes,
)
from eegtensor.features._means import grouped_mean
from eegtensor.geometry import distance
from eegtensor.geometry.metrics import METRICS


class MDM(ClassifierMixin, DomainEstimator):
    """Give each matrix the class whose mean is nearest.

    Parameters
    ----------
    metric : str
        Any of `eegtensor.geometry.distance`: "affine-invariant", "log-euclidean",
        "log-cholesky", "bures-wasserstein" or "euclidean".

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    means_ : ndarray, shape (n_classes, [n_bands,] n, n)

    Notes
    -----
    With a filter bank, shape (n_trials, n_bands, n, n), the distance is the
    mean of the bands' distances.

    References
    ----------
    A. Barachant et al., "Multiclass brain-computer interface classification by
    Riemannian geometry", IEEE Trans. Biomed. Eng., 2012.
    """

    def __init__(self, metric: str = "affine-invariant") -> None:
        self.metric = metric

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> MDM:
        """Find the mean of every class.

        Domains change no result: they only give the means a warm start.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n, n)
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
        sample_weight : array-like, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If y holds no two classes.
        """
        check_option("metric", self.metric, METRICS)
        X = check_matrices(X, ndim=(3, 4))
        check_lengths(len(X), sample_weight=sample_weight)
        self.classes_, group = class_codes(y, len(X), "MDM")
        names = domain_names(len(X), subjects, sessions)
        self.means_ = grouped_mean(
            X,
            group,
            len(self.classes_),
            encode_domains(names).codes,
            metric=self.metric,
            weights=sample_weight,
        )
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return distances to the class means, shape (n_trials, n_classes)."""
        check_fitted(self, "means_")
        X = check_matrices(X, ndim=(3, 4))
        if X.shape[1:] != self.means_.shape[1:]:
            fail(
                f"Matrices have shape {X.shape[1:]}, MDM was fitted to "
                f"{self.means_.shape[1:]}",
                fix="use the same channels and bands as in fit",
            )
        d = np.stack(
            [distance(mean, X, metric=self.metric) for mean in self.means_], axis=1
        )
        return d.mean(axis=2) if d.ndim == 3 else d

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the class of the nearest mean, shape (n_trials,)."""
        nearest = self.transform(X).argmin(axis=1)
        return self.classes_[nearest]

    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return softmax(-d^2), shape (n_trials, n_classes)."""
        score = -(self.transform(X) ** 2)
        # Far trials would underflow to 0 / 0.
        score -= score.max(axis=1, keepdims=True)
        p = np.exp(score)
        return p / p.sum(axis=1, keepdims=True)
