"""Weights of candidate decoders, learned from held-out source people."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from sklearn.model_selection import GroupKFold, StratifiedKFold

from eegtensor._check import fail
from eegtensor.transfer._heads import own_logits

# Pull towards the starting weights, over the number of people: with few of them
# what the weights could gain is less than what they would take from chance.
_RIDGE = 0.1


class HeldOut:
    """Trials of people held out, every class of every person counting alike.

    Parameters
    ----------
    codes : ndarray of int, shape (n_trials,)
        Classes.
    owner : ndarray, shape (n_trials,)
        Whose trials these are.

    Attributes
    ----------
    weights : ndarray, shape (n_trials,)
        Sum to one.
    """

    def __init__(self, codes: NDArray, owner: NDArray) -> None:
        self.codes = codes
        self.people, self.owner = np.unique(owner, return_inverse=True)
        n_classes = int(codes.max()) + 1
        cell = self.owner * n_classes + codes
        size = np.bincount(cell)
        held = np.bincount(np.unique(cell) // n_classes, minlength=len(self.people))
        # Of a person who lacks a class the others count for more.
        self.weights = 1.0 / (size[cell] * held[self.owner] * len(self.people))

    def accuracy(self, log_p: NDArray) -> NDArray:
        """Return the balanced accuracy of each person, (n_people,)."""
        hit = self.weights * (log_p.argmax(axis=1) == self.codes)
        return np.bincount(self.owner, hit) * len(self.people)

    def losses(self, log_p: NDArray) -> NDArray:
        """Return the mean negative log-probability of each person, (n_people,)."""
        right = log_p[np.arange(len(self.codes)), self.codes]
        return np.bincount(self.owner, -self.weights * right) * len(self.people)

    def temperature(self, z: NDArray) -> float:
        """Return the factor of logits (n_trials, n_classes) of the least loss."""
        spread = float(np.abs(z - z.mean(axis=1, keepdims=True)).mean()) or 1.0

        def loss(log_factor: float) -> float:
            log_p = log_softmax(np.exp(log_factor) / spread * z, axis=1)
            return float(self.losses(log_p).mean())

        found = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded")
        return float(np.exp(found.x) / spread)

    def weigh(
        self, columns: NDArray, start: NDArray, rows: NDArray | None = None
    ) -> NDArray:
        """Return non-negative weights of log-probabilities of the least loss.

        Parameters
        ----------
        columns : ndarray, shape (n_columns, n_trials, n_classes)
        start : ndarray, shape (n_columns,)
            Towards which the weights are drawn.
        rows : ndarray of bool, shape (n_trials,) | None
            Trials that count; None: all.
        """
        keep = np.ones(len(self.codes), bool) if rows is None else rows
        columns, codes = columns[:, keep], self.codes[keep]
        weights = self.weights[keep] / self.weights[keep].sum()
        ridge = _RIDGE / len(np.unique(self.owner[keep]))
        right = columns[:, np.arange(len(codes)), codes]

        def loss(b: NDArray) -> tuple[float, NDArray]:
            log_p = mixed(b, columns)
            expected = (np.exp(log_p) * columns).sum(axis=2)
            slope = (expected - right) @ weights + 2 * ridge * (b - start)
            value = -(weights * log_p[np.arange(len(codes)), codes]).sum()
            return float(value + ridge * ((b - start) ** 2).sum()), slope

        bounds = [(0.0, None)] * len(start)
        found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
        best: NDArray = found.x
        return best

    def clearly_better(self, new: NDArray, old: NDArray) -> bool:
        """Return whether losses of people (n_people,) fell by more than chance."""
        gain = old - new
        if len(gain) < 2:
            return False
        return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))


def mixed(weights: NDArray, columns: NDArray) -> NDArray:
    """Return the normalised weighted sum of log-probabilities.

    Parameters
    ----------
    weights : ndarray, shape (n_columns,)
    columns : ndarray, shape (n_columns, n_trials, n_classes)
    """
    log_p: NDArray = log_softmax(np.tensordot(weights, columns, axes=1), axis=1)
    return log_p


def logits_among(decoder: Any, X: NDArray, classes: NDArray, **domains: Any) -> NDArray:
    """Return logits of all classes; a fold may have lacked one, which is the least."""
    z = own_logits(decoder, X, **domains)
    out = np.full((len(X), len(classes)), z.min() - 1.0)
    out[:, np.searchsorted(classes, decoder.classes_)] = z
    return out


def folds_of(
    n_folds: int, X: NDArray, y: NDArray, domains: dict[str, NDArray]
) -> list[tuple[NDArray, NDArray]]:
    """Return training and held-out trials: by people, sessions, or at random."""
    for groups in (domains["subjects"], domains["sessions"]):
        n_groups = len(np.unique(groups))
        # People before sessions: the choice is for people never seen.
        if n_groups > 1:
            folds = GroupKFold(min(n_folds, n_groups)).split(X, y, groups)
            whole = [(a, b) for a, b in folds if len(np.unique(y[a])) > 1]
            # None where people are the classes (patients, controls).
            if whole:
                return whole
    smallest = int(np.unique(y, return_counts=True)[1].min())
    if smallest < 2:
        fail("A class has one trial", fix="give more labelled trials")
    return list(StratifiedKFold(min(n_folds, smallest)).split(X, y))
