"""How well a score tells familiar trials from others, with intervals over people."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from eegtensor._check import RandomState, as_generator, check_lengths, fail

Measure = Callable[[NDArray, NDArray], float]


class Interval(NamedTuple):
    """A value and the bootstrap interval around it."""

    value: float
    low: float
    high: float


def auroc(familiar: ArrayLike, novel: ArrayLike) -> float:
    """Return the chance that a familiar trial scores above a novel one.

    Parameters
    ----------
    familiar, novel : array-like, shape (n_familiar,), (n_novel,)
        Scores; ties count by half.
    """
    a, b = _checked(familiar), _checked(novel)
    # Mann and Whitney's statistic; scikit-learn's would check each draw of a bootstrap.
    ranks = rankdata(np.r_[a, b])[: len(a)].sum()
    return float((ranks - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def fpr_at_tpr(familiar: ArrayLike, novel: ArrayLike, tpr: float = 0.95) -> float:
    """Return the share of novel trials kept where a share of familiar ones is kept.

    FPR95 with the default: lower is better, and a score that knows nothing has .95.

    Parameters
    ----------
    familiar, novel : array-like, shape (n_familiar,), (n_novel,)
    tpr : float
        Share of familiar trials that are kept, in (0, 1].
    """
    a, b = np.sort(_checked(familiar)), _checked(novel)
    if not 0.0 < tpr <= 1.0:
        fail(f"tpr={tpr!r}", fix="choose a share in (0, 1]")
    # The highest threshold that keeps at least so many.
    threshold = a[len(a) - int(np.ceil(tpr * len(a) - 1e-9))]
    return float(np.mean(b >= threshold))


def over_people(
    measure: Measure,
    familiar: ArrayLike,
    novel: ArrayLike,
    *,
    people: ArrayLike,
    novel_people: ArrayLike,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: RandomState = 0,
) -> Interval:
    """Return a measure of all trials, with a bootstrap interval over people.

    People are drawn with all their trials, familiar and novel.

    Parameters
    ----------
    measure : callable
        Of familiar and novel scores: `auroc` or `fpr_at_tpr`.
    familiar, novel : array-like, shape (n_familiar,), (n_novel,)
    people, novel_people : array-like, shape (n_familiar,), (n_novel,)
        Whose trials they are.
    confidence : float
    n_resamples : int
    random_state : int | Generator | None

    Returns
    -------
    Interval
        Percentiles; NaN for fewer than two people. With few people they are too
        narrow.
    """
    a, b = _checked(familiar), _checked(novel)
    owner, other = np.asarray(people), np.asarray(novel_people)
    check_lengths(len(a), people=owner)
    check_lengths(len(b), novel_people=other)
    value = measure(a, b)
    names = np.unique(np.r_[owner, other])
    if len(names) < 2:
        return Interval(value, float("nan"), float("nan"))
    rows = [(a[owner == name], b[other == name]) for name in names]
    rng = as_generator(random_state)
    drawn = []
    for _ in range(n_resamples):
        part = [rows[i] for i in rng.integers(0, len(rows), len(rows))]
        one, two = (np.concatenate(side) for side in zip(*part, strict=True))
        # A draw may hold no novel trial, where few people have any.
        if len(one) and len(two):
            drawn.append(measure(one, two))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))


def _checked(scores: ArrayLike) -> NDArray:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or not len(array) or np.isnan(array).any():
        fail(
            f"Scores have shape {array.shape}, or hold NaN",
            fix="give one number for each of one trial or more",
        )
    return array
