"""Non-negative CP decomposition by hierarchical alternating least squares (HALS)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import balance_columns, normal_matrix, solve
from eegtensor.tensor._missing import impute, slice_means
from eegtensor.tensor._momentum import settle
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    as_tensor,
    check_modes,
    check_rank,
    check_sweeps,
    normal,
)
from eegtensor.tensor.cp import CP, canonical, congruence, rows_of
from eegtensor.tensor.kernels import squared_norm, sweep_modes
from eegtensor.tensor.tucker import start_factors

# Sweeps over the columns for each product with the tensor, which costs far more.
_INNER = 3


@bridged
def nonnegative_cp(
    X: Array,
    rank: int,
    *,
    mask: Array | None = None,
    modes: Sequence[int] | None = None,
    n_init: int = 2,
    max_iter: int = 200,
    tol: float = 1e-6,
    random_state: Random = 0,
) -> CP:
    """Return a CP decomposition whose factors are non-negative in some modes.

    For spectral power and other quantities that add up without cancelling.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N), N >= 2
        NaN are missing cells.
    rank : int
    mask : array of bool, shape as X | None
        True for observed cells; missing ones are imputed by the model in turn.
    modes : sequence of int | None
        Those with non-negative factors; all by default. The others follow by
        least squares.
    n_init : int
        Starts: absolute leading singular vectors, then random ones.
    max_iter, tol, random_state
        As in `cp`.

    Returns
    -------
    CP
        Where the first mode is non-negative, the first that is not carries the sign.

    Raises
    ------
    EEGTensorError
        If all modes are non-negative and X is not, or shapes, rank or modes do
        not fit.

    References
    ----------
    A. Cichocki, A.-H. Phan, "Fast local algorithms for large scale nonnegative
    matrix and tensor factorizations", IEICE Trans., 2009.
    """
    R = check_rank(rank)
    X, observed, total = as_tensor(X, mask)
    chosen = _check_modes(modes, X.ndim)
    if len(chosen) == X.ndim and float(X.min()) < -1e-6 * float(X.max().clamp_min(0)):
        fail(
            f"X has negative cells, down to {float(X.min()):.3g}",
            why="A sum of non-negative components cannot give them",
            fix="use power, not signals or log power, or name the modes that are "
            "non-negative with modes=",
        )
    check_rank(n_init, "n_init")
    check_sweeps(max_iter, tol)
    if observed is not None:
        # Zeros would draw the starts, and their size, down.
        X = torch.where(observed, X, slice_means(X, observed), out=X)
        total = squared_norm(X)
    random = as_random(random_state)
    starts = [
        _scaled([_start(X, n, R, start, random) for n in range(X.ndim)], total)
        for start in range(n_init)
    ]
    if observed is None:
        return _best(X, starts, chosen, total, max_iter, tol)

    def model(Z: Tensor, before: CP | None) -> CP:
        norm = squared_norm(Z)
        if before is None:
            return _best(Z, starts, chosen, norm, max_iter, tol)
        first = before.factors[0] * before.weights
        return _best(Z, [[first, *before.factors[1:]]], chosen, norm, 2, tol)

    X.masked_fill_(~observed, 0.0)
    return impute(X, observed, model, max_iter=20 * max_iter, tol=tol, rows=rows_of)


def _check_modes(modes: Sequence[int] | None, ndim: int) -> frozenset[int]:
    return frozenset(range(ndim) if modes is None else check_modes(modes, ndim))


def _start(X: Tensor, mode: int, rank: int, start: int, random: Any) -> Tensor:
    size = X.shape[mode]
    drawn = normal((size, rank), random).abs().to(X.device)
    if start > 0 and mode == 0:
        # The first to be updated: alike, so that the order of trials is nothing.
        drawn = torch.ones_like(drawn)
    if start == 0:
        ranks = [1] * X.ndim
        ranks[mode] = min(rank, size)
        U = start_factors(X, ranks)[0][mode].abs().double()
        # Zeros would stay zeros.
        drawn[:, : U.shape[1]] = U + 1e-3 * U.mean()
    return drawn.to(X.dtype)


def _scaled(factors: list[Tensor], total: float) -> list[Tensor]:
    """Return factors whose model has the norm of X: units then play no part."""
    grams = [U.double().mT @ U.double() for U in factors]
    size = float(normal_matrix(grams, -1).sum())
    scale = (total / size) ** (0.5 / len(factors)) if size > 0 else 1.0
    return [scale * U for U in factors]


def _best(
    X: Tensor,
    starts: list[list[Tensor]],
    modes: frozenset[int],
    total: float,
    max_iter: int,
    tol: float,
) -> CP:
    found = []
    for factors in starts:
        factors = list(factors)
        error, n_iter = _alternate(X, factors, modes, total, max_iter, tol)
        found.append((error, n_iter, factors))
    error, n_iter, factors = min(found, key=lambda entry: entry[0])
    # A sign that comes with a mode of either sign stays among those.
    either = set(range(X.ndim)) - modes
    weights, unit = canonical(factors, min(either, default=0))
    fits = tuple(1.0 - math.sqrt(e) for e, _, _ in found)
    return CP(
        weights, tuple(unit), 1.0 - math.sqrt(error), n_iter, fits, congruence(unit)
    )


def _alternate(
    X: Tensor,
    factors: list[Tensor],
    modes: frozenset[int],
    total: float,
    max_iter: int,
    tol: float,
) -> tuple[float, int]:
    if total == 0.0:
        factors[:] = [torch.zeros_like(U) for U in factors]
        return 0.0, 0

    def step(before: list[Tensor]) -> tuple[list[Tensor], float]:
        after = [U.clamp_min(0.0) if n in modes else U for n, U in enumerate(before)]
        return after, _sweep(X, after, modes, total)

    state, error, n_iter = settle(step, list(factors), max_iter=max_iter, tol=tol)
    factors[:] = state
    return error, n_iter


def _sweep(
    X: Tensor, factors: list[Tensor], modes: frozenset[int], total: float
) -> float:
    """Update every factor once; return the squared relative error."""
    balance_columns(factors)
    grams = [U.double().mT @ U.double() for U in factors]
    inner = torch.zeros((), dtype=torch.float64, device=X.device)

    def update(n: int, M: Tensor) -> Tensor:
        nonlocal inner
        M, V = M.double(), normal_matrix(grams, n)
        A = hals(factors[n].double(), M, V) if n in modes else solve(V, M, 1e-9)
        inner = (M * A).sum()
        grams[n] = A.mT @ A
        return A.to(X.dtype)

    sweep_modes(X, factors, update)
    modelled = normal_matrix(grams, -1).sum()
    return max(float((total - 2.0 * inner + modelled) / total), 0.0)


def hals(
    A: Tensor,
    M: Tensor,
    V: Tensor,
    *,
    sweeps: int = _INNER,
    low: float | Tensor | None = None,
) -> Tensor:
    """Return non-negative A (I, R) nearer to the least-squares solution of A V = M.

    Column by column: a_r <- max(0, a_r + (m_r - A v_r) / v_rr).

    Parameters
    ----------
    A : Tensor, shape (I, R), non-negative
    M : Tensor, shape (I, R)
    V : Tensor, shape (R, R) or (I, R, R)
    sweeps : int
    low : float | Tensor, shape (R,) | None
        Smallest entry; by default not quite zero, since a column of zeros would
        never come back in an alternating scheme.
    """
    A = A.clone()
    diagonal = V.diagonal(dim1=-2, dim2=-1)
    steps = torch.where(diagonal > 0, 1.0 / diagonal.clamp_min(1e-300), 0.0)
    if low is None:
        # Each column by its own scale: that of a nearly dead one would be far above
        # the entries of all others.
        low = 1e-12 * (M.abs() * steps).amax(dim=0)
    floor = torch.as_tensor(low, dtype=A.dtype, device=A.device).expand(A.shape[1])
    for _ in range(sweeps):
        for r in range(A.shape[1]):
            modelled = (A * V[..., r]).sum(dim=-1) if V.ndim == 3 else A @ V[:, r]
            moved = A[:, r] + (M[:, r] - modelled) * steps[..., r]
            A[:, r] = torch.maximum(moved, floor[r])
    return A
