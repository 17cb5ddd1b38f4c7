"""Statistics per domain: learned, adapted, streamed, looked up.

`PerDomain` holds one statistic for each (subject, session), decides what an
unseen domain gets, and leaves to its subclasses what the statistic is.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, fail, listing
from eegtensor.domains import (
    UNSEEN,
    Domain,
    DomainTable,
    check_unseen_policy,
    domain_names,
    encode_domains,
    raise_unseen,
)
from eegtensor.features._base import DomainTransformer, check_fitted

TARGET = Domain("", "target", "")


class PerDomain(DomainTransformer):
    """Base of transformers with one statistic per domain.

    A subclass defines `_check`, `_statistics`, `_pool`, `_update` and `_apply`.

    Attributes
    ----------
    domains_ : DomainTable
        Domains with statistics, sources first.
    statistics_ : ndarray, shape (n_domains, ...)
    counts_ : ndarray, shape (n_domains,)
        Trials behind each statistic; a streamed domain counts `prior_trials`.
    pooled_ : ndarray
        The sources' common statistic.
    last_target_ : Domain | None
        What `transform` without domains uses: the domain adapted last.
    """

    unseen: str
    prior_trials: float

    @abstractmethod
    def _check(self, X: Any) -> NDArray:
        """Return X as a checked array."""

    @abstractmethod
    def _statistics(
        self, X: NDArray, codes: NDArray, n_domains: int, weights: NDArray | None
    ) -> NDArray:
        """Return one statistic per domain, shape (n_domains, ...)."""

    @abstractmethod
    def _pool(self, statistics: NDArray, counts: NDArray) -> NDArray:
        """Return the common statistic of the sources."""

    @abstractmethod
    def _update(self, statistic: NDArray, x: NDArray, weight: float) -> NDArray:
        """Return the statistic moved towards one trial by `weight` in (0, 1]."""

    @abstractmethod
    def _apply(self, X: NDArray, statistics: NDArray, codes: NDArray) -> NDArray:
        """Return X transformed, trial i by ``statistics[codes[i]]``."""

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn the statistic of every source domain.

        Parameters
        ----------
        X : ndarray
        y : ignored
        subjects, sessions : array-like of str, shape (n_trials,) | None
        sample_weight : array-like, shape (n_trials,) | None
        """
        check_unseen_policy(self.unseen)
        if not self.prior_trials >= 0:
            fail(f"prior_trials={self.prior_trials!r}", fix="choose 0 or more")
        X = self._check(X)
        codes, names = encode_domains(domain_names(len(X), subjects, sessions))
        weights = _checked_weights(sample_weight, codes, names)
        self._size = _size(X)
        self.domains_ = DomainTable(names)
        self.statistics_ = self._statistics(X, codes, len(names), weights)
        self.counts_ = np.bincount(codes).astype(np.float64)
        self.pooled_ = self._pool(self.statistics_, self.counts_)
        # Labelled target trials come with the sources: see Pipeline.
        self.last_target_: Domain | None = TARGET if TARGET in names else None
        return self

    def adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Set the statistics of the domains in an unlabelled batch.

        Parameters
        ----------
        X : ndarray
            Without subjects and sessions the batch is one domain, "target".
        subjects, sessions : array-like of str, shape (n_trials,) | None
        sample_weight : array-like, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If a domain has a single trial.
        """
        X = self._check_fitted_to(X)
        codes, names = encode_domains(_target_names(len(X), subjects, sessions))
        weights = _checked_weights(sample_weight, codes, names)
        counts = np.bincount(codes, minlength=len(names))
        _refuse_single(names, counts, "adapt")
        statistics = self._statistics(X, codes, len(names), weights)
        for k, name in enumerate(names):
            self._set(name, statistics[k], float(counts[k]))
        self.last_target_ = names[codes[-1]]
        return self

    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Move the statistics trial by trial, in the order given.

        A domain met for the first time starts at the sources' common
        statistic, which counts as `prior_trials` trials.

        Parameters
        ----------
        X : ndarray
            One trial or more; without domains they are of one, "target".
        subjects, sessions : array-like of str, shape (n_trials,) | None
        """
        X = self._check_fitted_to(X)
        # In arrays of their own, so that an error half way leaves all as it was.
        moved: dict[Domain, tuple[NDArray, float]] = {}
        names = _target_names(len(X), subjects, sessions)
        for x, name in zip(X, names, strict=True):
            if name not in moved:
                code = int(self.domains_.encode([name])[0])
                known = code != UNSEEN
                moved[name] = (
                    self.statistics_[code] if known else self.pooled_,
                    float(self.counts_[code]) if known else self.prior_trials,
                )
            statistic, count = moved[name]
            # 1 / (prior + k): the running mean, so that old trials never fade.
            weight = 1.0 / (count + 1.0)
            moved[name] = (self._update(statistic, x, weight), count + 1.0)
        for name, (statistic, count) in moved.items():
            self._set(name, statistic, count)
        self.last_target_ = names[-1]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the trials, each transformed by its domain's statistic.

        Without subjects and sessions the domain adapted last is used, else
        the sources' common statistic. Domains without statistics follow the
        parameter `unseen`.

        Raises
        ------
        EEGTensorError
            If trials have another size than in `fit`, or a domain without
            statistics is refused.
        """
        X = self._check_fitted_to(X)
        names = _names_or_last(len(X), subjects, sessions, self.last_target_)
        # Without names there is no unseen domain to adapt to or to refuse.
        nameless = subjects is None and sessions is None
        policy = "pooled" if nameless else self.unseen
        codes = self.domains_.encode(names)
        statistics = self.statistics_
        unseen = codes == UNSEEN
        if unseen.any():
            here = [name for name, new in zip(names, unseen, strict=True) if new]
            if policy == "raise":
                raise_unseen(here, self.domains_.names)
            codes = codes.copy()
            if policy == "adapt":
                batch, batch_names = encode_domains(here)
                _refuse_single(batch_names, np.bincount(batch), "unseen='adapt'")
                # Of this batch and for it alone: nothing is kept.
                extra = self._statistics(X[unseen], batch, len(batch_names), None)
                codes[unseen] = len(statistics) + batch
            else:
                extra = self.pooled_[np.newaxis]
                codes[unseen] = len(statistics)
            statistics = np.concatenate([statistics, extra])
        return self._apply(X, statistics, codes)

    def _check_fitted_to(self, X: Any) -> NDArray:
        check_fitted(self, "statistics_")
        X = self._check(X)
        if _size(X) != self._size:
            axes = {2: "features", 3: "channels"}.get(X.ndim, "bands x channels")
            got, seen = (" x ".join(map(str, s)) for s in (_size(X), self._size))
            fail(
                f"X has {got} {axes}, fit saw {seen}",
                fix="use the same channels and bands as in fit",
            )
        return X

    def _set(self, name: Domain, statistic: NDArray, count: float) -> None:
        """Store a statistic; arrays are replaced, never written into, so that
        shallow copies of a fitted estimator stay independent."""
        code = int(self.domains_.encode([name])[0])
        if code == UNSEEN:
            self.domains_ = copy.deepcopy(self.domains_)
            self.domains_.encode([name], grow=True)
            self.statistics_ = np.concatenate([self.statistics_, statistic[np.newaxis]])
            self.counts_ = np.append(self.counts_, count)
        else:
            self.statistics_ = self.statistics_.copy()
            self.counts_ = self.counts_.copy()
            self.statistics_[code] = statistic
            self.counts_[code] = count


def _size(X: NDArray) -> tuple[int, ...]:
    """Return the axes that must not change after fit.

    The last axis of matrices repeats the one before it, and that of signals is
    time, which may; vectors have no other.
    """
    return X.shape[1:-1] or X.shape[1:]


def _checked_weights(
    sample_weight: ArrayLike | None, codes: NDArray, names: tuple[Domain, ...]
) -> NDArray | None:
    """Return weights as floats, or raise if a domain has none to speak of."""
    if sample_weight is None:
        return None
    check_lengths(len(codes), sample_weight=sample_weight)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        fail("sample_weight is negative or not finite", fix="give weights from 0 up")
    empty = np.flatnonzero(np.bincount(codes, weights) == 0)
    if empty.size:
        without = listing(names[k] for k in empty)
        fail(
            f"sample_weight is zero for all trials of {without}",
            why="A domain without weight has no statistic",
            fix="leave its trials out",
        )
    return weights


def _target_names(
    n_trials: int, subjects: ArrayLike | None, sessions: ArrayLike | None
) -> list[Domain]:
    if subjects is None and sessions is None:
        return [TARGET] * n_trials
    return domain_names(n_trials, subjects, sessions)


def _names_or_last(
    n_trials: int,
    subjects: ArrayLike | None,
    sessions: ArrayLike | None,
    last: Domain | None,
) -> list[Domain]:
    """Return the domains of trials; without names, the one adapted last."""
    if subjects is None and sessions is None and last is not None:
        return [last] * n_trials
    return domain_names(n_trials, subjects, sessions)


def _refuse_single(names: tuple[Domain, ...], counts: NDArray, action: str) -> None:
    single = [str(n) for n, count in zip(names, counts, strict=True) if count < 2]
    if single:
        fail(
            f"{action} needs at least 2 trials of a domain; {listing(single)} has 1",
            why="The statistic of one trial would map that trial to the identity",
            fix="give more trials, or use partial_adapt, which starts from the sources",
        )
