"""Support vector machines for many people at once, which share a few directions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score

from eegtensor._check import check_lengths, check_option, fail, listing
from eegtensor.features._base import class_codes
from eegtensor.tensor._shapes import Random
from eegtensor.transfer._multitask import MODES, TensorMultitask


class _Classifier(ClassifierMixin, TensorMultitask):
    class_weight: str | None

    def __init__(
        self,
        rank: int = 2,
        gamma: float = 1.0,
        kernel: str = "linear",
        width: float = 1.0,
        modes: tuple[str, ...] = MODES,
        class_weight: str | None = "balanced",
        unseen: str = "pooled",
        prior: str = "people",
        own: float = 0.3,
        solver: str = "auto",
        max_iter: int = 50,
        tol: float = 1e-3,
        random_state: Random = 0,
    ) -> None:
        self.rank = rank
        self.gamma = gamma
        self.kernel = kernel
        self.width = width
        self.modes = modes
        self.class_weight = class_weight
        self.unseen = unseen
        self.prior = prior
        self.own = own
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def decision_function(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return f, shape (n_trials,) of two classes, (n_trials, n_classes) of more."""
        f = self._decide(X, subjects, sessions)
        return f[0] if len(f) == 1 else f.T

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return classes, shape (n_trials,).

        Without domains the one calibrated last is used, else the mean row.
        """
        f = self._decide(X, subjects, sessions)
        place = (f[0] > 0).astype(int) if len(f) == 1 else f.argmax(axis=0)
        return self.classes_[place]

    def score(
        self,
        X: NDArray,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> float:
        """Return the accuracy."""
        predicted = self.predict(X, subjects=subjects, sessions=sessions)
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _targets(self, y: Any, n_trials: int) -> NDArray:
        check_option("class_weight", self.class_weight, ("balanced", None))
        name = type(self).__name__
        self.classes_, codes = class_codes(y, n_trials, name, floats=True)
        return self._signs(codes)

    def _new_targets(self, y: Any, n_trials: int) -> NDArray:
        check_lengths(n_trials, y=y)
        labels = np.asarray(y)
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            fail(
                f"fit did not see the classes {listing(set(labels[unknown]))}",
                fix=f"known are {listing(self.classes_)}",
            )
        return self._signs(np.searchsorted(self.classes_, labels))

    def _signs(self, codes: NDArray) -> NDArray:
        K = len(self.classes_)
        wanted = np.arange(1, 2) if K == 2 else np.arange(K)
        return np.where(codes == wanted[:, None], 1.0, -1.0)

    def _weights(self, target: NDArray, task: NDArray) -> NDArray:
        side = (target > 0).astype(np.int64)
        counts = np.zeros((task.max() + 1, 2))
        np.add.at(counts, (task, side), 1.0)
        # One class alone fits any row with a bias: it would pull the rows to zero.
        both: NDArray = counts.min(axis=1)[task] > 0
        if self.class_weight is None:
            return both.astype(np.float64)
        weights: NDArray = counts.sum(axis=1)[task] / (2.0 * counts[task, side])
        return np.where(both, weights, 0.0)


class TensorMultitaskLSSVC(_Classifier):
    """Least-squares support vector machines of all people and sessions at once.

    The weights of person s in session k are w = L (u_s * v_k): R directions that
    all share, and R numbers for each person and each session. Someone new is
    decoded with the mean row, or calibrated with a few trials: R numbers, and a
    small part of their own.

    Parameters
    ----------
    rank : int
        Shared directions R.
    gamma : float
        Weight of the loss; of too small a gamma come weights of zero.
    kernel : "linear" | "rbf"
        rbf: exp(-width |x - z|^2 / m), m the mean squared distance of two trials
        of a task. Features count in units of their spread within tasks.
    width : float
    modes : tuple of "subject" | "session"
        What spans the task grid, beside bands.
    class_weight : "balanced" | None
        Whether the classes of a task count equally.
    unseen : "pooled" | "raise"
        What `predict` does with people who were neither in fit nor calibrated.
    prior : "people" | "mean"
        Of a row that `calibrate` learns. people: normal, with mean and covariance
        of the sources' rows, and so its bias. mean: the published step with `gamma`,
        drawn to the mean row, its bias free.
    own : float
        With prior "people": variance of what a person's decisions have outside the
        shared directions, for a trial of usual size; classes are 2 apart. Weights of
        their own (as an expansion in their trials), normal around zero.
    solver, max_iter, tol, random_state
        As in `eegtensor.tensor.multitask.multitask`.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        Two make one problem, more make one each, against the rest.
    levels_, rows_, directions_, biases_, centre_, offset_, scale_, own_, n_iter_
        As in `TensorMultitask`.

    Notes
    -----
    A person's session that lacks a class has no weight in what separates that
    class; a person without any other has the mean row.
    Standardise features before this step, by domain where domains differ.

    References
    ----------
    J. Liu et al., "Tensorized LSSVMs for multitask regression", ICASSP, 2023.
    """

    _loss = "squared"


class TensorMultitaskSVC(_Classifier):
    """As `TensorMultitaskLSSVC`, with the squared hinge loss max(0, 1 - y f)^2."""

    _loss = "hinge"


class TensorMultitaskSVR(RegressorMixin, TensorMultitask):
    """Regression with the loss max(0, |y - f| - epsilon)^2, all people at once.

    Parameters
    ----------
    rank, gamma, kernel, width, modes, unseen, prior, own
    solver, max_iter, tol, random_state
        As in `TensorMultitaskLSSVC`.
    epsilon : float
        In standard deviations of y; 0 is a least-squares machine.

    Attributes
    ----------
    y_mean_, y_scale_ : float
    levels_, rows_, directions_, biases_, centre_, offset_, scale_, own_, n_iter_
        As in `TensorMultitask`.
    """

    _loss = "insensitive"

    def __init__(
        self,
        rank: int = 2,
        gamma: float = 1.0,
        epsilon: float = 0.1,
        kernel: str = "linear",
        width: float = 1.0,
        modes: tuple[str, ...] = MODES,
        unseen: str = "pooled",
        prior: str = "people",
        own: float = 0.3,
        solver: str = "auto",
        max_iter: int = 50,
        tol: float = 1e-3,
        random_state: Random = 0,
    ) -> None:
        self.rank = rank
        self.gamma = gamma
        self.epsilon = epsilon
        self.kernel = kernel
        self.width = width
        self.modes = modes
        self.unseen = unseen
        self.prior = prior
        self.own = own
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return predicted targets, shape (n_trials,)."""
        return self._decide(X, subjects, sessions)[0] * self.y_scale_ + self.y_mean_

    def score(
        self,
        X: NDArray,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> float:
        """Return R^2."""
        predicted = self.predict(X, subjects=subjects, sessions=sessions)
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _targets(self, y: Any, n_trials: int) -> NDArray:
        values = _numbers(y, n_trials)
        self.y_mean_, self.y_scale_ = float(values.mean()), float(values.std())
        if self.y_scale_ == 0.0:
            fail("All targets are equal", why="There is nothing to predict")
        return self._coded(values)

    def _new_targets(self, y: Any, n_trials: int) -> NDArray:
        return self._coded(_numbers(y, n_trials))

    def _coded(self, values: NDArray) -> NDArray:
        coded: NDArray = (values[None] - self.y_mean_) / self.y_scale_
        return coded


def _numbers(y: Any, n_trials: int) -> NDArray:
    if y is None:
        fail("TensorMultitaskSVR needs targets", fix="call fit(X, y)")
    values = np.asarray(y)
    check_lengths(n_trials, y=values)
    if values.dtype.kind not in "fiu" or values.ndim != 1:
        fail(
            f"y has dtype {values.dtype} and shape {values.shape}",
            fix="give one number a trial",
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        fail("y holds NaN or infinity", fix="drop these trials")
    return values
