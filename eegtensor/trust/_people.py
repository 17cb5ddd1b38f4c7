"""Evidence of people that a decoder was not fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, StratifiedKFold

from eegtensor._check import check_count, check_lengths, fail


def domain_columns(
    n_trials: int, subjects: ArrayLike | None, sessions: ArrayLike | None
) -> dict[str, NDArray]:
    """Return those domains that were given, one name a trial."""
    given = {"subjects": subjects, "sessions": sessions}
    columns = {
        name: np.full(n_trials, v) if isinstance(v, str) else np.asarray(v)
        for name, v in given.items()
        if v is not None
    }
    check_lengths(n_trials, **columns)
    return columns


def part_of(columns: dict[str, NDArray], index: NDArray) -> dict[str, Any]:
    """Return the domains of some trials."""
    return {name: column[index] for name, column in columns.items()}


def person_folds(
    n_folds: int, X: NDArray, y: NDArray, columns: dict[str, NDArray]
) -> list[tuple[NDArray, NDArray]]:
    """Return trials to fit and to hold out: whole people, sittings of one, or trials.

    Raises
    ------
    EEGTensorError
        If there is no way to hold trials out.
    """
    check_count("n_folds", n_folds, least=2)
    for groups in columns.values():
        count = len(np.unique(groups))
        if count > 1:
            folds = GroupKFold(min(n_folds, count)).split(X, y, groups)
            # A decoder that never saw a class says nothing about it.
            whole = [
                (a, b) for a, b in folds if len(np.unique(y[a])) == len(np.unique(y))
            ]
            if whole:
                return whole
    least = int(np.unique(y, return_counts=True)[1].min())
    if least < 2:
        fail("A class has a single trial", why="Nothing is left when it is held out")
    # Trials come person by person: unshuffled, some people would be held out whole.
    folds = StratifiedKFold(min(n_folds, least), shuffle=True, random_state=0)
    return list(folds.split(X, y))


def held_out(
    estimator: Any,
    X: NDArray,
    y: NDArray,
    columns: dict[str, NDArray],
    n_folds: int,
) -> Iterator[tuple[Any, NDArray, NDArray]]:
    """Yield decoders fitted without some people, trials fitted, trials held out.

    A decoder that can adapt has adapted to the people held out, without labels.
    """
    for train, test in person_folds(n_folds, X, y, columns):
        model = clone(estimator)
        fitted(model, X[train], y[train], part_of(columns, train))
        if getattr(model, "can_adapt", False) and len(test) > 1:
            model.adapt(X[test], **part_of(columns, test))
        yield model, train, test


def fitted(model: Any, X: NDArray, y: NDArray, columns: dict[str, NDArray]) -> Any:
    """Fit a model with the domains, where it takes them."""
    # scikit-learn's own estimators know no domains.
    from sklearn.utils.validation import has_fit_parameter

    given = {k: v for k, v in columns.items() if has_fit_parameter(model, k)}
    return model.fit(X, y, **given)
