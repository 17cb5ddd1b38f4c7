"""Tensor train decomposition (TT-SVD)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._missing import impute
from eegtensor.tensor._shapes import as_tensor, check_rank, check_sweeps
from eegtensor.tensor.kernels import leading_vectors, squared_norm


class TensorTrain(NamedTuple):
    """A chain of cores.

    Attributes
    ----------
    cores : tuple of array, shape (r_{n-1}, I_n, r_n), r_0 = r_N = 1
        All but the last are left-orthogonal: as (r_{n-1} I_n, r_n) matrices their
        columns are orthonormal, their largest entry positive. The last carries
        the unit of X.
    fit : float
        1 - ||X - reconstruction|| / ||X|| over the observed cells.
    n_iter : int
        Imputations; 0 where nothing was missing.
    """

    cores: tuple[Array, ...]
    fit: float
    n_iter: int

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks r_1, ..., r_{N-1}."""
        return tuple(core.shape[-1] for core in self.cores[:-1])

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, shape (I_1, ..., I_N)."""
        return _rebuild(*self.cores)


@bridged
def _rebuild(*cores: Tensor) -> Tensor:
    whole = chain(cores)
    return whole.reshape([core.shape[1] for core in cores])


def chain(cores: Sequence[Tensor]) -> Tensor:
    """Return neighbouring cores multiplied, shape (r_first, prod I_n, r_last)."""
    out = cores[0]
    for core in cores[1:]:
        out = (out @ core.reshape(len(core), -1)).reshape(len(out), -1, core.shape[-1])
    return out


@bridged
def tensor_train(
    X: Array,
    ranks: int | Sequence[int] | None = None,
    *,
    mask: Array | None = None,
    error: float | None = None,
    max_iter: int = 1000,
    tol: float = 1e-5,
) -> TensorTrain:
    """Return the tensor train of a tensor, cut from left to right.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N), N >= 2
        NaN are missing cells.
    ranks : int | sequence of int, N - 1 of them | None
        Largest ranks between neighbouring cores.
    mask : array of bool, shape as X | None
        True for observed cells; missing ones are imputed by the model in turn.
    error : float | None
        In place of ranks: the smallest ranks that keep the relative error below.
        From 1e-7 up: Grams hold no smaller singular values.
    max_iter, tol
        Of the imputation, where cells are missing.

    Returns
    -------
    TensorTrain

    Raises
    ------
    EEGTensorError
        If X holds infinity, or shapes, ranks or mask do not fit.

    References
    ----------
    I. V. Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput., 2011,
    algorithm 1.
    """
    X, observed, total = as_tensor(X, mask)
    return decompose(X, observed, total, ranks, error=error, max_iter=max_iter, tol=tol)


def decompose(
    X: Tensor,
    observed: Tensor | None,
    total: float,
    ranks: int | Sequence[int] | None,
    *,
    error: float | None = None,
    max_iter: int = 1000,
    tol: float = 1e-5,
) -> TensorTrain:
    """Return what `tensor_train` does, of what `as_tensor` returns.

    Missing cells of X are overwritten.
    """
    if (ranks is None) == (error is None):
        fail(
            f"ranks={ranks!r} and error={error!r}",
            fix="give one of them: largest ranks, or a relative error such as 0.1",
        )
    check_sweeps(max_iter, tol)
    limits = check_links(ranks, X.ndim - 1)
    if error is not None and check_number("error", error, least=0.0) >= 1.0:
        fail(f"error={error!r}", fix="give a relative error from 0 up to below 1")
    if observed is None:
        return _fit(X, limits, error, total)

    def model(Z: Tensor, before: TensorTrain | None) -> TensorTrain:
        return _fit(Z, limits, error, squared_norm(Z))

    return impute(X, observed, model, max_iter=max_iter, tol=tol, rows=rows_of)


def rows_of(model: Any, part: slice) -> Any:
    """Return the train or ring of some entries of the first mode."""
    return model._replace(cores=(model.cores[0][:, part], *model.cores[1:]))


def check_links(ranks: Any, n: int) -> list[int | None]:
    """Return n largest ranks, None for no limit."""
    wanted = [ranks] * n if np.ndim(ranks) == 0 else list(ranks)
    if len(wanted) != n:
        fail(f"ranks={ranks!r} for {n} links", fix=f"give one rank, or {n} of them")
    return [None if r is None else check_rank(r, "ranks") for r in wanted]


def _fit(
    X: Tensor, limits: list[int | None], error: float | None, total: float
) -> TensorTrain:
    allowed = None
    if error is not None:
        allowed = float(error) ** 2 * total / (X.ndim - 1)
    cores = []
    rest, left = X.reshape(1, -1), 1
    for n, limit in enumerate(limits):
        rest = rest.reshape(left * X.shape[n], -1)
        rank = min(rest.shape) if limit is None else min(limit, *rest.shape)
        U, energy = leading_vectors(rest, 0, rank)
        if allowed is not None:
            # Energy that a cut after so many would lose.
            lost = energy.flip(0).cumsum(0).flip(0)
            kept = int((lost[:rank] > max(allowed, 1e-15 * total)).sum())
            U = U[:, : max(kept, 1)]
        U = U.to(X.dtype)
        rest = U.mT @ rest
        cores.append(U.reshape(left, X.shape[n], -1))
        left = U.shape[1]
    cores.append(rest.reshape(left, X.shape[-1], 1))
    kept_energy = squared_norm(rest)
    fit = (
        1.0 if total == 0.0 else 1.0 - math.sqrt(max(total - kept_energy, 0.0) / total)
    )
    return TensorTrain(tuple(cores), fit, 0)
