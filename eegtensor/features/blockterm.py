"""Features by block terms: sources whose map over two axes has several patterns."""

from __future__ import annotations

from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.features._tensors import PatternFeatures
from eegtensor.tensor.blockterm import block_term


class BlockTermFeatures(PatternFeatures):
    """Features by (L, L, 1) block terms: how strongly each term is in a trial.

    Parameters
    ----------
    rank : int
        Number of terms, which is the number of features.
    L : int
        Patterns of each term's map over the two axes of a trial.
    center : bool
        Whether the mean of the training trials is taken off first.
    n_init, ridge, max_iter, tol
        As in `eegtensor.tensor.block_term`.
    random_state : int | None

    Attributes
    ----------
    patterns_ : ndarray, shape (rank, d1, d2)
        Maps of norm one, each of matrix rank L.
    factors_ : tuple of ndarray, shape (d_n, rank, L)
        Their patterns in each axis, by falling singular value.
    train_scores_ : ndarray, shape (n_trials, rank)
    congruence_, start_fits_, fit_, n_iter_

    See Also
    --------
    eegtensor.tensor.block_term : the decomposition and its references.
    """

    def __init__(
        self,
        rank: int = 4,
        L: int = 2,
        center: bool = True,
        n_init: int = 6,
        ridge: float = 1e-9,
        max_iter: int = 400,
        tol: float = 1e-6,
        random_state: int | None = 0,
    ) -> None:
        self.rank = rank
        self.L = L
        self.center = center
        self.n_init = n_init
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: NDArray | None) -> None:
        if X.ndim != 3:
            fail(
                f"Trials have {X.ndim - 1} axes",
                why="A block term is a map over two axes",
                fix="give X of shape (n_trials, d1, d2)",
            )
        model = block_term(
            X,
            self.rank,
            self.L,
            mask=observed,
            n_init=self.n_init,
            ridge=self.ridge,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        )
        self.patterns_ = model.maps.contiguous().numpy()
        self.factors_ = (model.A.numpy(), model.B.numpy())
        self.congruence_, self.start_fits_ = model.congruence, model.start_fits
        self.fit_, self.n_iter_ = model.fit, model.n_iter
