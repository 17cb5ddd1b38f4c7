"""Regression with a step along the geodesic for each domain, learned with a ridge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin

from eegtensor._check import check_lengths, fail
from eegtensor.domains import (
    UNSEEN,
    Domain,
    DomainTable,
    check_unseen_policy,
    domain_names,
    encode_domains,
    raise_unseen,
)
from eegtensor.features._base import DomainEstimator, check_fitted, check_matrices
from eegtensor.features._means import segment_means
from eegtensor.transfer._geodesicsteps import (
    GeodesicSteps,
    best_penalty,
    learn_steps,
    match_mean,
    ridge,
)
from eegtensor.transfer._perdomain import (
    TARGET,
    _names_or_last,
    _refuse_single,
    _target_names,
)
from eegtensor.transfer.recenter import check_means, pooled_mean


class GOPSARegressor(RegressorMixin, DomainEstimator):
    """Ridge regression on tangent vectors, each domain recentred only so far.

    Domain d with Riemannian mean R goes from its scaled mean (alpha 0: c I, c =
    det(R)^(1/n)) to fully recentred (alpha 1). The source domains' steps are
    learned together with the ridge; a target's step is chosen so that its mean
    prediction is a mean **that must be given**. It is therefore no unlabelled
    adaptation: use it where the mean is known, say the mean age of a cohort,
    and say so beside every score.

    Parameters
    ----------
    alpha : float | None
        The same step for every domain; learned if None. 1 is recentring and a
        ridge.
    penalties : tuple of float
        Of the ridge; the best in cross-validation over people, all recentred,
        is taken.
    n_folds : int
    max_iter : int
        Of L-BFGS.
    unseen : "pooled" | "raise"
        What `predict` does with a domain that was not adapted to: the sources'
        common mean and mean step, or an error.

    Attributes
    ----------
    domains_ : DomainTable
    means_ : ndarray, shape (n_domains, n_bands, n, n)
    alphas_ : ndarray, shape (n_domains,)
    coef_ : ndarray, shape (n_bands * n (n + 1) / 2,)
    intercept_ : float
        Mean of the sources' targets.
    penalty_ : float
    last_target_ : Domain | None

    References
    ----------
    A. Mellot et al., "Geodesic optimization for predictive shift adaptation on
    EEG data", NeurIPS 2024. Theirs runs to I, which depends on the unit.
    """

    def __init__(
        self,
        alpha: float | None = None,
        penalties: tuple[float, ...] = (1.0, 10.0, 1e2, 1e3, 1e4, 1e5),
        n_folds: int = 5,
        max_iter: int = 150,
        unseen: str = "pooled",
    ) -> None:
        self.alpha = alpha
        self.penalties = penalties
        self.n_folds = n_folds
        self.max_iter = max_iter
        self.unseen = unseen

    # Without the target's mean, which a benchmark cannot give, nothing adapts.
    can_adapt = False

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Learn the ridge and the step of every source domain.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n, n)
        y : array-like of float, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If y is missing, not numeric or not finite.
        """
        check_unseen_policy(self.unseen)
        if self.unseen == "adapt":
            fail(
                "unseen='adapt' needs the target's mean, which predict does not get",
                fix="call adapt(X, target_mean=...), or set unseen='pooled'",
            )
        if not self.penalties or not min(self.penalties) > 0:
            fail(f"penalties={self.penalties!r}", fix="give numbers above 0")
        if self.n_folds < 2 or self.max_iter < 1:
            fail(
                f"n_folds={self.n_folds}, max_iter={self.max_iter}",
                fix="n_folds from 2, max_iter from 1",
            )
        if self.alpha is not None and not 0.0 <= self.alpha <= 1.0:
            fail(f"alpha={self.alpha!r}", fix="give a step from 0 to 1, or None")
        X, values = _banded(X), _checked_targets(y, len(X))
        codes, names = encode_domains(domain_names(len(X), subjects, sessions))
        means = segment_means(X, codes, len(names))
        check_means(means)
        self.intercept_ = float(values.mean())
        centred = torch.from_numpy(values - self.intercept_)
        steps = GeodesicSteps(X, means, codes)
        owners = _folds(codes, names, values, self.n_folds)
        recentred = steps.vectors(torch.ones(len(names), dtype=torch.float64))
        # Once, with all domains recentred: the steps learned next are for this penalty.
        self.penalty_ = best_penalty(recentred, centred, owners, self.penalties)
        if self.alpha is None:
            alphas = learn_steps(steps, centred, self.penalty_, self.max_iter)
        else:
            alphas = torch.full((len(names),), float(self.alpha), dtype=torch.float64)
        self.coef_ = ridge(steps.vectors(alphas), centred, self.penalty_).numpy()
        self.domains_ = DomainTable(names)
        self.means_, self.alphas_ = means, alphas.numpy()
        self._pooled = pooled_mean(means, np.bincount(codes), "affine-invariant")
        self._pooled_alpha = float(self.alphas_.mean())
        self.last_target_: Domain | None = TARGET if TARGET in names else None
        return self

    def adapt(
        self,
        X: NDArray,
        *,
        target_mean: float | None = None,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Choose the step of each domain in a batch by its known mean.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n, n)
            Without subjects and sessions the batch is one domain, "target".
        target_mean : float
            Mean of y over the trials of each domain in the batch, known from
            elsewhere.
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If the mean is not given, or a domain has a single trial.
        """
        X = self._check_fitted_to(X)
        if target_mean is None or not np.isfinite(target_mean):
            fail(
                f"adapt got target_mean={target_mean!r}",
                why="The step is the one at which the mean prediction is the "
                "target's mean, which must be known",
                fix="pass target_mean, or use Recenter, which needs no such number",
            )
        codes, names = encode_domains(_target_names(len(X), subjects, sessions))
        _refuse_single(names, np.bincount(codes), "adapt")
        means = segment_means(X, codes, len(names))
        if self.alpha is None:
            alphas = match_mean(
                GeodesicSteps(X, means, codes),
                torch.from_numpy(self.coef_),
                float(target_mean) - self.intercept_,
            )
        else:
            alphas = np.full(len(names), float(self.alpha))
        table = DomainTable(self.domains_.names)
        place = table.encode(names, grow=True)
        grown = len(table) - len(self.domains_)
        # New arrays: shallow copies of this estimator stay independent.
        blank = np.zeros((grown, *self.means_.shape[1:]))
        self.means_ = np.concatenate([self.means_, blank])
        self.alphas_ = np.concatenate([self.alphas_, np.zeros(grown)])
        self.means_[place], self.alphas_[place] = means, alphas
        self.domains_, self.last_target_ = table, names[codes[-1]]
        return self

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return predicted targets, shape (n_trials,).

        Without domains those adapted last are used, else the sources' common
        mean and mean step.
        """
        X = self._check_fitted_to(X)
        names = _names_or_last(len(X), subjects, sessions, self.last_target_)
        nameless = subjects is None and sessions is None
        codes = self.domains_.encode(names)
        unseen = codes == UNSEEN
        if unseen.any() and self.unseen == "raise" and not nameless:
            here = [name for name, new in zip(names, unseen, strict=True) if new]
            raise_unseen(here, self.domains_.names)
        means = np.concatenate([self.means_, self._pooled[np.newaxis]])
        alphas = np.append(self.alphas_, self._pooled_alpha)
        codes = np.where(unseen, len(self.means_), codes)
        Z = GeodesicSteps(X, means, codes).vectors(torch.from_numpy(alphas))
        predicted: NDArray = Z.numpy() @ self.coef_ + self.intercept_
        return predicted

    def _check_fitted_to(self, X: Any) -> NDArray:
        check_fitted(self, "coef_")
        X = _banded(X)
        if X.shape[1:] != self.means_.shape[1:]:
            fail(
                f"Matrices have shape {X.shape[1:]}, fit saw {self.means_.shape[1:]}",
                fix="use the same channels and bands as in fit",
            )
        return X


def _folds(
    codes: NDArray, names: Sequence[Domain], y: NDArray, n_folds: int
) -> NDArray:
    """Return a fold for each trial: people stay together where there are several."""
    people = sorted({(name.dataset, name.subject) for name in names})
    if len(people) == 1:
        # By rank of y: the order in which trials come means nothing.
        return np.argsort(np.argsort(y, kind="stable"), kind="stable") % n_folds
    # A person in two folds would make every penalty look too small.
    place = {person: i % n_folds for i, person in enumerate(people)}
    owner = np.asarray([place[name.dataset, name.subject] for name in names])
    return owner[codes]


def _banded(X: Any) -> NDArray:
    X = check_matrices(X, ndim=(3, 4))
    return X[:, np.newaxis] if X.ndim == 3 else X


def _checked_targets(y: Any, n_trials: int) -> NDArray:
    if y is None:
        fail("GOPSARegressor needs targets", fix="call fit(X, y)")
    values = np.asarray(y)
    check_lengths(n_trials, y=values)
    if values.dtype.kind not in "fiu" or values.ndim != 1:
        fail(
            f"y has dtype {values.dtype} and shape {values.shape}",
            why="A regression needs one number a trial",
            fix="give numbers; classes are for classifiers",
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        fail("y holds NaN or infinity", fix="drop these trials")
    return values
