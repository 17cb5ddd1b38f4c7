"""Features by Tucker decomposition of all axes but the trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.features._tensors import LinearFeatures
from eegtensor.tensor._shapes import norm_of
from eegtensor.tensor.kernels import mode_product, project
from eegtensor.tensor.tucker import decompose


class MultilinearProjection(LinearFeatures):
    """Base of extractors that project each axis of a trial on orthonormal columns."""

    factors_: tuple[NDArray, ...]
    ranks_: tuple[int, ...]

    def _keep_factors(self, factors: Sequence[Tensor | None]) -> None:
        """Keep the factors of a trial's axes; that of the trials is None."""
        self.factors_ = tuple(U.numpy() for U in factors if U is not None)
        self.ranks_ = tuple(U.shape[1] for U in self.factors_)

    def _tensors(self) -> list[Tensor]:
        return [torch.from_numpy(U) for U in self.factors_]

    def _correlate(self, X: Tensor) -> Tensor:
        factors = [torch.empty(1, 1), *self._tensors()]
        return project(X, factors, range(1, X.ndim)).flatten(1)

    def _decode(self, scores: Tensor) -> Tensor:
        core = scores.reshape(-1, *self.ranks_)
        for n, U in enumerate(self._tensors(), start=1):
            core = mode_product(core, U, n)
        return core

    @property
    def _n_features_out(self) -> int:
        return math.prod(self.ranks_)

    def core_scores(self, scores: NDArray) -> NDArray:
        """Return features as cores, shape (n_trials, r1, ..., rm)."""
        return scores.reshape(-1, *self.ranks_)


def axis_ranks(ranks: Any, n_axes: int) -> tuple[int | None, ...]:
    """Return one rank for each axis of a trial, or raise."""
    if isinstance(ranks, (tuple, list)):
        if len(ranks) != n_axes:
            fail(
                f"ranks={ranks!r} for trials of {n_axes} axes",
                fix="give one rank, or one for each axis of a trial",
            )
        return tuple(ranks)
    return (ranks,) * n_axes


class TuckerFeatures(MultilinearProjection):
    """Features by Tucker decomposition: multilinear principal components.

    Trials are projected onto the leading directions of each of their axes, found
    jointly; a trial's features are the cells of its core.

    Parameters
    ----------
    ranks : int | tuple of int
        Directions of each axis of a trial.
    energy : float | None
        In place of ranks: the fewest directions that keep this share of each
        axis's energy, such as 0.95; of trials with missing cells see
        `eegtensor.tensor.tucker`.
    center : bool
        Whether the mean of the training trials is taken off first.
    max_iter, tol
        As in `eegtensor.tensor.tucker`.

    Attributes
    ----------
    factors_ : tuple of ndarray, shape (d_n, r_n)
        Orthonormal columns, by falling energy.
    ranks_ : tuple of int
    mean_ : ndarray, shape (d1, ..., dm)
    train_scores_ : ndarray, shape (n_trials, prod r_n)
    fit_, n_iter_ : float, int

    References
    ----------
    H. Lu et al., "MPCA: multilinear principal component analysis of tensor
    objects", IEEE Trans. Neural Netw., 2008.
    """

    def __init__(
        self,
        ranks: int | tuple[int, ...] | None = 4,
        energy: float | None = None,
        center: bool = True,
        max_iter: int = 50,
        tol: float = 1e-4,
    ) -> None:
        self.ranks = ranks
        self.energy = energy
        self.center = center
        self.max_iter = max_iter
        self.tol = tol

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: Any) -> None:
        # With energy the numbers only say that each axis gets a factor.
        ranks = self.ranks if self.energy is None else 1
        wanted = axis_ranks(ranks, X.ndim - 1)
        model = decompose(
            X,
            observed,
            norm_of(X),
            (None, *wanted),
            energy=self.energy,
            max_iter=self.max_iter,
            tol=self.tol,
        )
        if observed is not None:
            X.masked_fill_(~observed, 0.0)
        self._keep_factors(model.factors)
        self.fit_, self.n_iter_ = model.fit, model.n_iter
