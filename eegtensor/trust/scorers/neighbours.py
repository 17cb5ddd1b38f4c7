"""The distance to the k-th nearest training trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from eegtensor._check import check_count
from eegtensor.trust.scorers.base import Scorer
from eegtensor.trust.scorers.evidence import Evidence
from eegtensor.trust.scorers.norm import unit


class KNN(Scorer):
    """Minus the distance to the k-th nearest training trial.

    Parameters
    ----------
    k : int
        At most the number of training trials is used.
    normalise : bool
        Whether features are divided by their length, as published. Artefacts of EEG
        lie in the length: False sees them.

    Notes
    -----
    A training trial is its own nearest neighbour: scores of the trials of `fit` are
    those of k - 1 others.

    References
    ----------
    Y. Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML
    2022.
    """

    def __init__(self, k: int = 5, normalise: bool = True) -> None:
        self.k = k
        self.normalise = normalise

    def _rows(self, found: Evidence) -> NDArray:
        h = found.need("features")
        return unit(h) if self.normalise else h

    def _fit(self, found: Evidence, y: NDArray | None) -> None:
        k = min(check_count("k", self.k), len(found))
        self.neighbours_ = NearestNeighbors(n_neighbors=k).fit(self._rows(found))

    def _score(self, found: Evidence) -> NDArray:
        distance, _ = self.neighbours_.kneighbors(self._rows(found))
        return -np.asarray(distance[:, -1])
