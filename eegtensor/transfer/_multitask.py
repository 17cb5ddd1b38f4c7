"""The task grid of people and sessions: fit, few-shot calibration, decisions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_option, fail, listing
from eegtensor.domains import UNSEEN, Domain, domain_names
from eegtensor.features._base import DomainEstimator, check_fitted
from eegtensor.geometry import sqrtm_pair
from eegtensor.tensor._shapes import Random
from eegtensor.tensor.multitask import Multitask, few_shot_rows, multitask
from eegtensor.transfer._cells import (
    Cells,
    checked_vectors,
    codes,
    constant,
    middle_and_spread,
)
from eegtensor.transfer._ownpart import Coordinates, OwnPart, coordinates
from eegtensor.transfer._perdomain import _names_or_last, _target_names

MODES = ("subject", "session")
PRIORS = ("people", "mean")
# Of a variance of 1: what is fitted to the source trials is no error-free ruler.
LEAST_ERROR = 0.1


class TensorMultitask(DomainEstimator):
    """Base of the three machines: a subclass says what loss and which targets.

    Attributes
    ----------
    levels_ : tuple of tuple
        Labels of each mode's levels, sources first; "band" is the last mode.
    rows_ : tuple of ndarray, shape (n_problems, n_levels, R)
        U^d of each mode. Two classes, and a regression, are one problem; more
        classes are one each.
    directions_ : ndarray, shape (n_problems, n_features or n_trials, R)
    biases_ : dict
        Of a task's levels: ndarray of one bias per problem, NaN where a task lacks
        a class.
    centre_ : ndarray, shape (n_problems, R)
    offset_ : ndarray, shape (n_problems,)
    offset_variance_, error_ : ndarray, shape (n_problems,)
        Variance over tasks of f at their means; mean squared loss of the sources.
    middle_ : ndarray, shape (n_features,)
        Mean of the tasks' mean trials.
    scale_ : float
        Root mean square of the trials' deviations from their task's mean.
    own_ : dict
        Of a mode and a level: what that person has beside the shared directions.
    objective_ : list of tuple of float
        After every half step, per problem.
    n_iter_ : list of int
    last_target_ : Domain | None
    """

    _loss: ClassVar[str]
    rank: int
    gamma: float
    kernel: str
    width: float
    modes: tuple[str, ...]
    unseen: str
    prior: str
    own: float
    solver: str
    max_iter: int
    tol: float
    random_state: Random

    @abstractmethod
    def _targets(self, y: Any, n_trials: int) -> NDArray:
        """Return one row of targets per problem, shape (n_problems, n_trials)."""

    @abstractmethod
    def _new_targets(self, y: Any, n_trials: int) -> NDArray:
        """Return the targets of later trials, coded as in fit."""

    def _weights(self, target: NDArray, task: NDArray) -> NDArray:
        return np.ones(len(target))

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Learn the shared directions and the rows of all source people.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n_features)
            Bands are a mode of the task grid; their decisions are averaged.
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
            A person need not have every session.

        Raises
        ------
        EEGTensorError
            If y does not suit, or features are not finite or do not vary.
        """
        check_option("kernel", self.kernel, ("linear", "rbf"))
        check_option("unseen", self.unseen, ("pooled", "raise"))
        check_option("prior", self.prior, PRIORS)
        if not self.width > 0 or not self.gamma > 0 or not self.own >= 0:
            fail(
                f"width={self.width!r}, gamma={self.gamma!r}, own={self.own!r}",
                fix="give width and gamma above 0, own from 0 up",
            )
        if any(mode not in MODES for mode in self.modes):
            fail(f"modes={self.modes!r}", fix=f"choose among {listing(MODES)}")
        X = checked_vectors(X)
        targets = self._targets(y, len(X))
        names = domain_names(len(X), subjects, sessions)
        found = {mode: sorted({getattr(n, mode) for n in names}) for mode in self.modes}
        # A mode of one level would only scale the others.
        self._modes = tuple(mode for mode in self.modes if len(found[mode]) > 1)
        self.levels_ = tuple(tuple(found[mode]) for mode in self._modes)
        self._shape = X.shape[1:]
        if X.ndim == 3 and X.shape[1] > 1:
            self.levels_ += (tuple(range(X.shape[1])),)
        self._n_source = tuple(len(labels) for labels in self.levels_)
        cells = self._cells(X, names)
        task = codes(cells.levels)
        self.middle_, self.scale_ = middle_and_spread(cells.X, task)
        if self.kernel == "rbf":
            self.support_ = cells.X
        features = self._features(cells.X)
        fits = [
            self._fit_one(features, np.repeat(t, cells.n_bands), cells.levels, task)
            for t in targets
        ]
        self.directions_ = np.stack([m.directions for m in fits])
        self.rows_ = tuple(
            np.stack([m.rows[d] for m in fits]) for d in range(len(self.levels_))
        )
        self.centre_ = np.stack([m.centre for m in fits])
        self.offset_ = np.asarray([float(m.offset) for m in fits])
        self.offset_variance_ = np.asarray([float(m.offset_variance) for m in fits])
        self.error_ = np.asarray([float(m.error) for m in fits])
        self.objective_ = [m.objective for m in fits]
        self.n_iter_ = [m.n_iter for m in fits]
        own = np.stack([m.biases for m in fits], axis=1)
        for p, t in enumerate(targets):
            own[constant(np.repeat(t, cells.n_bands), task), p] = np.nan
        keys = [tuple(row) for row in fits[0].tasks.tolist()]
        self.biases_ = dict(zip(keys, own, strict=True))
        self.own_: dict[tuple[int, int], OwnPart] = {}
        self.last_target_: Domain | None = None
        return self

    def calibrate(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Learn the row of each new person, or new session, from a few trials.

        The step for U^d for the new rows alone, R numbers each with a bias, drawn
        to the sources' mean row as `prior` says, and beside it weights of their own
        as `own` says. Where person and session are both
        new, the person's row is learned and the session has the mean row. Again with
        more trials of the same person: those replace the row.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n_features)
            Without subjects and sessions they are of one person, "target".
        y : array-like, shape (n_trials,)
            Where a class is missing, what separates it stays the sources'.
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If a trial's person and session were both in fit.
        """
        X = self._check_fitted_to(X)
        targets = self._new_targets(y, len(X))
        names = _target_names(len(X), subjects, sessions)
        sources = [
            set(labels[:n])
            for labels, n in zip(self.levels_, self._n_source, strict=True)
        ]
        columns = [
            [getattr(n, mode) not in source for n in names]
            for mode, source in zip(self._modes, sources, strict=False)
        ]
        new = np.asarray(columns, dtype=bool).reshape(len(columns), len(names)).T
        if not new.any(axis=1).all():
            known = dict.fromkeys(
                str(n) for n, row in zip(names, new, strict=True) if not row.any()
            )
            fail(
                f"{listing(known)} has no row to learn",
                why="fit saw its person and session, or saw one person only",
                fix="fit again with these trials, or calibrate people new to fit",
            )
        chosen = new.argmax(axis=1)
        for d in range(len(self._modes)):
            here = np.flatnonzero(chosen == d)
            if here.size:
                self._learn_rows(d, X[here], targets[:, here], [names[i] for i in here])
        self.last_target_ = names[-1]
        return self

    def _learn_rows(
        self, d: int, X: NDArray, targets: NDArray, names: list[Domain]
    ) -> None:
        labels = [getattr(name, self._modes[d]) for name in names]
        added = [v for v in dict.fromkeys(labels) if v not in self.levels_[d]]
        # New containers: shallow copies of this estimator stay independent.
        levels, rows = list(self.levels_), list(self.rows_)
        levels[d] = (*levels[d], *added)
        prior = self.rows_[d][:, : self._n_source[d]].mean(axis=1)
        fresh = np.repeat(prior[:, None], len(added), axis=1)
        rows[d] = np.concatenate([self.rows_[d], fresh], axis=1)
        self.levels_, self.rows_ = tuple(levels), tuple(rows)
        cells = self._cells(X, names)
        # Levels of other modes may be unseen: to the biases they are one level.
        keys, task = np.unique(cells.levels, axis=0, return_inverse=True)
        task = task.ravel()
        places, group = np.unique(cells.levels[:, d], return_inverse=True)
        group = group.ravel()
        features = self._features(cells.X)
        biases = np.full((len(keys), len(targets)), np.nan)
        beside = np.zeros((len(targets), len(cells.X)))
        variance = self.own if self.prior == "people" else 0.0
        for p, t in enumerate(np.repeat(targets, cells.n_bands, axis=1)):
            lone = constant(t, task)
            use = ~lone[task]
            rows[d][p, places] = prior[p]
            if not use.any():
                continue
            others = self._row_product(p, cells.levels, skip=d)
            kept, task_used = np.unique(task[use], return_inverse=True)
            at, group_used = np.unique(group[use], return_inverse=True)
            learned, own, beside[p, use] = self._few_shots(
                p,
                d,
                (features @ self.directions_[p])[use],
                others[use],
                t[use],
                group_used.ravel(),
                task_used.ravel(),
                coordinates(
                    self._kernel(cells.X[use], cells.X[use]), group[use], variance
                ),
            )
            rows[d][p, places[at]] = learned
            biases[kept, p] = own
        fresh_biases = {tuple(k): b for k, b in zip(keys.tolist(), biases, strict=True)}
        self.biases_ = {**self.biases_, **fresh_biases}
        parts = {
            (d, int(place)): OwnPart(cells.X[group == g], beside[:, group == g])
            for g, place in enumerate(places)
        }
        self.own_ = {**self.own_, **parts}

    def _few_shots(
        self,
        p: int,
        d: int,
        Z: NDArray,
        others: NDArray,
        target: NDArray,
        group: NDArray,
        task: NDArray,
        own: Coordinates,
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Return rows (n_levels, R), biases (n_tasks,), coefficients (n_trials,)."""
        sources = self.rows_[d][p, : self._n_source[d]]
        mean, n_new = sources.mean(axis=0), group.max() + 1
        options = {
            "loss": self._loss,
            "epsilon": self._epsilon,
            "weights": self._weights(target, task),
        }
        if self.prior == "mean":
            prior = np.repeat(mean[None], n_new, axis=0)
            learned = few_shot_rows(
                Z * others, target, group, task, prior, gamma=self.gamma, **options
            )
            return np.asarray(learned[0]), np.asarray(learned[1]), np.zeros(len(Z))
        # The row and f at the centre vary from person to person as they did among
        # the sources; in coordinates of unit variance that is a ridge.
        root, inverse = sqrtm_pair(self._person_spread(p, sources))
        H = np.concatenate([(Z - self.centre_[p]) * others, np.ones((len(Z), 1))], 1)
        prior = np.append(
            inverse @ np.append(mean, self.offset_[p]), np.zeros(own.features.shape[1])
        )
        found, _ = few_shot_rows(
            np.concatenate([H @ root, own.features], axis=1),
            target,
            group,
            task,
            np.repeat(prior[None], n_new, axis=0),
            gamma=1.0 / max(self.error_[p], LEAST_ERROR),
            free_biases=False,
            **options,
        )
        shared = found[:, : len(root)] @ root
        coefficients = (own.back * found[group, len(root) :]).sum(axis=1)
        rows, value = shared[:, :-1], shared[:, -1]
        first = np.unique(task, return_index=True)[1]
        at_centre = (rows[group[first]] * others[first]) @ self.centre_[p]
        return rows, value[group[first]] - at_centre, coefficients

    def _person_spread(self, p: int, rows: NDArray) -> NDArray:
        """Return the covariance of rows and of f at the centre, (R + 1, R + 1)."""
        n, R = rows.shape
        S = np.cov(rows.T, bias=True).reshape(R, R)
        # Few people tell little of it: drawn to a multiple of the identity.
        share = R / (R + n)
        floor = 1e-6 * (rows**2).mean() or 1.0
        level = share * np.trace(S) / R + floor
        spread = np.zeros((R + 1, R + 1))
        spread[:R, :R] = (1.0 - share) * S + level * np.eye(R)
        spread[R, R] = max(self.offset_variance_[p], 1e-3 * LEAST_ERROR)
        return spread

    def _decide(self, X: Any, subjects: Any, sessions: Any) -> NDArray:
        """Return f of every problem, shape (n_problems, n_trials)."""
        X = self._check_fitted_to(X)
        names = _names_or_last(len(X), subjects, sessions, self.last_target_)
        cells = self._cells(X, names)
        if self.unseen == "raise" and not (subjects is None and sessions is None):
            unknown = (cells.levels == UNSEEN).any(axis=1)[:: cells.n_bands]
            if unknown.any():
                here = [n for n, new in zip(names, unknown, strict=True) if new]
                fail(
                    f"{listing(dict.fromkeys(map(str, here)))} were not in fit",
                    why="unseen='raise' refuses the mean row",
                    fix="call calibrate with a few labelled trials of theirs first, or "
                    "set unseen='pooled'",
                )
        keys, task = np.unique(cells.levels, axis=0, return_inverse=True)
        nothing = np.full(len(self.offset_), np.nan)
        biases = np.stack([self.biases_.get(tuple(k), nothing) for k in keys.tolist()])
        features = self._features(cells.X)
        beside = np.zeros((len(self.offset_), len(cells.X)))
        for (d, level), part in self.own_.items():
            theirs = cells.levels[:, d] == level
            kernel = self._kernel(cells.X[theirs], part.trials)
            beside[:, theirs] += part.coefficients @ kernel.T
        out = []
        for p, L in enumerate(self.directions_):
            u = self._row_product(p, cells.levels)
            own = biases[task.ravel(), p]
            pooled = self.offset_[p] - u @ self.centre_[p]
            f = ((features @ L) * u).sum(axis=1) + np.where(np.isnan(own), pooled, own)
            f = f + beside[p]
            out.append(f.reshape(-1, cells.n_bands).mean(axis=1))
        return np.stack(out)

    def _row_product(self, p: int, levels: NDArray, skip: int | None = None) -> NDArray:
        """Return u_t per cell; an unseen level has the sources' mean row."""
        u = np.ones((len(levels), self.directions_.shape[2]))
        for d, U in enumerate(self.rows_):
            if d != skip:
                mean = U[p, : self._n_source[d]].mean(axis=0)
                # UNSEEN, -1, is the row appended last.
                u = u * np.concatenate([U[p], mean[None]])[levels[:, d]]
        return u

    def _cells(self, X: NDArray, names: list[Domain]) -> Cells:
        columns = []
        for mode, labels in zip(self._modes, self.levels_, strict=False):
            place = {label: k for k, label in enumerate(labels)}
            columns.append([place.get(getattr(n, mode), UNSEEN) for n in names])
        levels = np.asarray(columns, dtype=np.int64).reshape(len(columns), len(X)).T
        n_bands = X.shape[1] if X.ndim == 3 else 1
        levels = np.repeat(levels, n_bands, axis=0)
        if n_bands > 1:
            band = np.tile(np.arange(n_bands), len(X))
            levels = np.concatenate([levels, band[:, None]], axis=1)
        return Cells(X.reshape(-1, X.shape[-1]), levels, n_bands)

    def _features(self, X: NDArray) -> NDArray:
        """Return features, or kernels with the training trials, free of units."""
        if self.kernel == "linear":
            return X / self.scale_
        return self._kernel(X, self.support_)

    def _kernel(self, A: NDArray, B: NDArray) -> NDArray:
        """Return the kernel of two sets of trials, about 1 for a trial and itself."""
        A, B = (A - self.middle_) / self.scale_, (B - self.middle_) / self.scale_
        inner: NDArray = A @ B.T
        if self.kernel == "linear":
            return inner
        squared = (A**2).sum(1)[:, None] + (B**2).sum(1) - 2.0 * inner
        # Two trials of a task are 2 scale^2 apart on average.
        kernels: NDArray = np.exp(-0.5 * self.width * np.maximum(squared, 0.0))
        return kernels

    @property
    def _epsilon(self) -> float:
        return float(getattr(self, "epsilon", 0.0))

    def _fit_one(
        self, features: NDArray, target: NDArray, levels: NDArray, task: NDArray
    ) -> Multitask:
        weights = self._weights(target, task)
        if not weights.any():
            fail(
                "No person's session holds two classes",
                why="What separates them is learned within sessions",
                fix="set modes=('subject',), or modes=() for one machine for all",
            )
        found: Multitask = multitask(
            features,
            target,
            levels,
            self.rank,
            kernel="linear" if self.kernel == "linear" else "precomputed",
            loss=self._loss,
            gamma=self.gamma,
            epsilon=self._epsilon,
            weights=weights,
            solver=self.solver,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        )
        rows = []
        for d, U in enumerate(found.rows):
            told = np.bincount(levels[:, d], weights, minlength=len(U)) > 0
            rows.append(np.where(told[:, None], U, U[told].mean(axis=0)))
        return found._replace(rows=tuple(rows))

    def _check_fitted_to(self, X: Any) -> NDArray:
        check_fitted(self, "directions_")
        X = checked_vectors(X)
        if X.shape[1:] != self._shape:
            fail(
                f"Trials have shape {X.shape[1:]}, fit saw {self._shape}",
                fix="use the same bands and features as in fit",
            )
        return X
