"""Single samples that tell the class: shortcuts in a data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.model_selection import GroupKFold, StratifiedKFold

from eegtensor._check import check_count, check_number, check_signals, fail
from eegtensor.features._base import class_codes

# Numbers of a block of positions times trials.
_BLOCK = 1 << 20
# Accuracies of permuted labels from which the spread of chance is taken.
_DRAWS = 4096


class Shortcut(NamedTuple):
    """One channel at one sample that tells the class by itself.

    Attributes
    ----------
    channel, sample : int
    accuracy : float
        Of a decision stump on trials left out.
    sigmas : float
        Above chance, in standard deviations of accuracies by chance.
    """

    channel: int
    sample: int
    accuracy: float
    sigmas: float


class ShortcutAudit(NamedTuple):
    """What single samples tell about the class.

    Attributes
    ----------
    shortcuts : tuple of Shortcut
        Positions more than `sigmas` above chance, best first.
    accuracy : ndarray, shape (n_channels, n_times)
        Of a stump at each position, on trials left out.
    chance : float
        Share of the most frequent class.
    spread : float
        Standard deviation of accuracies by chance, from permuted labels.
    p_value : float
        That white noise has any position as good as the best, by Bonferroni.
    """

    shortcuts: tuple[Shortcut, ...]
    accuracy: NDArray
    chance: float
    spread: float
    p_value: float


def stump_accuracy(
    F: NDArray, codes: NDArray, folds: list[tuple[NDArray, NDArray]], n_classes: int
) -> NDArray:
    """Return each feature's accuracy of a decision stump on trials left out.

    The stump is the threshold, and the class on each side of it, of the most right
    answers on the training trials.

    Parameters
    ----------
    F : ndarray, shape (n_trials, n_features)
    codes : ndarray of int, shape (n_trials,)
    folds : list of (train, test)
    n_classes : int
    """
    # Positions are rows: sorted values and counts lie side by side in memory.
    V = np.ascontiguousarray(F.T)
    right = np.zeros(len(V))
    each = np.arange(len(V))
    for train, test in folds:
        order = np.argsort(V[:, train], axis=1)
        values = np.take_along_axis(V[:, train], order, axis=1)
        own = codes[train][order]
        most_below = np.zeros(own.shape, dtype=np.int32)
        most_above = np.zeros_like(most_below)
        low, high = np.zeros_like(most_below), np.zeros_like(most_below)
        for k in range(n_classes):
            below = np.cumsum(own == k, axis=1, dtype=np.int32)
            above = below[:, -1:] - below
            low, high = (
                np.where(below > most_below, k, low),
                np.where(above > most_above, k, high),
            )
            np.maximum(most_below, below, out=most_below)
            np.maximum(most_above, above, out=most_above)
        answers = most_below + most_above
        # No threshold lies between equal values.
        answers[:, :-1][values[:, 1:] <= values[:, :-1]] = -1
        at = answers.argmax(axis=1)
        last = at == values.shape[1] - 1
        threshold = 0.5 * (values[each, at] + values[each, np.where(last, at, at + 1)])
        under = low[each, at]
        # The threshold past the last value: one class for all.
        over = np.where(last, under, high[each, at])
        said = np.where(V[:, test] <= threshold[:, None], under[:, None], over[:, None])
        right += (said == codes[test]).sum(axis=1)
    found: NDArray = right / sum(len(test) for _, test in folds)
    return found


def chance_spread(
    F: NDArray,
    codes: NDArray,
    folds: list[tuple[NDArray, NDArray]],
    n_classes: int,
    rng: np.random.Generator,
) -> float:
    """Return the standard deviation of a stump's accuracy where labels mean nothing.

    Labels are permuted within the trials of each fold, which keeps its classes.
    """
    places = rng.permutation(F.shape[1])[:_DRAWS]
    found = []
    for _ in range(max(1, min(200, _DRAWS // len(places)))):
        mixed = codes.copy()
        for _, test in folds:
            mixed[test] = rng.permutation(codes[test])
        found.append(stump_accuracy(F[:, places], mixed, folds, n_classes))
    return float(np.concatenate(found).std())


def audit_shortcuts(
    X: NDArray,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    n_folds: int = 5,
    sigmas: float = 5.0,
    random_state: int | None = 0,
) -> ShortcutAudit:
    """Return the (channel, sample) pairs that alone tell the class.

    A stimulus artefact, a trigger that bleeds into a channel, an offset that goes
    with the class: a decoder that finds one needs no brain. Every position gets a
    decision stump under cross-validation; those more than `sigmas` standard
    deviations above chance are reported. It is one-pixel shortcuts turned round:
    nothing is planted, they are looked for. An evoked response may be found too, at
    many neighbouring samples; a shortcut stands alone or lasts for the whole trial.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
        Any unit.
    y : array-like, shape (n_trials,)
    groups : array-like, shape (n_trials,) | None
        People, say: folds then leave whole groups out.
    n_folds : int
    sigmas : float
        5: white noise at 32 000 positions gave no alarm in 40 data sets.
    random_state : int | None
        Of the folds.

    Returns
    -------
    ShortcutAudit

    Notes
    -----
    The deviation is that of permuted labels. Stumps of different folds see the same
    chance association, so that cross-validated accuracies spread 1.24 times as far
    as coins do.

    Raises
    ------
    EEGTensorError
        If a class has fewer trials than folds, or there are too few groups.

    References
    ----------
    S. Wu, S. Chen, C. Xie and X. Huang, "One-pixel shortcut: on the learning
    preference of deep neural networks", ICLR 2023.
    """
    X = check_signals(X)
    check_number("sigmas", sigmas, above=0.0)
    n_folds = check_count("n_folds", n_folds, least=2)
    classes, codes = class_codes(y, len(X), "A shortcut audit", floats=True)
    counts = np.bincount(codes)
    if groups is None:
        if counts.min() < n_folds:
            fail(
                f"The class {classes[counts.argmin()]!r} has {counts.min()} trials for "
                f"{n_folds} folds",
                fix="give more trials, or fewer folds",
            )
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=random_state)
        folds = list(splitter.split(codes, codes))
    else:
        n_groups = len(np.unique(np.asarray(groups)))
        if n_groups < 2:
            fail("There is one group", fix="give at least two, or groups=None")
        folds = list(GroupKFold(min(n_folds, n_groups)).split(codes, codes, groups))
    n, n_channels, n_times = X.shape
    F = X.reshape(n, -1)
    step = max(1, _BLOCK // n)
    accuracy = np.concatenate(
        [
            stump_accuracy(F[:, at : at + step], codes, folds, len(classes))
            for at in range(0, F.shape[1], step)
        ]
    )
    chance = float(counts.max() / n)
    rng = np.random.default_rng(random_state)
    spread = chance_spread(F, codes, folds, len(classes), rng)
    # Constant samples have no spread; coins have the least that chance can have.
    spread = max(spread, float(np.sqrt(chance * (1 - chance) / n)))
    z = (accuracy - chance) / spread
    found = sorted(np.flatnonzero(z > sigmas), key=lambda i: -accuracy[i])
    shortcuts = tuple(
        Shortcut(int(i // n_times), int(i % n_times), float(accuracy[i]), float(z[i]))
        for i in found
    )
    p = min(1.0, float(norm.sf(z.max())) * F.shape[1])
    accuracy = accuracy.reshape(n_channels, n_times)
    return ShortcutAudit(shortcuts, accuracy, chance, spread, p)
