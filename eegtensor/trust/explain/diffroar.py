"""Whether an attribution highlights what classifiers need: remove it and retrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score

from eegtensor._check import (
    check_count,
    check_lengths,
    check_option,
    check_signals,
    fail,
)

LEVELS = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)


class DiffROAR(NamedTuple):
    """Accuracies with the best and the worst units kept, and their difference.

    Attributes
    ----------
    levels : ndarray, shape (n_levels,)
        Percent of the units kept.
    top, bottom : ndarray, shape (n_levels,)
        Balanced accuracy on masked test trials after retraining.
    difference : ndarray, shape (n_levels,)
        top - bottom: above 0 the attribution highlights what tells the classes.
    mean : float
        Of the differences.
    """

    levels: NDArray
    top: NDArray
    bottom: NDArray
    difference: NDArray
    mean: float


def units(A: NDArray, block: int) -> NDArray:
    """Return attributions of units, one channel in `block` samples: sums of |A|.

    Parameters
    ----------
    A : ndarray, shape (n_trials, n_channels, n_times)
    block : int
        The last unit of a channel may be shorter.

    Returns
    -------
    U : ndarray, shape (n_trials, n_channels, n_blocks)
    """
    starts = np.arange(0, A.shape[2], block)
    summed: NDArray = np.add.reduceat(np.abs(A), starts, axis=2)
    return summed


def mask_units(
    X: NDArray,
    A: NDArray,
    level: float,
    *,
    keep: str,
    block: int,
    fill: ArrayLike,
    rng: np.random.Generator,
) -> NDArray:
    """Return trials of which only some units are left.

    Parameters
    ----------
    X, A : ndarray, shape (n_trials, n_channels, n_times)
    level : float
        Percent of each trial's units that are kept.
    keep : "top" | "bottom"
    block : int
        Samples of a unit.
    fill : array-like, broadcastable to (n_channels, n_times)
        What stands in for the others.
    rng : numpy.random.Generator
        Breaks ties.
    """
    check_option("keep", keep, ("top", "bottom"))
    U = units(A, block).reshape(len(X), -1)
    order = np.lexsort((rng.random(U.shape), U if keep == "bottom" else -U))
    kept = np.zeros(U.shape, dtype=bool)
    count = max(1, round(U.shape[1] * level / 100))
    np.put_along_axis(kept, order[:, :count], True, axis=1)
    wide = np.repeat(kept.reshape(len(X), X.shape[1], -1), block, axis=2)
    return np.where(wide[:, :, : X.shape[2]], X, np.asarray(fill))


def diff_roar(
    estimator: Any,
    X: NDArray,
    y: ArrayLike,
    A: NDArray,
    X_test: NDArray,
    y_test: ArrayLike,
    A_test: NDArray,
    *,
    levels: Sequence[float] = LEVELS,
    block: int = 1,
    fill: str = "mean",
    domains: Mapping[str, ArrayLike] | None = None,
    random_state: int | np.random.Generator = 0,
) -> DiffROAR:
    """Return how much more the units that an attribution ranks first tell.

    At each level the classifier is trained from scratch twice: on trials with the
    units of largest attribution left, and on those with the smallest; each is tested
    on test trials masked alike. An attribution that means nothing gives 0.

    Parameters
    ----------
    estimator : classifier
        Of trials (n_trials, n_channels, n_times); it is cloned.
    X, X_test : ndarray, shape (n_trials, n_channels, n_times)
    y, y_test : array-like, shape (n_trials,)
    A, A_test : ndarray, of the shape of X
        Attributions, such as gradients; their absolute values count.
    levels : sequence of float
        Percent of units kept.
    block : int
        Samples of a unit; 100 ms is the recommended unit of EEG.
    fill : "mean" | "zero"
        What stands for a removed unit: the channel's mean of training trials.
    domains : dict | None
        Metadata of fit, such as {"subjects": ...}.
    random_state : int | numpy.random.Generator
        Ties.

    Returns
    -------
    DiffROAR

    Raises
    ------
    EEGTensorError
        If shapes do not fit, or a level is not within 0 and 100.

    References
    ----------
    H. Shah, P. Jain and P. Netrapalli, "Do input gradients highlight discriminative
    features?", NeurIPS 2021.
    """
    check_option("fill", fill, ("mean", "zero"))
    block = check_count("block", block)
    X, X_test = check_signals(X), check_signals(X_test, name="X_test")
    for name, a, given in (("A", A, X), ("A_test", A_test, X_test)):
        if np.shape(a) != given.shape:
            fail(f"{name} has shape {np.shape(a)}", fix=f"give shape {given.shape}")
    check_lengths(len(X), y=y)
    check_lengths(len(X_test), y_test=y_test)
    percent = np.asarray(levels, dtype=np.float64)
    if not len(percent) or (percent <= 0).any() or (percent >= 100).any():
        fail(f"levels={percent.tolist()}", fix="give percentages between 0 and 100")
    rng = np.random.default_rng(random_state)
    stand_in = X.mean(axis=(0, 2))[:, None] if fill == "mean" else np.zeros((1, 1))
    scores = np.empty((2, len(percent)))
    for i, keep in enumerate(("top", "bottom")):
        for j, level in enumerate(percent):
            options: dict[str, Any] = {
                "keep": keep,
                "block": block,
                "fill": stand_in,
                "rng": rng,
            }
            train = mask_units(X, np.asarray(A), level, **options)
            test = mask_units(X_test, np.asarray(A_test), level, **options)
            model = clone(estimator).fit(train, y, **(domains or {}))
            scores[i, j] = balanced_accuracy_score(y_test, model.predict(test))
    difference = scores[0] - scores[1]
    return DiffROAR(percent, scores[0], scores[1], difference, float(difference.mean()))


def null_mass(A: NDArray, null: NDArray) -> NDArray:
    """Return each trial's share of attribution where there is nothing to see.

    Block EEG: a task trial fills one half of the time and noise the other; what an
    attribution puts in the noise is wrong for sure.

    Parameters
    ----------
    A : ndarray, shape (n_trials, n_channels, n_times)
    null : ndarray of bool, shape (n_trials, n_times)

    Returns
    -------
    share : ndarray, shape (n_trials,)
    """
    mass = np.abs(A).sum(axis=1)
    total = mass.sum(axis=1)
    found: NDArray = (mass * null).sum(axis=1) / np.where(total > 0, total, 1.0)
    return found
