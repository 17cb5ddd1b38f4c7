"""A decoder whose probabilities were calibrated on people it had not seen."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import clone

from eegtensor._check import check_option
from eegtensor.domains import domain_names
from eegtensor.features._base import check_fitted, class_codes
from eegtensor.trust._people import domain_columns, fitted, held_out, part_of
from eegtensor.trust._wrapper import DecoderWrapper
from eegtensor.trust.calibration.aaa import AAA
from eegtensor.trust.calibration.maps import (
    DomainTemperature,
    Isotonic,
    OutputMap,
    Temperature,
    VectorScaling,
)
from eegtensor.trust.scorers.evidence import evidence

MAPS: dict[str, type[OutputMap]] = {
    "temperature": Temperature,
    "vector": VectorScaling,
    "isotonic": Isotonic,
    "domain": DomainTemperature,
    "aaa": AAA,
}


class CalibratedDecoder(DecoderWrapper):
    """A decoder with a map of its logits that was fitted to held-out people.

    Confidence on people that the decoder was fitted to says little about new ones.
    People are left out in turn (adapted to without labels, where the decoder can), the
    map is fitted to all their logits, and the decoder to everybody.

    Parameters
    ----------
    estimator : classifier
        Of this package (a pipeline, a network) or of scikit-learn.
    method : "temperature" | "vector" | "isotonic" | "domain" | "aaa"
    n_folds : int
        Groups of people held out in turn.

    Attributes
    ----------
    estimator_ : classifier
    map_ : OutputMap
    classes_ : ndarray, shape (n_classes,)

    Notes
    -----
    "temperature" and "aaa" leave every prediction as it is. "domain" keeps a
    temperature for each known (subject, session) and a common one for new ones.
    """

    def __init__(
        self, estimator: Any, method: str = "temperature", n_folds: int = 5
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.n_folds = n_folds

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Fit the map on people held out in turn, then the decoder to all.

        Parameters
        ----------
        X : ndarray, shape (n_trials, ...)
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
        """
        check_option("method", self.method, tuple(MAPS))
        X, columns = np.asarray(X), domain_columns(len(X), subjects, sessions)
        self.classes_, codes = class_codes(y, len(X), type(self).__name__, floats=True)
        labels = np.asarray(y)
        logits, order = [], []
        for model, _, test in held_out(
            self.estimator, X, labels, columns, self.n_folds
        ):
            found = evidence(model, X[test], **part_of(columns, test))
            logits.append(found.need("logits"))
            order.append(test)
        rows = np.concatenate(order)
        names = _names(len(X), subjects, sessions)[rows]
        self.map_ = MAPS[self.method]().fit(np.concatenate(logits), codes[rows], names)
        self.estimator_ = fitted(clone(self.estimator), X, labels, columns)
        return self

    def _mapped(self, X: Any, subjects: Any, sessions: Any) -> NDArray:
        check_fitted(self, "map_")
        found = evidence(self.estimator_, X, subjects=subjects, sessions=sessions)
        names = _names(len(found), subjects, sessions)
        return self.map_.transform(found.need("logits"), names)

    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return calibrated probabilities, shape (n_trials, n_classes)."""
        p: NDArray = softmax(self._mapped(X, subjects, sessions), axis=1)
        return p

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the most probable classes, shape (n_trials,)."""
        return self.classes_[self._mapped(X, subjects, sessions).argmax(axis=1)]


def _names(n_trials: int, subjects: Any, sessions: Any) -> NDArray:
    return np.asarray([str(d) for d in domain_names(n_trials, subjects, sessions)])
