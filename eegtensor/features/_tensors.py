"""What every tensor decomposition shares as a feature extractor.

A decomposition of the training tensor leaves a set of patterns, one tensor of a
trial's shape a feature. The features of a trial, new or not, are the least-squares
weights of these patterns in that trial, and depend on no other trial.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from torch import Tensor

from eegtensor._check import check_lengths, fail
from eegtensor.features._base import DomainTransformer, check_fitted
from eegtensor.features._trials import check_tensor, observed_scores
from eegtensor.tensor._alternate import pseudo_inverse
from eegtensor.tensor.kernels import squared_norm

# On normal equations, relative to their mean diagonal.
RIDGE = 1e-9
# Cells of trials that are worked on at a time: bounds memory.
_CELLS = 500_000


def pieces(shape: Sequence[int]) -> list[slice]:
    """Return slices of trials that hold a bounded number of cells each."""
    step = max(1, _CELLS // math.prod(shape[1:]))
    return [slice(at, at + step) for at in range(0, shape[0], step)]


class TensorFeatures(ClassNamePrefixFeaturesOutMixin, DomainTransformer):
    """Base of feature extractors that decompose trials x d1 x ... x dm.

    A subclass decomposes in `_fit_model` and says in `_decode` and `_correlate`
    which patterns its features weigh.

    Attributes
    ----------
    mean_ : ndarray, shape (d1, ..., dm)
        Mean of the training trials, which is taken off; zero without centring.
    train_scores_ : ndarray, shape (n_trials, n_features)
        Features of the training trials.
    fit_ : float
        1 - relative error of the decomposition on the centred training trials.
    n_iter_ : int
    """

    center: bool
    mean_: NDArray
    fit_: float
    n_iter_: int

    @abstractmethod
    def _fit_model(self, X: Tensor, observed: Tensor | None, y: NDArray | None) -> None:
        """Decompose centred trials, zero where missing; set factors, fit, n_iter."""

    def _prepare(self) -> None:
        """Compute once, after a fit, what every call of `_scores` needs."""

    @abstractmethod
    def _scores(self, X: Tensor, observed: Tensor | None) -> Tensor:
        """Return the features of centred trials, zero where missing."""

    @property
    @abstractmethod
    def _n_features_out(self) -> int: ...

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Decompose training trials.

        Parameters
        ----------
        X : ndarray, shape (n_trials, d1, ..., dm)
            NaN where missing.
        y, subjects, sessions : ignored
            Unless the class is a supervised one.

        Raises
        ------
        EEGTensorError
            If X is no such array, or parameters do not fit it.
        """
        X = check_tensor(X)
        check_lengths(len(X), y=y, subjects=subjects, sessions=sessions)
        self._unseen = np.isnan(X).all(axis=0) & self.center
        self.mean_ = self._mean_of(X)
        centred, observed = self._centred(X)
        self._fit_model(centred, observed, None if y is None else np.asarray(y))
        self._prepare()
        self.train_scores_ = self._scores(centred, observed).numpy()
        return self

    def _mean_of(self, X: NDArray) -> NDArray:
        if not self.center:
            return np.zeros(X.shape[1:], X.dtype)
        seen = ~np.isnan(X)
        if seen.all():
            return np.asarray(X.mean(axis=0, dtype=np.float64).astype(X.dtype))
        total = X.sum(axis=0, dtype=np.float64, where=seen)
        mean = total / np.maximum(seen.sum(axis=0), 1)
        return np.asarray(mean.astype(X.dtype))

    def _centred(self, X: NDArray) -> tuple[Tensor, Tensor | None]:
        centred = np.subtract(X, self.mean_, order="C")
        missing = np.isnan(centred)
        # Without a mean, what a new trial has there would be no deviation from it.
        missing |= self._unseen
        if not missing.any():
            return torch.from_numpy(centred), None
        np.copyto(centred, 0.0, where=missing)
        observed = np.logical_not(missing, out=missing)
        return torch.from_numpy(centred), torch.from_numpy(observed)

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the features of trials, each by itself.

        Parameters
        ----------
        X : ndarray, shape (n_trials, d1, ..., dm)
            NaN where missing: least squares count the other cells.
        subjects, sessions : ignored

        Returns
        -------
        scores : ndarray, shape (n_trials, n_features), in the unit of X
        """
        check_fitted(self, "train_scores_")
        scores: NDArray = self._scores(*self._centred(self._checked(X))).numpy()
        return scores

    def _checked(self, X: Any) -> NDArray:
        array = check_tensor(X, self.mean_.shape)
        return array.astype(self.mean_.dtype, copy=False)


class LinearFeatures(TensorFeatures):
    """Base of extractors whose features are weights of patterns.

    A subclass says in `_decode` and `_correlate` which patterns these are.
    """

    # Inverse Gram of the patterns, None where they are orthonormal.
    _inverse: Tensor | None

    @abstractmethod
    def _decode(self, scores: Tensor) -> Tensor:
        """Return scores (n, n_features) times the patterns, (n, d1, ..., dm)."""

    @abstractmethod
    def _correlate(self, X: Tensor) -> Tensor:
        """Return inner products of trials with the patterns, (n, n_features)."""

    def _gram(self) -> Tensor | None:
        """Return the patterns' inner products, float64; None if orthonormal."""
        return None

    def _prepare(self) -> None:
        G = self._gram()
        self._inverse = None
        if G is not None:
            eye = torch.eye(len(G), dtype=G.dtype)
            level = G.diagonal().mean() * RIDGE
            self._inverse = pseudo_inverse(G + level * eye)

    def _scores(self, X: Tensor, observed: Tensor | None) -> Tensor:
        """Return the least-squares weights of the patterns in each trial."""
        scores = self._correlate(X)
        if self._inverse is not None:
            scores = (scores.double() @ self._inverse).to(scores.dtype)
        if observed is None:
            return scores
        holes = (~observed.flatten(1).all(dim=1)).nonzero()[:, 0]
        for part in pieces((len(holes), *X.shape[1:])):
            some = holes[part]
            # X is zero where it is missing.
            scores[some] = observed_scores(
                observed[some],
                self._correlate(X[some]),
                self._decode,
                self._correlate,
                RIDGE * self._level(),
            )
        return scores

    def _dtype(self) -> torch.dtype:
        return torch.float32 if self.mean_.dtype == np.float32 else torch.float64

    def _level(self) -> float:
        G = self._gram()
        return 1.0 if G is None else float(G.diagonal().mean())

    def inverse_transform(self, scores: NDArray) -> NDArray:
        """Return the trials that features stand for, shape (n_trials, d1, ..., dm).

        Parameters
        ----------
        scores : ndarray, shape (n_trials, n_features)
        """
        check_fitted(self, "train_scores_")
        array = np.asarray(scores, dtype=self.mean_.dtype)
        if array.ndim != 2 or array.shape[1] != self._n_features_out:
            fail(
                f"scores have shape {array.shape}",
                fix=f"give what transform returns: (n_trials, {self._n_features_out})",
            )
        whole: NDArray = self._decode(torch.from_numpy(array)).numpy()
        whole += self.mean_
        return whole

    def score(self, X: NDArray, y: ArrayLike | None = None) -> float:
        """Return the share of variance about the mean that the features explain.

        Parameters
        ----------
        X : ndarray, shape (n_trials, d1, ..., dm)
            Best of trials held out. Missing cells do not count.
        y : ignored

        Returns
        -------
        float
            1 is all of it; 0 is no better than the training mean.
        """
        check_fitted(self, "train_scores_")
        array = self._checked(X)
        total = left = 0.0
        for part in pieces(array.shape):
            about, observed = self._centred(array[part])
            rest = about - self._decode(self._scores(about, observed))
            if observed is not None:
                rest *= observed
            total += squared_norm(about)
            left += squared_norm(rest)
        return 1.0 - left / total if total > 0 else 1.0


class PatternFeatures(LinearFeatures):
    """Base of extractors whose patterns are few and held as one matrix.

    Attributes
    ----------
    patterns_ : ndarray, shape (n_features, d1, ..., dm)
        What one unit of a feature adds to a trial.
    """

    patterns_: NDArray

    def _flat(self) -> Tensor:
        return torch.from_numpy(self.patterns_.reshape(len(self.patterns_), -1))

    def _decode(self, scores: Tensor) -> Tensor:
        return (scores @ self._flat()).reshape(-1, *self.patterns_.shape[1:])

    def _correlate(self, X: Tensor) -> Tensor:
        return X.reshape(len(X), -1) @ self._flat().mT

    def _gram(self) -> Tensor | None:
        D = self._flat()
        return D.double() @ D.double().mT

    @property
    def _n_features_out(self) -> int:
        return len(self.patterns_)
