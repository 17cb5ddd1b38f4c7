"""Two kinds of features side by side, for one decoder."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths
from eegtensor.features._base import DomainTransformer, check_fitted


class SideBySide(DomainTransformer):
    """Tangent vectors and tensor features of the same trials, as one vector.

    Every feature gets mean 0 over the source trials, and each of the two blocks the
    same total variance: the block of many features would else leave the other one
    nothing of a penalty on the weights.

    Parameters
    ----------
    tangent, tensor : Pipeline
        From trials to features; fitted in place.

    Attributes
    ----------
    means_, scales_ : ndarray, shape (n_features,)
        Feature i becomes ``(x - means_[i]) / scales_[i]``.
    """

    def __init__(self, tangent: Any, tensor: Any) -> None:
        self.tangent = tangent
        self.tensor = tensor

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit both pipelines and the scales of their features."""
        self.fit_transform(
            X, y, subjects=subjects, sessions=sessions, sample_weight=sample_weight
        )
        return self

    def fit_transform(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        **fit_params: Any,
    ) -> NDArray:
        """Fit to X and return its features, shape (n_trials, n_features)."""
        check_lengths(len(X), y=y, sample_weight=sample_weight)
        given = {
            "subjects": subjects,
            "sessions": sessions,
            "sample_weight": sample_weight,
        }
        blocks = [
            np.asarray(part.fit_transform(X, y, **given), dtype=np.float64)
            for part in (self.tangent, self.tensor)
        ]
        sizes = [block.shape[1] for block in blocks]
        F = np.concatenate(blocks, axis=1)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        self.means_ = np.average(F, axis=0, weights=weights)
        spread = np.sqrt(np.average((F - self.means_) ** 2, axis=0, weights=weights))
        # A constant feature spreads by rounding alone.
        floor = 16 * np.finfo(np.float64).eps * np.abs(self.means_)
        spread = np.where(spread > floor, spread, 1.0)
        # Variances d1 and d2 become their mean: C then means what it does without
        # blocks.
        share = np.concatenate([np.full(d, 2.0 * d / sum(sizes)) for d in sizes])
        self.scales_ = spread * np.sqrt(share)
        scaled: NDArray = (F - self.means_) / self.scales_
        return scaled

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return features, those of tangent space first."""
        check_fitted(self, "scales_")
        given = {"subjects": subjects, "sessions": sessions}
        blocks = [p.transform(X, **given) for p in (self.tangent, self.tensor)]
        F: NDArray = (np.concatenate(blocks, axis=1) - self.means_) / self.scales_
        return F

    def adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Adapt both pipelines to an unlabelled batch of target trials."""
        for part in (self.tangent, self.tensor):
            part.adapt(X, subjects=subjects, sessions=sessions)
        return self

    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Adapt both pipelines trial by trial, in the order given."""
        for part in (self.tangent, self.tensor):
            part.partial_adapt(X, subjects=subjects, sessions=sessions)
        return self

    @property
    def can_adapt(self) -> bool:
        """Whether a step of either pipeline adapts."""
        return bool(self.tangent.can_adapt or self.tensor.can_adapt)
