"""Scores of logits: highest probability and energy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from eegtensor._check import check_number, fail
from eegtensor.trust.scorers.base import Scorer
from eegtensor.trust.scorers.evidence import Evidence


class MaximumProbability(Scorer):
    """The logarithm of the highest class probability (MSP): the baseline.

    References
    ----------
    D. Hendrycks and K. Gimpel, "A baseline for detecting misclassified and
    out-of-distribution examples in neural networks", ICLR 2017.
    """

    needs: ClassVar[tuple[str, ...]] = ("logits",)

    def _fit(self, found: Evidence, y: NDArray | None) -> None:
        pass

    def _score(self, found: Evidence) -> NDArray:
        # In logarithms: probabilities next to one would be equal.
        top: NDArray = log_softmax(found.need("logits"), axis=1).max(axis=1)
        return top


class Energy(Scorer):
    """T logsumexp(z / T), the negative free energy of the logits.

    Parameters
    ----------
    temperature : float

    References
    ----------
    W. Liu et al., "Energy-based out-of-distribution detection", NeurIPS 2020.
    """

    needs: ClassVar[tuple[str, ...]] = ("logits",)

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def _fit(self, found: Evidence, y: NDArray | None) -> None:
        check_number("temperature", self.temperature, above=0.0)
        z = found.need("logits")
        if np.abs(logsumexp(z, axis=1)).max() < 1e-9:
            fail(
                "The logits are logarithms of probabilities",
                why="Their energy is 0 for every trial: the decoder gives "
                "probabilities, no decision values",
                fix="choose scorer='msp', or a scorer of features",
            )

    def _score(self, found: Evidence) -> NDArray:
        T = self.temperature
        return T * np.asarray(logsumexp(found.need("logits") / T, axis=1))
