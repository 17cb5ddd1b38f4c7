"""Features by higher-order partial least squares."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eegtensor._check import check_lengths, fail
from eegtensor.features._base import check_fitted, class_codes
from eegtensor.features._tensors import PatternFeatures
from eegtensor.features.tucker import axis_ranks
from eegtensor.tensor._missing import squared_error
from eegtensor.tensor.hopls import hopls
from eegtensor.tensor.kernels import squared_norm


class HOPLS(PatternFeatures):
    """Latent vectors of trials that follow a target: classes or numbers.

    Parameters
    ----------
    rank : int
        Latent vectors, which are the features.
    ranks : int | tuple of int
        Directions of each axis of a trial in one latent vector's block.
    center : bool
        Whether the mean of the training trials is taken off first.

    Attributes
    ----------
    weights_ : ndarray, shape (n_features, d1, ..., dm)
        A centred trial's inner products with them are its features.
    patterns_ : ndarray, shape (n_features, d1, ..., dm)
        What one unit of a feature adds to a trial.
    loadings_ : ndarray, shape (n_features, n_targets)
        What one unit of a feature adds to the targets.
    target_mean_ : ndarray, shape (n_targets,)
    classes_ : ndarray | None
        Classes, one target each; None for numbers.
    mean_, train_scores_, fit_, n_iter_

    References
    ----------
    Q. Zhao et al., "Higher order partial least squares (HOPLS)", IEEE Trans.
    Pattern Anal. Mach. Intell., 2013.
    """

    def __init__(
        self, rank: int = 4, ranks: int | tuple[int, ...] = 4, center: bool = True
    ) -> None:
        self.rank = rank
        self.ranks = ranks
        self.center = center

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: NDArray | None) -> None:
        if observed is not None:
            fail(
                "Training trials have missing cells",
                fix="restore them first (Completer), or leave these trials out",
            )
        Y = self._targets(y, len(X))
        self.target_mean_ = Y.mean(axis=0)
        model = hopls(
            X,
            torch.from_numpy(Y - self.target_mean_),
            self.rank,
            axis_ranks(self.ranks, X.ndim - 1),
        )
        self.weights_ = model.weights.numpy()
        self.patterns_ = model.patterns.numpy()
        self.loadings_ = model.loadings.numpy()
        self.n_iter_ = len(self.patterns_)
        left = squared_error(X, None, lambda part: self._decode(model.scores[part]))
        self.fit_ = 1.0 - math.sqrt(left / squared_norm(X))

    def _scores(self, X: Tensor, observed: Tensor | None) -> Tensor:
        """Return inner products with the weights: no least squares, as in PLS."""
        if observed is not None:
            # Missing cells get what the patterns say by the observed ones.
            whole = self._decode(super()._scores(X, observed))
            X = torch.where(observed, X, whole)
        W = torch.from_numpy(self.weights_)
        return X.flatten(1) @ W.flatten(1).mT

    def _targets(self, y: NDArray | None, n_trials: int) -> NDArray:
        if y is None:
            fail("HOPLS needs classes or numbers to follow", fix="call fit(X, y)")
        check_lengths(n_trials, y=y)
        self.classes_: NDArray | None = None
        if y.dtype.kind == "f":
            if not np.isfinite(y).all():
                fail("y holds NaN or infinity", fix="drop these trials")
            return y.reshape(n_trials, -1).astype(np.float64)
        self.classes_, codes = class_codes(y, n_trials, "HOPLS")
        return np.eye(len(self.classes_))[codes]

    def predict_targets(self, X: NDArray) -> NDArray:
        """Return the targets that the latent vectors of trials stand for.

        Parameters
        ----------
        X : ndarray, shape (n_trials, d1, ..., dm)

        Returns
        -------
        Y : ndarray, shape (n_trials, n_targets)
            Of classes, one column each, near 1 for the class of a trial.
        """
        check_fitted(self, "train_scores_")
        Y: NDArray = self.transform(X) @ self.loadings_ + self.target_mean_
        return Y

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return classes, or numbers of shape (n_trials,) or (n_trials, n_targets)."""
        Y = self.predict_targets(X)
        if self.classes_ is not None:
            return self.classes_[Y.argmax(axis=1)]
        return Y[:, 0] if Y.shape[1] == 1 else Y
