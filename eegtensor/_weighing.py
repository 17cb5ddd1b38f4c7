"""What held-out source people say of candidate decoders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.model_selection import GroupKFold, StratifiedKFold

from eegtensor._check import fail
from eegtensor.pipeline import Pipeline
from eegtensor.transfer._heads import own_logits

# A candidate is left out when it is worse than the best by more than so many
# standard errors over people.
_WORSE = 2.0


class Weighing:
    """Logits of held-out trials, and what they say of the candidates.

    Parameters
    ----------
    codes : ndarray of int, shape (n_trials,)
    owner : ndarray, shape (n_trials,)
        Whose trials these are; people count alike, however many trials they have.
    folds : list of (train, test)
    """

    def __init__(
        self, codes: NDArray, owner: NDArray, folds: list[tuple[NDArray, NDArray]]
    ) -> None:
        self.test = np.concatenate([test for _, test in folds])
        self.codes = codes[self.test]
        self.owner = np.unique(owner[self.test], return_inverse=True)[1]
        self.logits: dict[str, NDArray] = {}
        self.scores: dict[str, NDArray] = {}
        cell = self.owner * (int(codes.max()) + 1) + self.codes
        size = np.bincount(cell)
        self.weights = 1.0 / size[cell]
        self.n_cells = np.bincount(
            np.unique(cell) // (int(codes.max()) + 1), minlength=self.owner.max() + 1
        )

    def add(self, name: str, logits: list[NDArray]) -> None:
        """Take the logits of a candidate, fold by fold."""
        z = np.concatenate(logits)
        self.logits[name] = z
        hit = self.weights * (z.argmax(axis=1) == self.codes)
        # Balanced accuracy of each person over the classes that person has.
        self.scores[name] = np.bincount(self.owner, hit) / self.n_cells

    def members(self, best: str) -> tuple[str, ...]:
        """Return the candidates that are not clearly worse than the best."""
        kept = []
        for name, score in self.scores.items():
            worse = self.scores[best] - score
            n = len(worse)
            error = worse.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
            if name == best or worse.mean() <= _WORSE * error:
                kept.append(name)
        return tuple(kept)

    def temperature(self, name: str) -> float:
        """Return the factor of logits at which they fit the held-out trials best."""
        z, rows = self.logits[name], np.arange(len(self.codes))
        spread = float(np.abs(z - z.mean(axis=1, keepdims=True)).mean()) or 1.0

        def loss(log_factor: float) -> float:
            log_p = log_softmax(np.exp(log_factor) / spread * z, axis=1)
            return float(-(self.weights * log_p[rows, self.codes]).sum())

        found = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded")
        return float(np.exp(found.x) / spread)


def logits_among(
    decoder: Pipeline, X: NDArray, classes: NDArray, **domains: Any
) -> NDArray:
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
