"""Features by CP decomposition: how strongly each component is in a trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.features._tensors import PatternFeatures, pieces
from eegtensor.tensor._shapes import check_rank, norm_of
from eegtensor.tensor.cp import CP, decompose
from eegtensor.tensor.kernels import khatri_rao
from eegtensor.tensor.nonnegative import hals, nonnegative_cp


class _CPBase(PatternFeatures):
    """Base: one feature a component, its weight in the trial."""

    factors_: tuple[NDArray, ...]

    def _keep(self, model: CP, shape: Sequence[int]) -> None:
        """Keep all factors but the trials', which are found anew in transform."""
        self.factors_ = tuple(U.numpy() for U in model.factors[1:])
        self.congruence_ = model.congruence
        self.start_fits_ = model.start_fits
        self.fit_, self.n_iter_ = model.fit, model.n_iter
        flat = khatri_rao(model.factors[1:])
        self.patterns_ = flat.reshape(len(flat), *shape).numpy()


class CPFeatures(_CPBase):
    """Features by CP decomposition (PARAFAC).

    Parameters
    ----------
    rank : int
        Number of components, which is the number of features.
    center : bool
        Whether the mean of the training trials is taken off first.
    n_init : int
        Starts of the decomposition, the best of which is kept.
    ridge, max_iter, tol
        As in `eegtensor.tensor.cp`.
    random_state : int | None

    Attributes
    ----------
    factors_ : tuple of ndarray, shape (d_n, rank)
        One for each axis of a trial: topographies, spectra, time courses.
        Columns of norm one, their largest entry positive, by falling weight.
    patterns_ : ndarray, shape (rank, d1, ..., dm)
    mean_ : ndarray, shape (d1, ..., dm)
    train_scores_ : ndarray, shape (n_trials, rank)
    congruence_ : float
        Near 1 where two components nearly cancel: their shapes then mean nothing.
    start_fits_ : tuple of float
    fit_, n_iter_ : float, int

    See Also
    --------
    eegtensor.tensor.cp : the decomposition and its references.
    """

    def __init__(
        self,
        rank: int = 8,
        center: bool = True,
        n_init: int = 2,
        ridge: float = 1e-9,
        max_iter: int = 100,
        tol: float = 1e-5,
        random_state: int | None = 0,
    ) -> None:
        self.rank = rank
        self.center = center
        self.n_init = n_init
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: Any) -> None:
        model = decompose(
            X,
            observed,
            norm_of(X),
            check_rank(self.rank),
            n_init=self.n_init,
            ridge=self.ridge,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        )
        self._keep(model, X.shape[1:])


class NonnegativeCPFeatures(_CPBase):
    """Features by non-negative CP decomposition: parts that add up.

    For spectral power, whose parts do not cancel; features are non-negative too.

    Parameters
    ----------
    rank : int
    n_init, max_iter, tol, random_state
        As in `eegtensor.tensor.nonnegative_cp`.

    Attributes
    ----------
    factors_ : tuple of ndarray, shape (d_n, rank)
    patterns_ : ndarray, shape (rank, d1, ..., dm)
    train_scores_ : ndarray, shape (n_trials, rank)
    congruence_, start_fits_, fit_, n_iter_

    See Also
    --------
    TimeFrequencyTensor : power to decompose, with ``log=False``.
    """

    center = False

    def __init__(
        self,
        rank: int = 8,
        n_init: int = 2,
        max_iter: int = 200,
        tol: float = 1e-6,
        random_state: int | None = 0,
    ) -> None:
        self.rank = rank
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: Any) -> None:
        model = nonnegative_cp(
            X,
            self.rank,
            mask=observed,
            n_init=self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        )
        self._keep(model, X.shape[1:])

    def _scores(self, X: Tensor, observed: Tensor | None) -> Tensor:
        """Return non-negative least squares, trial by trial in one batch."""
        D = self._flat().double()
        parts = pieces(X.shape)
        M = torch.cat([X[part].flatten(1).double() @ D.mT for part in parts])
        V = D @ D.mT
        if observed is not None:
            V = V.expand(len(X), *V.shape).clone()
            for part in parts:
                seen = observed[part].flatten(1).double()
                for r, row in enumerate(D):
                    V[part, r] = seen @ (row * D).mT
        start = torch.zeros_like(M)
        return hals(start, M, V, sweeps=500, low=0.0).to(X.dtype)
