"""Tucker decomposition: sequentially truncated HOSVD, then orthogonal iteration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from eegtensor._check import check_number, check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._energy import energy_ranks, observed_energy_ranks
from eegtensor.tensor._missing import impute
from eegtensor.tensor._shapes import as_tensor, check_ranks, check_sweeps
from eegtensor.tensor.kernels import (
    leading_vectors,
    mode_product,
    project,
    squared_norm,
    sweep_projections,
)

INITS = ("st-hosvd", "hosvd")


class Tucker(NamedTuple):
    """A core and one orthonormal factor per mode.

    Attributes
    ----------
    core : array, shape (R_1, ..., R_N)
        In the unit of X.
    factors : tuple of (array, shape (I_n, R_n)) | None
        Orthonormal columns, their largest entry positive, by falling energy. None
        for a mode that was left as it is.
    fit : float
        1 - ||X - reconstruction|| / ||X|| over the observed cells.
    n_iter : int
        Sweeps of orthogonal iteration.
    """

    core: Array
    factors: tuple[Array | None, ...]
    fit: float
    n_iter: int

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, shape (I_1, ..., I_N)."""
        return _expand(self.core, *self.factors)


@bridged
def _expand(core: Tensor, *factors: Tensor | None) -> Tensor:
    for n, U in enumerate(factors):
        if U is not None:
            core = mode_product(core, U, n)
    return core


@bridged
def tucker(
    X: Array,
    ranks: int | Sequence[int | None] | None = None,
    *,
    mask: Array | None = None,
    energy: float | None = None,
    init: str = "st-hosvd",
    max_iter: int = 50,
    tol: float = 1e-4,
) -> Tucker:
    """Return the Tucker decomposition of a tensor.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N)
        NaN are missing cells.
    ranks : int | sequence of (int | None) | None
        Columns of each factor. A mode of rank None is left as it is, such as the
        trials of a feature extractor.
    mask : array of bool, shape as X | None
        True for observed cells. Missing ones are imputed by the model in turn.
    energy : float | None
        The smallest ranks with this share of each unfolding's energy, such as
        0.95, for the modes whose rank is not None. Where cells are missing, only
        columns that help to tell observed cells which were hidden: noise gets
        none, however much of the energy it is.
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
    X, observed, total = as_tensor(X, mask)
    return decompose(
        X,
        observed,
        total,
        ranks,
        energy=energy,
        init=init,
        max_iter=max_iter,
        tol=tol,
    )


def decompose(
    X: Tensor,
    observed: Tensor | None,
    total: float,
    ranks: int | Sequence[int | None] | None,
    *,
    energy: float | None = None,
    init: str = "st-hosvd",
    max_iter: int = 50,
    tol: float = 1e-4,
) -> Tucker:
    """Return what `tucker` does, of what `as_tensor` returns, without another copy.

    Missing cells of X are overwritten.
    """
    check_option("init", init, INITS)
    check_sweeps(max_iter, tol)
    modes = _chosen(ranks, X.ndim)
    share = None if energy is None else _share(energy)
    if share is None and ranks is None:
        fail(
            "Neither ranks nor energy is given",
            fix="give numbers of columns, or a share such as energy=0.95",
        )

    def imputed(sizes: Sequence[int], seen: Tensor) -> Tucker:
        def model(Z: Tensor, before: Tucker | None) -> Tucker:
            # One sweep from the factors before: the imputation is what converges.
            start = None if before is None else list(before.factors)
            turns = max_iter if start is None else 1
            return _fit(Z, modes, sizes, init, turns, tol, start, squared_norm(Z))

        # What the ranks before left there.
        X.masked_fill_(~seen, 0.0)
        options: dict[str, Any] = {"max_iter": 20 * max_iter, "tol": tol}
        return impute(X, seen, model, rows=_rows_of, **options)

    if share is None:
        sizes = check_ranks(ranks, X.shape)
    elif observed is None:
        sizes = energy_ranks(X, modes, share, X.shape)
    else:
        sizes = observed_energy_ranks(X, observed, modes, share, imputed, rows=_rows_of)
    if observed is None:
        return _fit(X, modes, sizes, init, max_iter, tol, None, total)
    return imputed(sizes, observed)


def _rows_of(model: Tucker, part: slice) -> Tucker:
    first, *others = model.factors
    if first is None:
        return model._replace(core=model.core[part])
    return model._replace(factors=(first[part], *others))


def _chosen(ranks: Any, ndim: int) -> list[int]:
    """Return the modes that get a factor."""
    if ranks is None or np.ndim(ranks) == 0:
        return list(range(ndim))
    return [n for n, r in enumerate(ranks) if r is not None]


def _share(energy: Any) -> float:
    if check_number("energy", energy, above=0.0) > 1.0:
        fail(f"energy={energy!r}", fix="give a share above 0 and up to 1")
    return float(energy)


def cheapest_order(
    shape: Sequence[int], ranks: Sequence[int], modes: Sequence[int]
) -> tuple[int, ...]:
    """Return the order of modes in which ST-HOSVD multiplies least.

    A mode costs its size for the Gram and its rank for the projection, times the
    cells that are left when its turn comes.
    """
    if len(modes) > 6:
        return tuple(sorted(modes, key=lambda k: shape[k]))

    def cost(order: tuple[int, ...]) -> float:
        cells, total = float(math.prod(shape)), 0.0
        for k in order:
            total += cells * (shape[k] + ranks[k])
            cells *= ranks[k] / shape[k]
        return total

    return min(itertools.permutations(modes), key=cost)


def start_factors(
    X: Tensor,
    ranks: Sequence[int],
    init: str = "st-hosvd",
    modes: Sequence[int] | None = None,
) -> tuple[list[Any], Tensor]:
    """Return orthonormal factors of some modes, all by default, and their core."""
    modes = range(X.ndim) if modes is None else modes
    factors: list[Any] = [None] * X.ndim
    if init == "hosvd":
        for n in modes:
            factors[n] = leading_vectors(X, n, ranks[n])[0].to(X.dtype)
        return factors, project(X, factors, modes)
    core = X
    for n in cheapest_order(X.shape, ranks, modes):
        factors[n] = leading_vectors(core, n, ranks[n])[0].to(X.dtype)
        core = mode_product(core, factors[n].mT, n)
    return factors, core


def _fit(
    X: Tensor,
    modes: list[int],
    ranks: Sequence[int],
    init: str,
    max_iter: int,
    tol: float,
    factors: list[Any] | None,
    total: float,
) -> Tucker:
    if factors is None:
        factors, core = start_factors(X, ranks, init, modes)
        fit = _fit_of(core, total)
        # One mode, or nothing cut off: the start is the optimum.
        if len(modes) < 2 or all(ranks[n] == X.shape[n] for n in modes):
            max_iter = 0
    else:
        core, fit = project(X, factors, modes), -math.inf
    n_iter = 0

    def update(n: int, Y: Tensor) -> Tensor:
        return leading_vectors(Y, n, ranks[n])[0].to(Y.dtype)

    while n_iter < max_iter:
        core = sweep_projections(X, modes, factors, update)
        n_iter += 1
        before, fit = fit, _fit_of(core, total)
        if fit - before < tol:
            break
    core, factors = _canonical(core, factors, modes)
    return Tucker(core, tuple(factors), fit, n_iter)


def _fit_of(core: Tensor, total: float) -> float:
    # With orthonormal factors the error is the energy that the core has not.
    if total == 0.0:
        return 1.0
    return 1.0 - math.sqrt(max(total - squared_norm(core), 0.0) / total)


def _canonical(
    core: Tensor, factors: list[Any], modes: Sequence[int]
) -> tuple[Tensor, list[Any]]:
    """Return the same model with the columns of each factor by falling energy."""
    out = list(factors)
    for n in modes:
        slices = core.movedim(n, 0).reshape(core.shape[n], -1).double()
        order = slices.square().sum(dim=1).argsort(descending=True, stable=True)
        out[n] = factors[n][:, order]
        core = core.index_select(n, order)
    return core, out
