"""Tucker decomposition: sequentially truncated HOSVD, then orthogonal iteration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._missing import impute
from eegtensor.tensor._shapes import as_tensor, check_ranks
from eegtensor.tensor.kernels import (
    expand,
    leading_vectors,
    mode_product,
    project,
    squared_norm,
)

INITS = ("st-hosvd", "hosvd")


class Tucker(NamedTuple):
    """A core and one orthonormal factor per mode.

    Attributes
    ----------
    core : array, shape (R_1, ..., R_N)
        In the unit of X.
    factors : tuple of array, shape (I_n, R_n)
        Orthonormal columns, their largest entry positive, by falling energy.
    fit : float
        1 - ||X - reconstruction|| / ||X|| over the observed cells.
    n_iter : int
        Sweeps of orthogonal iteration.
    """

    core: Array
    factors: tuple[Array, ...]
    fit: float
    n_iter: int

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, shape (I_1, ..., I_N)."""
        return _expand(self.core, *self.factors)


@bridged
def _expand(core: Tensor, *factors: Tensor) -> Tensor:
    return expand(core, factors)


@bridged
def tucker(
    X: Array,
    ranks: int | Sequence[int | None] | None = None,
    *,
    mask: Array | None = None,
    energy: float | None = None,
    init: str = "st-hosvd",
    max_iter: int = 50,
    tol: float = 1e-5,
) -> Tucker:
    """Return the Tucker decomposition of a tensor.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N)
        NaN are missing cells.
    ranks : int | sequence of (int | None) | None
        Columns of each factor; None cuts nothing off a mode (its factor is still
        orthonormal).
    mask : array of bool, shape as X | None
        True for observed cells. Missing ones are imputed by the model in turn.
    energy : float | None
        In place of ranks: the smallest ranks with this share of each unfolding's
        energy, such as 0.95.
    init : "st-hosvd" | "hosvd"
        Sequentially truncated (in the order of modes that costs least), or each
        mode from the whole tensor.
    max_iter : int
        Sweeps of orthogonal iteration; 0 keeps the start, whose error is at most
        sqrt(N) times the smallest.
    tol : float
        It stops when the fit grows by less.

    Returns
    -------
    Tucker

    Raises
    ------
    EEGTensorError
        If X holds infinity, or shapes, ranks or mask do not fit.

    References
    ----------
    N. Vannieuwenhoven et al., "A new truncation strategy for the higher-order
    singular value decomposition", SIAM J. Sci. Comput., 2012. L. De Lathauwer et
    al., "On the best rank-1 and rank-(R1, ..., RN) approximation of higher-order
    tensors", SIAM J. Matrix Anal. Appl., 2000.
    """
    check_option("init", init, INITS)
    X, observed, total = as_tensor(X, mask)
    if (ranks is None) == (energy is None):
        fail(
            f"ranks={ranks!r} and energy={energy!r}",
            fix="give one of them: numbers of columns, or a share such as energy=0.95",
        )
    if energy is not None:
        sizes = _ranks_of(X, _share(energy))
    else:
        sizes = check_ranks(ranks, X.shape)
    if observed is None:
        return _fit(X, sizes, init, max_iter, tol, None, total)

    def model(Z: Tensor, before: Tucker | None) -> Tucker:
        # One sweep from the factors before: the imputation is what converges.
        start = None if before is None else list(before.factors)
        turns = max_iter if start is None else 1
        return _fit(Z, sizes, init, turns, tol, start, squared_norm(Z))

    return impute(X, observed, model, max_iter=20 * max_iter, tol=tol)


def _share(energy: Any) -> float:
    if not 0.0 < float(energy) <= 1.0:
        fail(f"energy={energy!r}", fix="give a share above 0 and up to 1")
    return float(energy)


def _ranks_of(X: Tensor, share: float) -> tuple[int, ...]:
    """Return the smallest rank of each mode that keeps a share of its energy."""
    ranks = []
    for n in range(X.ndim):
        values = leading_vectors(X, n, 1)[1]
        kept = values.cumsum(0) / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
        ranks.append(int((kept < share - 1e-12).sum()) + 1)
    return check_ranks(
        [min(r, s) for r, s in zip(ranks, X.shape, strict=True)], X.shape
    )


def cheapest_order(shape: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
    """Return the order of modes in which ST-HOSVD multiplies least.

    A mode costs its size for the Gram and its rank for the projection, times the
    cells that are left when its turn comes.
    """
    n = len(shape)
    if n > 6:
        return tuple(sorted(range(n), key=lambda k: shape[k]))

    def cost(order: tuple[int, ...]) -> float:
        cells, total = float(math.prod(shape)), 0.0
        for k in order:
            total += cells * (shape[k] + ranks[k])
            cells *= ranks[k] / shape[k]
        return total

    return min(itertools.permutations(range(n)), key=cost)


def start_factors(
    X: Tensor, ranks: Sequence[int], init: str = "st-hosvd"
) -> tuple[list[Tensor], Tensor]:
    """Return orthonormal factors and the core that belongs to them."""
    factors: list[Tensor] = [X] * X.ndim
    if init == "hosvd":
        for n in range(X.ndim):
            factors[n] = leading_vectors(X, n, ranks[n])[0].to(X.dtype)
        return factors, project(X, factors, range(X.ndim))
    core = X
    for n in cheapest_order(X.shape, ranks):
        factors[n] = leading_vectors(core, n, ranks[n])[0].to(X.dtype)
        core = mode_product(core, factors[n].mT, n)
    return factors, core


def _fit(
    X: Tensor,
    ranks: Sequence[int],
    init: str,
    max_iter: int,
    tol: float,
    factors: list[Tensor] | None,
    total: float,
) -> Tucker:
    if factors is None:
        factors, core = start_factors(X, ranks, init)
        fit = _fit_of(core, total)
    else:
        core, fit = X, -math.inf
    n_iter = 0
    whole = all(r == s for r, s in zip(ranks, X.shape, strict=True))
    while n_iter < max_iter and not (whole and n_iter == 0 and core is not X):
        core = _iterate(X, list(range(X.ndim)), ranks, factors)
        n_iter += 1
        before, fit = fit, _fit_of(core, total)
        if fit - before < tol:
            break
    core, factors = _canonical(core, factors)
    return Tucker(core, tuple(factors), fit, n_iter)


def _fit_of(core: Tensor, total: float) -> float:
    # With orthonormal factors the error is the energy that the core has not.
    if total == 0.0:
        return 1.0
    return 1.0 - math.sqrt(max(total - squared_norm(core), 0.0) / total)


def _iterate(
    Y: Tensor, modes: list[int], ranks: Sequence[int], factors: list[Tensor]
) -> Tensor:
    """Update factors of modes that Y still has whole; return the core.

    The other half of the modes is projected once for all of a half's updates.
    """
    if len(modes) == 1:
        n = modes[0]
        factors[n] = leading_vectors(Y, n, ranks[n])[0].to(Y.dtype)
        return mode_product(Y, factors[n].mT, n)
    half = len(modes) // 2
    first, second = modes[:half], modes[half:]
    _iterate(project(Y, factors, second), first, ranks, factors)
    return _iterate(project(Y, factors, first), second, ranks, factors)


def _canonical(core: Tensor, factors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the same model with signs and order that do not depend on chance."""
    out = []
    for n, U in enumerate(factors):
        slices = core.movedim(n, 0).reshape(core.shape[n], -1).double()
        order = slices.square().sum(dim=1).argsort(descending=True, stable=True)
        U = U[:, order]
        largest = U.gather(0, U.abs().argmax(dim=0, keepdim=True))[0]
        sign = torch.where(largest < 0, -1.0, 1.0).to(U.dtype)
        out.append(U * sign)
        shape = [1] * core.ndim
        shape[n] = -1
        core = core.index_select(n, order) * sign.view(shape)
    return core, out
