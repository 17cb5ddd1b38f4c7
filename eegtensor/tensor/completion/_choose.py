"""Learn from hidden cells how far each method may be trusted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

# Half-width of a 90 % interval of a normal variable.
Z90 = 1.6448536269514722


class Choice(NamedTuple):
    """What hidden cells of one kind say.

    Attributes
    ----------
    weights : ndarray, shape (n_methods,)
        Of the methods in the estimate; their sum is at most one.
    error : float
        NRMSE of the weighted estimate on the hidden cells; NaN if none.
    widen : float
        Factor on the standard deviation that makes the 90 % interval cover 90 %.
    """

    weights: NDArray[np.float64]
    error: float
    widen: float


def untried(n_methods: int) -> Choice:
    """Return the choice where no cell could be hidden: the first method alone."""
    return Choice(np.eye(n_methods)[0], np.nan, 1.0)


def choose(
    truth: NDArray[np.float64],
    estimates: NDArray[np.float64],
    std: NDArray[np.float64],
    events: float,
) -> Choice:
    """Return weights of the methods, the expected error and the interval's factor.

    Parameters
    ----------
    truth : ndarray, shape (n_hidden,)
    estimates : ndarray, shape (n_methods, n_hidden)
        The first is the one that others must beat.
    std : ndarray, shape (n_hidden,)
    events : float
        How many of the hidden cells are about independent.

    Notes
    -----
    w minimises ||x - e_1 - sum_k w_k (e_k - e_1)||^2 plus 6 / events of the
    energy of every difference, w >= 0: few hidden events move little weight. A
    sum above one is scaled back to one.
    """
    n_methods = len(estimates)
    weights = np.zeros(n_methods)
    weights[0] = 1.0
    if not len(truth):
        return untried(n_methods)
    residual = truth - estimates[0]
    if n_methods > 1:
        others = (estimates[1:] - estimates[0]).T
        ridge = np.sqrt(6.0 / max(events, 1.0) * (others**2).sum(axis=0))
        right = np.concatenate([residual, np.zeros(n_methods - 1)])
        found = nnls(np.vstack([others, np.diag(ridge)]), right)[0]
        found /= max(1.0, found.sum())
        weights[0], weights[1:] = 1.0 - found.sum(), found
    mixed = weights @ estimates
    power, against = float(mixed @ mixed), float(mixed @ truth)
    # Never worse than zero: an estimate that overshoots is drawn back.
    if power > 0:
        weights *= min(1.0, max(0.0, (against + power * 8 / max(events, 8)) / power))
    mixed = weights @ estimates
    scale = float(np.sqrt(truth @ truth))
    error = float(np.linalg.norm(truth - mixed)) / scale if scale > 0 else np.nan
    return Choice(weights, error, widening(truth - mixed, std))


def widening(errors: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    """Return the factor on std that makes X +- 1.645 std cover 90 % of errors."""
    ratio = np.abs(errors) / np.maximum(std, np.finfo(float).tiny)
    return float(np.quantile(ratio, 0.9)) / Z90 if len(ratio) else 1.0
