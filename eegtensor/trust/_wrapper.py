"""What estimators around a decoder hand through to it."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if

from eegtensor.features._base import DomainEstimator, check_fitted
from eegtensor.trust.scorers.evidence import called


def _inner(self: Any) -> Any:
    return getattr(self, "estimator_", self.estimator)


def can(method: str) -> Any:
    """Return a check of whether the decoder has a method."""
    return lambda self: hasattr(_inner(self), method)


class DecoderWrapper(ClassifierMixin, DomainEstimator):
    """Base of classifiers around a decoder: domains and adaptation are the decoder's.

    Attributes
    ----------
    estimator_ : classifier
        Fitted to all trials of `fit`.
    classes_ : ndarray, shape (n_classes,)
    """

    estimator: Any
    estimator_: Any
    classes_: NDArray

    @property
    def can_adapt(self) -> bool:
        """Whether the decoder adapts."""
        return bool(getattr(_inner(self), "can_adapt", False))

    @available_if(can("adapt"))
    def adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Adapt the decoder to an unlabelled batch."""
        return self._moved("adapt", X, subjects, sessions)

    @available_if(can("partial_adapt"))
    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Adapt the decoder trial by trial, in the order given."""
        return self._moved("partial_adapt", X, subjects, sessions)

    def _moved(self, method: str, X: Any, subjects: Any, sessions: Any) -> Self:
        check_fitted(self, "estimator_")
        # A copy: shallow copies of this estimator stay independent.
        decoder = copy.deepcopy(self.estimator_)
        called(decoder, method, X, {"subjects": subjects, "sessions": sessions})
        self.estimator_ = decoder
        return self

    def _said(self, method: str, X: Any, subjects: Any, sessions: Any) -> NDArray:
        check_fitted(self, "estimator_")
        domains = {"subjects": subjects, "sessions": sessions}
        return np.asarray(called(self.estimator_, method, X, domains))
