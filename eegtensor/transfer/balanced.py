"""Recentring that is fair to rare classes: balanced means, pseudo-labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.metaestimators import available_if

from eegtensor._check import check_option, fail
from eegtensor.domains import domain_names, encode_domains
from eegtensor.features._base import (
    DomainEstimator,
    check_fitted,
    check_matrices,
    class_codes,
)
from eegtensor.transfer.recenter import Recenter


def _inner_can(method: str) -> Callable[[BalancedRecenter], bool]:
    def check(self: BalancedRecenter) -> bool:
        return hasattr(getattr(self, "estimator_", self.estimator), method)

    return check


class BalancedRecenter(ClassifierMixin, DomainEstimator):
    """A classifier behind recentring whose means weigh every class the same.

    Source domains use their labels. A target is recentred plainly, classified,
    recentred with weights that balance the predicted classes, and so on until
    the predictions stay.

    Parameters
    ----------
    estimator : estimator
        Classifier of covariance matrices, for example
        ``make_pipeline(TangentSpace(reference="identity"), LogisticRegression())``.
    metric : str
        As in `Recenter`.
    pseudo_labels : "hard" | "soft"
        Predicted classes, or their probabilities.
    n_iterations : int
        Largest number of rounds.
    unseen, prior_trials
        As in `Recenter`; `partial_adapt` streams without class weights.

    Notes
    -----
    It gains where classes separate and can lose where they overlap: wrong
    pseudo-labels pull the mean the wrong way. Prefer plain `Recenter` when the
    target's classes are about balanced. A domain that lacks a class is
    recentred by the classes it has, which moves them to the origin: no
    unlabelled method can tell that from a shift.
    """

    def __init__(
        self,
        estimator: BaseEstimator,
        metric: str = "affine-invariant",
        pseudo_labels: str = "hard",
        n_iterations: int = 10,
        unseen: str = "pooled",
        prior_trials: float = 5.0,
    ) -> None:
        self.estimator = estimator
        self.metric = metric
        self.pseudo_labels = pseudo_labels
        self.n_iterations = n_iterations
        self.unseen = unseen
        self.prior_trials = prior_trials

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> BalancedRecenter:
        """Recentre every source domain by its class-balanced mean; fit the rest.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n, n)
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
        sample_weight : array-like, shape (n_trials,) | None
            Multiplies the balancing weights, and goes to the classifier.

        Raises
        ------
        EEGTensorError
            If y holds no two classes, or `pseudo_labels` is "soft" and the
            classifier gives no probabilities.
        """
        check_option("pseudo_labels", self.pseudo_labels, ("hard", "soft"))
        X = check_matrices(X, ndim=(3, 4))
        self.classes_, group = class_codes(y, len(X), "BalancedRecenter")
        codes, _ = encode_domains(domain_names(len(X), subjects, sessions))
        share = np.eye(len(self.classes_))[group]
        weights = _balancing_weights(share, codes)
        if sample_weight is not None:
            weights = weights * np.asarray(sample_weight)
        self.recenter_ = Recenter(self.metric, self.unseen, self.prior_trials)
        domains: dict[str, Any] = {"subjects": subjects, "sessions": sessions}
        aligned = self.recenter_.fit(X, sample_weight=weights, **domains).transform(
            X, **domains
        )
        self.estimator_ = clone(self.estimator)
        extra = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.estimator_.fit(aligned, y, **extra)
        if self.pseudo_labels == "soft" and not hasattr(self, "predict_proba"):
            fail(
                f"{type(self.estimator).__name__} gives no probabilities",
                why="pseudo_labels='soft' weighs trials by them",
                fix="use pseudo_labels='hard' or a classifier with predict_proba",
            )
        return self

    def adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> BalancedRecenter:
        """Recentre an unlabelled target with iterated pseudo-labels.

        Raises
        ------
        EEGTensorError
            If a domain has a single trial.
        """
        check_fitted(self, "recenter_")
        X = check_matrices(X, ndim=(3, 4))
        domains: dict[str, Any] = {"subjects": subjects, "sessions": sessions}
        codes, _ = encode_domains(domain_names(len(X), subjects, sessions))
        # A copy until the end: an interrupt leaves the old statistics whole.
        recenter = copy.copy(self.recenter_).adapt(X, **domains)
        previous: NDArray | None = None
        for _ in range(self.n_iterations):
            share = self._shares(recenter.transform(X, **domains))
            if previous is not None and np.abs(share - previous).max() < 1e-6:
                break
            previous = share
            weights = _balancing_weights(share, codes)
            recenter.adapt(X, sample_weight=weights, **domains)
        self.recenter_ = recenter
        return self

    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> BalancedRecenter:
        """Move the target's plain mean trial by trial."""
        check_fitted(self, "recenter_")
        # Copied, so that shallow copies of this estimator stay independent.
        self.recenter_ = copy.copy(self.recenter_).partial_adapt(
            X, subjects=subjects, sessions=sessions
        )
        return self

    def _shares(self, aligned: NDArray) -> NDArray:
        if self.pseudo_labels == "soft":
            return self.estimator_.predict_proba(aligned)
        predicted = np.searchsorted(self.classes_, self.estimator_.predict(aligned))
        return np.eye(len(self.classes_))[predicted]

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        aligned = self._aligned(X, subjects, sessions)
        return self.estimator_.predict(aligned)

    @available_if(_inner_can("predict_proba"))
    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        aligned = self._aligned(X, subjects, sessions)
        return self.estimator_.predict_proba(aligned)

    @available_if(_inner_can("decision_function"))
    def decision_function(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the classifier's decision values, if it gives any."""
        aligned = self._aligned(X, subjects, sessions)
        return self.estimator_.decision_function(aligned)

    def _aligned(
        self, X: NDArray, subjects: ArrayLike | None, sessions: ArrayLike | None
    ) -> NDArray:
        check_fitted(self, "recenter_")
        return self.recenter_.transform(X, subjects=subjects, sessions=sessions)


def _balancing_weights(share: NDArray, codes: NDArray) -> NDArray:
    """Return trial weights that give each present class the same mass per domain.

    Parameters
    ----------
    share : ndarray, shape (n_trials, n_classes)
        Membership of each trial, rows sum to one.
    codes : ndarray of int, shape (n_trials,)
    """
    mass = np.stack([np.bincount(codes, column) for column in share.T], axis=1)
    # A class that a domain lacks has no trial to weigh: the others share alike.
    inverse = np.where(mass > 0, 1.0 / np.where(mass > 0, mass, 1.0), 0.0)
    return (share * inverse[codes]).sum(axis=1)
