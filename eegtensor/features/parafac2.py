"""Features by PARAFAC2: each trial has its own time courses, maps are common."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.features._base import check_fitted
from eegtensor.features._tensors import TensorFeatures
from eegtensor.tensor.parafac2 import PARAFAC2, parafac2, parafac2_project


class PARAFAC2Features(TensorFeatures):
    """Features by PARAFAC2: how strongly each component is in a trial.

    For responses that do not begin at the same time in every trial: channel maps
    are common, time courses are each trial's own, and only their inner products
    are common to all.

    Parameters
    ----------
    rank : int
        Number of components, which is the number of features.
    center : bool
        Whether the mean of the training trials is taken off first; off, because
        it would tie the time courses of all trials.
    n_init : int
    ridge, max_iter, tol
        As in `eegtensor.tensor.parafac2`.
    random_state : int | None

    Attributes
    ----------
    maps_ : ndarray, shape (n_channels, rank)
        Columns of norm one, their largest entry positive, by falling weight.
    cosines_ : ndarray, shape (rank, rank)
        Between the time courses of components, the same in every trial.
    train_scores_ : ndarray, shape (n_trials, rank)
    congruence_, start_fits_, fit_, n_iter_

    See Also
    --------
    eegtensor.tensor.parafac2 : the decomposition and its references.
    """

    def __init__(
        self,
        rank: int = 4,
        center: bool = False,
        n_init: int = 4,
        ridge: float = 1e-9,
        max_iter: int = 500,
        tol: float = 1e-6,
        random_state: int | None = 0,
    ) -> None:
        self.rank = rank
        self.center = center
        self.n_init = n_init
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: NDArray | None) -> None:
        slices, mask = _slices(X, observed)
        model = parafac2(
            slices,
            self.rank,
            mask=mask,
            n_init=self.n_init,
            ridge=self.ridge,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        )
        self.maps_, self._B = model.C.numpy(), model.B.numpy()
        self.cosines_ = self._B.T @ self._B
        self.congruence_, self.start_fits_ = model.congruence, model.start_fits
        self.fit_, self.n_iter_ = model.fit, model.n_iter

    def _model(self) -> PARAFAC2:
        empty = torch.empty(0, len(self._B))
        maps, B = torch.from_numpy(self.maps_), torch.from_numpy(self._B)
        return PARAFAC2(empty, B, maps, (), self.fit_, 0, (), self.congruence_)

    def _scores(self, X: Tensor, observed: Tensor | None) -> Tensor:
        slices, mask = _slices(X, observed)
        return parafac2_project(self._model(), slices, mask=mask).A.to(X.dtype)

    def courses(self, X: NDArray) -> NDArray:
        """Return time courses of norm one, shape (n_trials, rank, n_times).

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times)
        """
        check_fitted(self, "train_scores_")
        centred, observed = self._centred(self._checked(X))
        slices, mask = _slices(centred, observed)
        found = parafac2_project(self._model(), slices, mask=mask)
        P = torch.stack(list(found.projections))
        out: NDArray = (P @ torch.from_numpy(self._B)).mT.numpy()
        return out

    def score(self, X: NDArray, y: object = None) -> float:
        """Return the share of variance about the mean that the model explains.

        With each trial's own time courses, which features alone do not hold.
        """
        check_fitted(self, "train_scores_")
        centred, observed = self._centred(self._checked(X))
        slices, mask = _slices(centred, observed)
        found = parafac2_project(self._model(), slices, mask=mask)
        energy = centred.double().square().flatten(1).sum(dim=1)
        left = (1.0 - found.fits.double()) ** 2 * energy
        total = float(energy.sum())
        return 1.0 - float(left.sum()) / total if total > 0 else 1.0

    @property
    def _n_features_out(self) -> int:
        return int(np.shape(self.maps_)[1])


def _slices(X: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return trials as (n_trials, n_times, n_channels), and their mask."""
    if X.ndim != 3:
        fail(
            f"Trials have {X.ndim - 1} axes",
            why="PARAFAC2 takes slices of channels x times",
            fix="give X of shape (n_trials, n_channels, n_times)",
        )
    return X.mT, None if observed is None else observed.mT
