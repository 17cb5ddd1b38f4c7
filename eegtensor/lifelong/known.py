"""Labelled trials with their domains, and decoders called on them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Known(NamedTuple):
    """Labelled trials.

    Attributes
    ----------
    X : ndarray
    y : ndarray, shape (n_trials,)
    subjects, sessions : array-like of str, shape (n_trials,) | None
    """

    X: NDArray
    y: ArrayLike
    subjects: ArrayLike | None = None
    sessions: ArrayLike | None = None

    def pick(self, mask: NDArray[np.bool_]) -> Known:
        """Return some of the trials."""
        rows: list[Any] = [v if v is None else np.asarray(v)[mask] for v in self]
        return Known(*rows)

    @property
    def domains(self) -> dict[str, Any]:
        """The domains that are given."""
        given = {"subjects": self.subjects, "sessions": self.sessions}
        return {name: value for name, value in given.items() if value is not None}


def adapted(estimator: Any, trials: Known) -> Any:
    """Return a copy adapted to trials without their labels, where it can adapt."""
    if not getattr(estimator, "can_adapt", hasattr(estimator, "adapt")):
        return estimator
    copied = copy.deepcopy(estimator)
    copied.adapt(trials.X, **trials.domains)
    return copied


def call(estimator: Any, method: str, trials: Known) -> NDArray:
    """Return what a method makes of trials, with the domains it takes."""
    function = getattr(estimator, method)
    given = {k: v for k, v in trials.domains.items() if takes(function, k)}
    result: NDArray = function(trials.X, **given)
    return result


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name."""
    return name in inspect.signature(function).parameters
