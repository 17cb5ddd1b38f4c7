"""What every estimator of the package shares: domains through fit and transform."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from eegtensor._check import fail

_DOMAINS = {"subjects": True, "sessions": True}


class DomainEstimator(BaseEstimator):
    """Base of estimators that may receive subjects and sessions.

    The metadata are requested on the class, so that scikit-learn pipelines and
    MOABB route them without `set_fit_request`.
    """

    __metadata_request__fit: ClassVar[dict[str, bool]] = _DOMAINS
    __metadata_request__transform: ClassVar[dict[str, bool]] = _DOMAINS
    __metadata_request__predict: ClassVar[dict[str, bool]] = _DOMAINS
    __metadata_request__predict_proba: ClassVar[dict[str, bool]] = _DOMAINS
    __metadata_request__decision_function: ClassVar[dict[str, bool]] = _DOMAINS
    __metadata_request__score: ClassVar[dict[str, bool]] = _DOMAINS


class DomainTransformer(TransformerMixin, DomainEstimator):
    """Base of transformers: `fit_transform` hands the domains to both halves.

    ``fit(...).transform(X)`` equals ``fit_transform(X)`` when both are given
    the same domains. `trialwise` says that the output of a trial depends on
    that trial and the parameters alone, so that a benchmark may compute it once.
    """

    trialwise = False

    def fit_transform(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        **fit_params: Any,
    ) -> NDArray:
        """Fit to X and return it transformed, domains given to both."""
        self.fit(X, y, subjects=subjects, sessions=sessions, **fit_params)
        return self.transform(X, subjects=subjects, sessions=sessions)


def check_fitted(estimator: BaseEstimator, attribute: str) -> None:
    """Raise scikit-learn's NotFittedError unless the attribute is there."""
    if not hasattr(estimator, attribute):
        from sklearn.exceptions import NotFittedError

        name = type(estimator).__name__
        raise NotFittedError(f"This {name} is not fitted. What to do: call fit first.")


def check_matrices(C: Any, *, name: str = "X", ndim: tuple[int, ...] = (3,)) -> NDArray:
    """Return a finite float stack of square matrices.

    Raises
    ------
    EEGTensorError
        If the array is no stack of square, finite matrices.
    """
    array = np.asarray(C)
    if array.ndim not in ndim or array.shape[-1] != array.shape[-2] or not len(array):
        fail(
            f"{name} has shape {array.shape}, not a stack of square matrices",
            why="This step works on covariance matrices",
            fix="put Covariances() before it in the pipeline",
        )
    if not np.isfinite(array).all():
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        fail(
            f"{name} holds NaN or infinity in {int(bad.sum())} matrices, the first "
            f"is trial {int(np.flatnonzero(bad)[0])}",
            fix="drop these trials",
        )
    return array
