"""What every estimator of the package shares: domains through fit and transform."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from eegtensor._check import check_lengths, fail

DOMAINS = {"subjects": True, "sessions": True}


class DomainEstimator(BaseEstimator):
    """Base of estimators that may receive subjects and sessions.

    The metadata are requested on the class, so that scikit-learn pipelines and
    MOABB route them without `set_fit_request`.
    """

    __metadata_request__fit: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__transform: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__predict: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__predict_proba: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__decision_function: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__score: ClassVar[dict[str, bool]] = DOMAINS


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
    """Return a finite float stack of symmetric matrices.

    Raises
    ------
    EEGTensorError
        If the array is no stack of square, finite, symmetric matrices of numbers.
    """
    array = np.asarray(C)
    if array.ndim not in ndim or array.shape[-1] != array.shape[-2] or not len(array):
        fail(
            f"{name} has shape {array.shape}, not a stack of square matrices",
            why="This step works on covariance matrices",
            fix="put Covariances() before it in the pipeline",
        )
    if array.dtype.kind not in "fiu":
        fail(f"{name} has dtype {array.dtype}, not numbers")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        fail(
            f"{name} holds NaN or infinity in {int(bad.sum())} matrices, the first "
            f"is trial {int(np.flatnonzero(bad)[0])}",
            fix="drop these trials",
        )
    # As many samples as channels look square; eigh would read one triangle of them.
    skew = np.abs(array - np.swapaxes(array, -1, -2)).max()
    if skew > 1e-5 * np.abs(array).max():
        fail(
            f"{name} holds matrices that are not symmetric",
            why="Covariance matrices are; these may be signals",
            fix="put Covariances() before this step in the pipeline",
        )
    if (np.diagonal(array, axis1=-2, axis2=-1) < 0).any():
        fail(f"{name} holds negative variances", fix="give covariance matrices")
    return array


def class_codes(
    y: Any, n_trials: int, purpose: str, *, floats: bool = False
) -> tuple[NDArray, NDArray]:
    """Return the sorted classes and each trial's code among them.

    Parameters
    ----------
    y : array-like, shape (n_trials,)
    n_trials : int
    purpose : str
        Who asks, for the messages.
    floats : bool
        Whether whole numbers stored as float may be classes. `Trials` keep
        classes as str and targets, say an age in years, as float.

    Raises
    ------
    EEGTensorError
        If labels are absent, continuous, too few, or of a single class.
    """
    if y is None:
        fail(f"{purpose} needs class labels", fix="call fit(X, y)")
    labels = np.asarray(y)
    if labels.ndim != 1:
        fail(f"y has shape {labels.shape}", fix="give one label per trial")
    check_lengths(n_trials, y=labels)
    if labels.dtype.kind == "f" and not (floats and (labels == np.round(labels)).all()):
        fail(
            "y holds continuous targets or NaN",
            why=f"{purpose} separates classes",
            fix="give class labels, or for regression "
            "make_pipeline('tangent-space', task='regression')",
        )
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        fail(
            f"y holds one class only, {classes.tolist()[0]!r}",
            why=f"{purpose} separates classes",
            fix="give trials of at least two classes",
        )
    return classes, codes.ravel()


def labels_of(y: Any, n_trials: int, name: str) -> NDArray:
    """Return labels as an array, or raise where they are absent or continuous."""
    if y is None:
        fail(f"{name} needs class labels", fix="call fit(X, y)")
    labels = np.asarray(y)
    check_lengths(n_trials, y=labels)
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        fail(
            "y holds continuous targets or NaN",
            why=f"{name} averages the trials of each class",
            fix="give class labels",
        )
    return labels
