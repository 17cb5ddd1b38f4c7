"""Membership inference: can a trained decoder tell which trials it has seen?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from eegtensor._check import RandomState, as_generator, check_lengths, fail


class Membership(NamedTuple):
    """What an attacker learns of who was in the training set.

    Attributes
    ----------
    auc : float
        Probability that a member scores higher than another trial; 0.5 is nothing
        learned, and values below tell members apart, too.
    low, high : float
        Interval of 95 % by the standard error of Hanley and McNeil.
    n_members, n_others : int
    """

    auc: float
    low: float
    high: float
    n_members: int
    n_others: int


def confidences(p: ArrayLike, y: ArrayLike) -> NDArray:
    """Return log p_y - log(1 - p_y) of each trial, shape (n_trials,), float64.

    Parameters
    ----------
    p : array-like, shape (n_trials, n_classes)
        Probabilities.
    y : array-like of int, shape (n_trials,)
        Columns of the true classes.
    """
    p = np.asarray(p, dtype=np.float64)
    y = np.asarray(y)
    check_lengths(len(p), y=y)
    tiny = np.finfo(np.float64).tiny
    own = p[np.arange(len(p)), y]
    others = np.where(np.arange(p.shape[1]) == y[:, None], 0.0, p).sum(axis=1)
    # The others added up: 1 - p_y has no digits left where p_y is almost 1.
    return np.log(np.maximum(own, tiny)) - np.log(np.maximum(others, tiny))


def membership_inference(
    members: ArrayLike,
    others: ArrayLike,
    *,
    member_classes: ArrayLike | None = None,
    other_classes: ArrayLike | None = None,
    random_state: RandomState = 0,
) -> Membership:
    """Return how well confidences tell members of the training set from others.

    A one-sided likelihood attack without shadow models: a trial's score is how
    improbable its confidence is among trials known to be no members,
    ``Phi((c - mean) / deviation)`` of the trial's class. Those known are half of the
    others, drawn twice: each half calibrates the scores of the other one, and members
    get the mean of both. Without classes it is the threshold on the loss.

    Parameters
    ----------
    members, others : array-like, shape (n,) and (m,)
        Of `confidences`; the others by the same people under the same conditions, or
        what is measured is how easy people are.
    member_classes, other_classes : array-like of int | None
        Both or none.
    random_state : int | numpy.random.Generator | None
        Of the halves.

    Raises
    ------
    EEGTensorError
        If there are fewer than two trials on a side.

    References
    ----------
    N. Carlini et al., "Membership inference attacks from first principles", IEEE S&P
    2022, eq. 4 (offline attack) and section IV-A; S. Yeom et al., "Privacy risk in
    machine learning", CSF 2018 (threshold).
    """
    a, b = (np.asarray(v, dtype=np.float64) for v in (members, others))
    if len(a) < 2 or len(b) < 2:
        fail(
            f"Membership inference got {len(a)} members and {len(b)} others",
            fix="keep some trials of each person out of training",
        )
    if member_classes is None or other_classes is None:
        return _measured(a, b)
    ca, cb = np.asarray(member_classes), np.asarray(other_classes)
    check_lengths(len(a), member_classes=ca)
    check_lengths(len(b), other_classes=cb)
    order = as_generator(random_state).permutation(len(b))
    # Halves alike in classes.
    order = order[np.argsort(cb[order], kind="stable")]
    halves = np.zeros(len(b), dtype=bool)
    halves[order[::2]] = True
    scores_a, scores_b = np.zeros(len(a)), np.zeros(len(b))
    for known in (halves, ~halves):
        scores_b[~known] = _calibrated(b[~known], cb[~known], b[known], cb[known])
        scores_a += _calibrated(a, ca, b[known], cb[known]) / 2.0
    return _measured(scores_a, scores_b)


def _calibrated(c: NDArray, y: NDArray, known: NDArray, known_y: NDArray) -> NDArray:
    score = np.empty(len(c))
    for name in np.unique(y):
        same = known[known_y == name]
        # A class with hardly a trial is judged by all of them.
        same = same if len(same) > 2 else known
        deviation = max(same.std(ddof=1), 1e-12 * (1.0 + abs(same).max()))
        score[y == name] = (c[y == name] - same.mean()) / deviation
    return ndtr(score) + 1e-12 * score


def _measured(a: NDArray, b: NDArray) -> Membership:
    truth = np.r_[np.ones(len(a)), np.zeros(len(b))]
    auc = float(roc_auc_score(truth, np.r_[a, b]))
    q1, q2 = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    n, m = len(a), len(b)
    spread = auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (m - 1) * (q2 - auc**2)
    half = 1.96 * float(np.sqrt(max(spread, 0.0) / (n * m)))
    return Membership(auc, max(auc - half, 0.0), min(auc + half, 1.0), n, m)


def class_places(estimator: Any, y: ArrayLike) -> NDArray[np.int64]:
    """Return the place of each label among a classifier's classes.

    Raises
    ------
    EEGTensorError
        If a label is none of them.
    """
    known, labels = np.asarray(estimator.classes_), np.asarray(y)
    absent = set(labels.tolist()) - set(known.tolist())
    if absent:
        fail(
            f"Labels {sorted(map(str, absent))} are none of the classes "
            f"{known.tolist()}",
            fix="give trials of the classes that the classifier was fitted to",
        )
    order = np.argsort(known)
    return order[np.searchsorted(known, labels, sorter=order)].astype(np.int64)
