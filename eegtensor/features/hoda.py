"""Features by higher-order discriminant analysis."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.features._base import class_codes
from eegtensor.features.tucker import MultilinearProjection, axis_ranks
from eegtensor.tensor._shapes import check_rank
from eegtensor.tensor.hoda import hoda
from eegtensor.tensor.kernels import squared_norm


class HODA(MultilinearProjection):
    """Multilinear projections that separate classes, cells ranked by Fisher's ratio.

    Parameters
    ----------
    ranks : int | tuple of int
        Directions of each axis of a trial.
    n_selected : int | None
        Cells of the projected trials that are kept as features, those with the
        largest ratio of variance between to variance within classes; all by
        default.
    ridge : float
        On the scatter within classes, relative to its mean.
    center : bool
        Whether the mean of the training trials is taken off features.
    max_iter, tol
        As in `eegtensor.tensor.hoda.hoda`.

    Attributes
    ----------
    factors_ : tuple of ndarray, shape (d_n, r_n)
        Orthonormal columns, by falling ratio.
    ranks_ : tuple of int
    selected_ : ndarray of int, shape (n_features,)
        Cells of the flattened core, best first.
    ratio_ : float
        Scatter between classes over that within.
    classes_ : ndarray
    mean_, train_scores_, fit_, n_iter_

    References
    ----------
    A.-H. Phan, A. Cichocki, "Tensor decompositions for feature extraction and
    classification of high dimensional datasets", IEICE NOLTA, 2010.
    """

    def __init__(
        self,
        ranks: int | tuple[int, ...] = 4,
        n_selected: int | None = None,
        ridge: float = 0.01,
        center: bool = True,
        max_iter: int = 50,
        tol: float = 1e-6,
    ) -> None:
        self.ranks = ranks
        self.n_selected = n_selected
        self.ridge = ridge
        self.center = center
        self.max_iter = max_iter
        self.tol = tol

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: NDArray | None) -> None:
        if observed is not None:
            fail(
                "Training trials have missing cells",
                fix="restore them first (Completer), or leave these trials out",
            )
        self.classes_, codes = class_codes(y, len(X), "HODA")
        found = hoda(
            X,
            torch.from_numpy(codes),
            axis_ranks(self.ranks, X.ndim - 1),
            ridge=self.ridge,
            max_iter=self.max_iter,
            tol=self.tol,
        )
        self._keep_factors(found.factors)
        self.ratio_, self.n_iter_ = found.ratio, found.n_iter
        cells = found.core.flatten(1).double()
        order = torch.argsort(fisher_ratio(cells, codes), descending=True, stable=True)
        kept = len(order)
        if self.n_selected is not None:
            kept = check_rank(self.n_selected, "n_selected")
        self.selected_ = order[:kept].numpy()
        # Patterns are orthonormal: what features have not is left.
        total = squared_norm(X)
        left = max(total - squared_norm(self._correlate(X)), 0.0)
        self.fit_ = 1.0 - math.sqrt(left / total) if total else 1.0

    def _correlate(self, X: Tensor) -> Tensor:
        return super()._correlate(X)[:, torch.from_numpy(self.selected_)]

    def _decode(self, scores: Tensor) -> Tensor:
        cells = scores.new_zeros(len(scores), int(np.prod(self.ranks_)))
        cells[:, torch.from_numpy(self.selected_)] = scores
        return super()._decode(cells)

    @property
    def _n_features_out(self) -> int:
        return len(self.selected_)


def fisher_ratio(cells: Tensor, codes: NDArray) -> Tensor:
    """Return variance between over variance within classes, shape (n_cells,)."""
    index = torch.from_numpy(codes)
    share = torch.nn.functional.one_hot(index).to(cells)
    means = (share / share.sum(dim=0)).mT @ cells
    within = (cells - means[index]).square().sum(dim=0)
    between = (means[index] - cells.mean(dim=0)).square().sum(dim=0)
    return between / within.clamp_min(torch.finfo(cells.dtype).tiny)
