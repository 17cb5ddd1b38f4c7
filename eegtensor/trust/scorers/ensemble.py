"""One score of several networks that were trained from different seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from eegtensor._check import fail
from eegtensor.features._base import check_fitted
from eegtensor.trust.scorers.base import standardiser
from eegtensor.trust.scorers.evidence import Evidence
from eegtensor.trust.scorers.named import make_scorer


class ModeEnsemble(BaseEstimator):
    """The score of several decoders of the same kind: modes of the loss.

    Scores of logits see the mean logits of all decoders. Others are computed for each
    and averaged, in standard deviations of training. The score of one decoder is that
    of its own; `score_each` shows how much seeds alone change it.

    Parameters
    ----------
    scorer : str
        Name in `SCORERS`, with options as in "knn(k=3)".

    Attributes
    ----------
    scorers_ : list of Scorer
        One for each decoder.

    References
    ----------
    K. Fang et al., "Revisiting deep ensemble for out-of-distribution detection: a loss
    landscape perspective", IJCV 2024.
    """

    def __init__(self, scorer: str = "energy") -> None:
        self.scorer = scorer

    def fit(self, evidences: Sequence[Evidence], y: ArrayLike | None = None) -> Self:
        """Learn from the evidence of each decoder on the same source trials.

        Parameters
        ----------
        evidences : sequence of Evidence
            One a decoder.
        y : array-like, shape (n_trials,) | None
        """
        parts = self._checked(evidences)
        self.scorers_: list[Any] = [make_scorer(self.scorer).fit(e, y) for e in parts]
        self.together_ = None
        if self.scorers_[0].needs == ("logits",):
            self.together_ = make_scorer(self.scorer).fit(_mean_logits(parts), y)
        self.scales_ = [
            standardiser(scorer.score_samples(e))
            for scorer, e in zip(self.scorers_, parts, strict=True)
        ]
        return self

    def score_each(self, evidences: Sequence[Evidence]) -> NDArray:
        """Return the score of each decoder alone, shape (n_decoders, n_trials)."""
        check_fitted(self, "scorers_")
        parts = self._checked(evidences, len(self.scorers_))
        pairs = zip(self.scorers_, parts, strict=True)
        return np.stack([scorer.score_samples(e) for scorer, e in pairs])

    def score_samples(self, evidences: Sequence[Evidence]) -> NDArray:
        """Return one number a trial, high where it is like those of `fit`."""
        check_fitted(self, "scorers_")
        if self.together_ is not None:
            parts = self._checked(evidences, len(self.scorers_))
            scores: NDArray = self.together_.score_samples(_mean_logits(parts))
            return scores
        each = self.score_each(evidences)
        centre, scale = np.transpose(self.scales_)[:, :, None]
        z = ((each - centre) / scale).mean(axis=0)
        # Back to the unit of the scores: one decoder's are as they were.
        return z * scale.mean() + centre.mean()

    def _checked(
        self, evidences: Sequence[Evidence], count: int | None = None
    ) -> list[Evidence]:
        if isinstance(evidences, Evidence):
            fail("Got the evidence of one decoder", fix="give a list, one a decoder")
        parts = list(evidences)
        sizes = {len(e) for e in parts}
        if len(sizes) != 1 or (count is not None and len(parts) != count):
            fail(
                f"{len(parts)} decoders with {sorted(sizes)} trials",
                fix="give the evidence of the same trials for "
                f"{'every decoder' if count is None else f'all {count} decoders'}",
            )
        return parts


def _mean_logits(parts: list[Evidence]) -> Evidence:
    return Evidence(logits=np.mean([e.need("logits") for e in parts], axis=0))
