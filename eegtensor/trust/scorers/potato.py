"""The Riemannian potato as a baseline."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_number
from eegtensor.trust.scorers.base import Scorer
from eegtensor.trust.scorers.evidence import Evidence


class RiemannianPotato(Scorer):
    """Minus the z-score of the log distance to the centre of clean covariances.

    pyriemann's `Potato`, which fits the centre and leaves outliers out in turn. It
    takes the covariances of the evidence, which are aligned where the decoder
    aligns, else OAS covariances of the trials.

    Parameters
    ----------
    threshold : float
        Z-score beyond which training trials are left out.

    References
    ----------
    A. Barachant, A. Andreev and M. Congedo, "The Riemannian potato", TOBI Workshop IV,
    2013.
    """

    needs: ClassVar[tuple[str, ...]] = ("covariances",)

    def __init__(self, threshold: float = 3.0) -> None:
        self.threshold = threshold

    def _fit(self, found: Evidence, y: NDArray | None) -> None:
        # On use: pyriemann takes a second to import.
        from pyriemann.artifact_detection import Potato

        check_number("threshold", self.threshold, above=0.0)
        self.potato_ = Potato(metric="riemann", threshold=self.threshold)
        self.potato_.fit(found.need("covariances").astype(np.float64))

    def _score(self, found: Evidence) -> NDArray:
        C = found.need("covariances").astype(np.float64)
        return -np.asarray(self.potato_.transform(C)).ravel()
