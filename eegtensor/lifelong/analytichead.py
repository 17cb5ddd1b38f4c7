"""A linear classifier that merges and forgets exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from eegtensor._check import check_count, check_number, check_option, fail, listing
from eegtensor.lifelong.analytic import downdate, solve, update
from eegtensor.lifelong.ledger import Ledger
from eegtensor.transfer._heads import FeatureClassifier

# Rounding of updates adds up: after so many the inverse is computed anew.
_REFACTOR = 100


class AnalyticHead(FeatureClassifier):
    """Ridge regression onto classes, exact under merging, updating and forgetting.

    Of features H and one-hot labels Y it keeps ``G = H'H`` and ``Q = H'Y`` and solves
    ``W = (G + ridge I)^-1 Q``. So training site by site or trial by trial is pooled
    training, in any order, and forgetting is training without, to rounding. For
    tangent vectors, or for features of a frozen network (`NetworkFeatures`).

    G holds second moments of the trials, and of a single trial all but its sign: sums
    are personal data as trials are.

    Parameters
    ----------
    ridge : float
        In squared units of the features.
    n_random : int
        Above 0, features are ``max(R h, 0)`` with so many drawn rows R: more of them
        than features. Sites must share `random_state`.
    intercept : bool
        Whether a constant feature is added; the ridge holds for it, too.
    people : bool
        Whether sums of each of `subjects` are kept, so that someone can be forgotten
        by name, without trials.
    solver : "sums" | "recursive"
        How `partial_fit` and `forget` go on: solve anew from the sums, or update the
        inverse by the trials given, faster for few trials and thousands of features.
        The latter is computed anew after 100 updates, or where digits would be lost.
    random_state : int
        Of R.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    coef_ : ndarray, shape (n_features, n_classes)
        Of the features after `n_random` and `intercept`.
    ledger_ : Ledger
        The sums.

    References
    ----------
    R. He et al., "AFL: a single-round analytic approach for federated learning with
    pre-trained models", CVPR 2025, and AFCL (merging); H. Zhuang et al., "ACIL",
    NeurIPS 2022 (updating).

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.eye(4)[[0, 1, 0, 1]], np.array(["left", "right", "left", "right"])
    >>> both = AnalyticHead().fit(X, y)
    >>> first = AnalyticHead().fit(X[:2], y[:2])
    >>> second = AnalyticHead().fit(X[2:], y[2:])
    >>> bool(np.allclose(first.merge(second).coef_, both.coef_))
    True
    """

    __metadata_request__fit: ClassVar[dict[str, bool]] = {"subjects": True}
    __metadata_request__partial_fit: ClassVar[dict[str, bool]] = {"subjects": True}

    def __init__(
        self,
        ridge: float = 1.0,
        n_random: int = 0,
        intercept: bool = True,
        people: bool = False,
        solver: str = "sums",
        random_state: int = 0,
    ) -> None:
        self.ridge = ridge
        self.n_random = n_random
        self.intercept = intercept
        self.people = people
        self.solver = solver
        self.random_state = random_state

    def fit(
        self, X: NDArray, y: ArrayLike, *, subjects: ArrayLike | None = None
    ) -> Self:
        """Fit to trials, forgetting all earlier ones.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)
            Two classes or more; a site with one calls `partial_fit`.
        subjects : array-like of str, shape (n_trials,) | None
            Wanted with `people`.
        """
        X, codes = self._checked(X, y)
        self.ledger_ = self._new_ledger(X)
        self.ledger_.add(self._hidden(X), self.classes_[codes], subjects)
        return self._solve()

    def partial_fit(
        self,
        X: NDArray,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
    ) -> Self:
        """Learn further trials; the result is that of all trials at once.

        Classes never met before are added.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)
        classes : array-like | None
            Further classes, whether trials of them are there or not.
        subjects : array-like of str, shape (n_trials,) | None
        """
        new = not hasattr(self, "ledger_")
        X, y = validate_data(self, X, y, dtype=np.float64, reset=new)
        y = np.asarray(y)
        check_classification_targets(y)
        if new:
            self.ledger_ = self._new_ledger(X)
        n_classes, H = len(self.ledger_.classes), self._hidden(X)
        if classes is not None:
            self.ledger_.add_classes(np.asarray(classes))
        self.ledger_.add(H, y, subjects)
        grown = len(self.ledger_.classes) > n_classes
        return self._solve() if grown else self._moved(update, H, y)

    def merge(self, other: AnalyticHead) -> Self:
        """Take in what another head was fitted to; the result is pooled training.

        Parameters
        ----------
        other : AnalyticHead
            Of the same features and parameters; it stays as it is.
        """
        check_is_fitted(self, "ledger_")
        check_is_fitted(other, "ledger_")
        theirs, ours = other.get_params(), self.get_params()
        same = ["ridge", "n_random", "intercept"]
        same += ["random_state"] if self.n_random else []
        differ = [name for name in same if ours[name] != theirs[name]]
        if differ or self.n_features_in_ != other.n_features_in_:
            fail(
                f"The heads differ in {listing(differ) or 'their number of features'}",
                why="Their sums are of different features",
                fix="fit both with the same parameters to the same kind of features",
            )
        self.ledger_.join(other.ledger_)
        return self._solve()

    def forget(
        self,
        X: NDArray | None = None,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
    ) -> Self:
        """Forget trials; the result is training without them.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features) | None
            Trials that were learned; None forgets people by name.
        y : array-like, shape (n_trials,) | None
        subjects : array-like of str | None
            Whose the trials are, or without trials the people to forget.

        Raises
        ------
        EEGTensorError
            If more trials are to be forgotten than were learned, nothing would be
            left, or a person is not known by name.
        """
        check_is_fitted(self, "ledger_")
        if X is None:
            self.ledger_.take_people(subjects)
            return self._solve()
        X, y = validate_data(self, X, y, dtype=np.float64, reset=False)
        y = np.asarray(y)
        H = self._hidden(X)
        self.ledger_.take(H, y, subjects)
        return self._moved(downdate, H, y)

    def _new_ledger(self, X: NDArray) -> Ledger:
        check_number("ridge", self.ridge, above=0.0)
        check_count("n_random", self.n_random, least=0)
        check_option("solver", self.solver, ("sums", "recursive"))
        width = (self.n_random or X.shape[1]) + bool(self.intercept)
        return Ledger(width, people=self.people)

    def _hidden(self, X: NDArray) -> NDArray:
        H = np.asarray(X, dtype=np.float64)
        if self.n_random:
            rng = np.random.default_rng(self.random_state)
            R = rng.standard_normal((H.shape[1], self.n_random)) / np.sqrt(H.shape[1])
            H = np.maximum(H @ R, 0.0)
        if self.intercept:
            H = np.concatenate([H, np.ones((len(H), 1))], axis=1)
        return H

    def _solve(self) -> Self:
        self.classes_ = self.ledger_.classes
        self.coef_ = solve(self.ledger_.total, self.ridge)
        self._inverse: NDArray | None = None
        self._n_updates = 0
        return self

    def _moved(self, step: Callable[..., Any], H: NDArray, y: NDArray) -> Self:
        """Move the inverse and the weights by the trials, or solve anew."""
        few = 2 * len(H) <= self.ledger_.total.gram.shape[0]
        if self.solver == "sums" or not few or self._n_updates >= _REFACTOR:
            return self._solve()
        if self._inverse is None:
            # The sums have the trials already; the inverse starts without.
            sign = 1.0 if step is update else -1.0
            C = self.ledger_.total.gram - sign * H.T @ H
            self._inverse = np.linalg.inv(C + self.ridge * np.eye(len(C)))
        Y = np.eye(len(self.classes_))[np.searchsorted(self.classes_, y)]
        found = step(self._inverse, self.coef_, H, Y)
        if found is None:
            return self._solve()
        self._inverse, self.coef_ = found
        self._n_updates += 1
        return self

    def _logits(self, X: NDArray) -> NDArray:
        return self._hidden(X) @ self.coef_
