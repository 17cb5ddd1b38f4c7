"""What classifiers that sites learn together share."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from eegtensor._check import check_lengths, fail
from eegtensor.transfer._heads import FeatureClassifier


class OfSites(FeatureClassifier):
    """Base of classifiers with a function for each of `subjects`."""

    __metadata_request__fit: ClassVar[dict[str, bool]] = {"subjects": True}
    __metadata_request__predict: ClassVar[dict[str, bool]] = {"subjects": True}
    __metadata_request__predict_proba: ClassVar[dict[str, bool]] = {"subjects": True}

    sites_: dict[str, Any]

    def _parted(
        self, X: Any, y: Any, subjects: Any
    ) -> tuple[list[tuple[NDArray, NDArray]], list[str]]:
        X, codes = self._checked(X, y)
        Y = 2.0 * np.eye(len(self.classes_))[codes] - 1.0
        if subjects is None:
            fail("Sites were not given", fix="pass subjects to fit")
        check_lengths(len(X), subjects=subjects)
        who = np.asarray(subjects).astype(str)
        names = np.unique(who)
        rows = [np.flatnonzero(who == name) for name in names]
        return [(X[r], Y[r]) for r in rows], names.tolist()

    def _site_logits(self, X: NDArray, site: str | None) -> NDArray:
        raise NotImplementedError

    def decision_function(
        self, X: NDArray, subjects: ArrayLike | None = None
    ) -> NDArray:
        """Return logits; of two classes the second's minus the first's, (n_trials,).

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        subjects : array-like of str, shape (n_trials,) | None
            Sites; those that are not known, and None, get what all have in common.
        """
        X = self._features(X)
        z = np.zeros((len(X), len(self.classes_)))
        if subjects is None:
            z[:] = self._site_logits(X, None)
        else:
            check_lengths(len(X), subjects=subjects)
            who = np.asarray(subjects).astype(str)
            for name in np.unique(who):
                known = str(name) if name in self.sites_ else None
                z[who == name] = self._site_logits(X[who == name], known)
        return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z

    def predict_proba(self, X: NDArray, subjects: ArrayLike | None = None) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        z = self.decision_function(X, subjects)
        z = np.stack([-z / 2, z / 2], axis=1) if z.ndim == 1 else z
        p: NDArray = softmax(z, axis=1)
        return p

    def predict(self, X: NDArray, subjects: ArrayLike | None = None) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        return self.classes_[self.predict_proba(X, subjects).argmax(axis=1)]


def with_constant(X: NDArray) -> NDArray:
    """Return vectors with a last entry of 1."""
    return np.concatenate([X, np.ones((len(X), 1))], axis=1)
