"""CP decomposition (PARAFAC): compress, alternate on the core, then refine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_number
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import alternate
from eegtensor.tensor._missing import slice_means
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    as_tensor,
    check_rank,
    check_sweeps,
    normal,
)
from eegtensor.tensor.kernels import peak_signs, squared_norm, sum_of_components
from eegtensor.tensor.tucker import start_factors

# Columns whose products of cosines come nearer than this cancel each other.
DEGENERATE = 0.95


class CP(NamedTuple):
    """A sum of R rank-one tensors.

    Attributes
    ----------
    weights : array, shape (R,)
        Norms of the components, falling; in the unit of X.
    factors : tuple of array, shape (I_n, R)
        Columns of norm one. The largest entry of each is positive in every mode
        but the first, which carries the sign.
    fit : float
        1 - ||X - reconstruction|| / ||X|| over the observed cells.
    n_iter : int
        Sweeps over the whole tensor.
    start_fits : tuple of float
        Fit that each start reached on the compressed tensor (without masks):
        if they differ, there are several optima.
    congruence : float
        Largest |product over modes of cosines| of two components; above 0.95 they
        nearly cancel and their shapes mean nothing (degeneracy): use a lower rank,
        non-negative factors or a ridge.
    """

    weights: Array
    factors: tuple[Array, ...]
    fit: float
    n_iter: int
    start_fits: tuple[float, ...]
    congruence: float

    @property
    def degenerate(self) -> bool:
        """Whether two components nearly cancel each other."""
        return self.congruence > DEGENERATE

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, shape (I_1, ..., I_N)."""
        return _rebuild(self.weights, *self.factors)


@bridged
def _rebuild(weights: Tensor, *factors: Tensor) -> Tensor:
    return sum_of_components(weights, factors)


@bridged
def cp(
    X: Array,
    rank: int,
    *,
    mask: Array | None = None,
    n_init: int = 2,
    compress: float | None = 2.0,
    ridge: float = 1e-9,
    max_iter: int = 100,
    tol: float = 1e-5,
    random_state: Random = 0,
) -> CP:
    """Return the CP decomposition of a tensor by alternating least squares.

    The tensor is compressed to an orthonormal subspace of each mode first, the
    starts compete on the small core, and the best is refined on the tensor itself.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N), N >= 2
        NaN are missing cells.
    rank : int
        Number of components.
    mask : array of bool, shape as X | None
        True for observed cells: least squares then count them alone.
    n_init : int
        Starts: the leading singular vectors of each mode, then random ones.
    compress : float | None
        Ranks of the core in multiples of `rank`; None starts on the whole tensor.
    ridge : float
        On the normal equations, relative to their mean diagonal; keeps degenerate
        components bounded.
    max_iter : int
        Sweeps over the whole tensor (and on the core, for each start).
    tol : float
        It stops when two sweeps in turn lower the relative error by less.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    CP

    Raises
    ------
    EEGTensorError
        If X holds infinity, or shape, rank or mask do not fit.

    References
    ----------
    J. D. Carroll et al., "CANDELINC", Psychometrika, 1980 (compression). A.-H.
    Phan et al., "Fast alternating LS algorithms for high order CANDECOMP/PARAFAC
    tensor factorizations", IEEE Trans. Signal Process., 2013 (dimension trees).
    """
    R = check_rank(rank)
    X, observed, norm = as_tensor(X, mask)
    return decompose(
        X,
        observed,
        norm,
        R,
        n_init=n_init,
        compress=compress,
        ridge=ridge,
        max_iter=max_iter,
        tol=tol,
        random_state=random_state,
    )


def decompose(
    X: Tensor,
    observed: Tensor | None,
    norm: float,
    R: int,
    *,
    n_init: int = 2,
    compress: float | None = 2.0,
    ridge: float = 1e-9,
    max_iter: int = 100,
    tol: float = 1e-5,
    random_state: Random = 0,
) -> CP:
    """Return what `cp` does, of what `as_tensor` returns, without another copy.

    Missing cells of X are overwritten, and zero again at the end.
    """
    check_rank(n_init, "n_init")
    check_sweeps(max_iter, tol, ridge)
    if compress is not None:
        check_number("compress", compress, above=0.0)
    random = as_random(random_state)
    sizes = [_core_rank(size, R, compress) for size in X.shape]
    if observed is not None:
        # In place, since X is our own copy then: a filled one would cost as much.
        torch.where(observed, X, slice_means(X, observed), out=X)
    basis, core = start_factors(X, sizes)
    if observed is not None:
        X.masked_fill_(~observed, 0.0)
    total = squared_norm(core)
    best: list[Tensor] | None = None
    fits: list[float] = []
    core = core.double()
    for start in range(n_init):
        factors = [_first(len_, R, start, random, X.device) for len_ in sizes]
        error, _ = alternate(core, factors, total, ridge, max_iter, tol)
        fits.append(1.0 - math.sqrt(error))
        if fits[-1] >= max(fits):
            best = factors
    assert best is not None
    factors = [(U.double() @ A).to(X.dtype) for U, A in zip(basis, best, strict=True)]
    error = math.inf
    if observed is None and norm > 0.0:
        # What compression has cut off, and what the core's model leaves.
        error = max(norm - total * (1.0 - (1.0 - max(fits)) ** 2), 0.0) / norm
    error, n_iter = alternate(
        X, factors, norm, ridge, max_iter, tol, observed=observed, error=error
    )
    weights, factors = canonical(factors)
    return CP(
        weights,
        tuple(factors),
        1.0 - math.sqrt(error),
        n_iter,
        tuple(fits),
        congruence(factors),
    )


def rows_of(model: CP, part: slice) -> CP:
    """Return the model of some entries of the first mode."""
    return model._replace(factors=(model.factors[0][part], *model.factors[1:]))


def _core_rank(size: int, rank: int, compress: float | None) -> int:
    return size if compress is None else min(size, max(1, math.ceil(compress * rank)))


def _first(
    size: int, rank: int, start: int, random: object, device: torch.device
) -> Tensor:
    """Return a start on the core, whose axes are the leading singular vectors."""
    if start > 0:
        return normal((size, rank), random).to(device)  # type: ignore[arg-type]
    eye = torch.eye(size, rank, dtype=torch.float64, device=device)
    if rank > size:
        eye[:, size:] = normal((size, rank - size), random).to(device)  # type: ignore[arg-type]
    return eye


def canonical(
    factors: Sequence[Tensor], carrier: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """Return weights and unit-norm factors; signs and order do not depend on chance.

    Peaks are positive in all modes but the carrier of the signs.
    """
    norms = [U.double().norm(dim=0) for U in factors]
    weights = torch.stack(norms).prod(dim=0)
    order = weights.argsort(descending=True, stable=True)
    unit = [
        (U.double() / torch.where(size > 0, size, 1.0))[:, order]
        for U, size in zip(factors, norms, strict=True)
    ]
    carried = torch.ones_like(weights)
    for n in range(len(unit)):
        if n != carrier:
            sign = peak_signs(unit[n])
            unit[n] = unit[n] * sign
            carried = carried * sign
    unit[carrier] = unit[carrier] * carried
    dtype = factors[0].dtype
    return weights[order].to(dtype), [U.to(dtype) for U in unit]


def congruence(factors: Sequence[Tensor]) -> float:
    """Return the largest |product of cosines| between two components."""
    cosines = torch.ones((), dtype=torch.float64, device=factors[0].device)
    for U in factors:
        unit = torch.nn.functional.normalize(U.double(), dim=0)
        cosines = cosines * (unit.mT @ unit)
    if cosines.ndim == 0 or len(cosines) < 2:
        return 0.0
    return float((cosines - torch.diag_embed(cosines.diagonal())).abs().max())
