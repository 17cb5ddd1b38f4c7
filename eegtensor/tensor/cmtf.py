"""Coupled matrix and tensor factorisation: one factor serves both."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.geometry._batched_eigh import eigh
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import normal_matrix, solve
from eegtensor.tensor._missing import Estimate, row_parts
from eegtensor.tensor._momentum import Step, compete, settle
from eegtensor.tensor._people import impute_people, read_people, relative_fits
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    check_rank,
    check_sweeps,
    normal,
)
from eegtensor.tensor.cp import DEGENERATE, canonical, congruence
from eegtensor.tensor.kernels import (
    gram,
    leading_vectors,
    mode_product,
    squared_norm,
    sum_of_components,
    sweep_modes,
)


class CMTF(NamedTuple):
    """A tensor [[A, B, ...]] and a matrix A V'.

    Attributes
    ----------
    weights : array, shape (R,)
        Norms of the tensor's components, falling; in its unit.
    factors : tuple of array, shape (I_n, R)
        As in `CP`; the first is common.
    loadings : array, shape (M, R)
        V, in the unit of the matrix.
    fit, fit_matrix : float
        1 - relative error of each over its observed cells.
    n_iter : int
    start_fits : tuple of float
        Joint fit of each start when it was given up.
    congruence : float
        As in `CP`, of the tensor's components.
    """

    weights: Array
    factors: tuple[Array, ...]
    loadings: Array
    fit: float
    fit_matrix: float
    n_iter: int
    start_fits: tuple[float, ...]
    congruence: float

    @property
    def degenerate(self) -> bool:
        """Whether two components nearly cancel each other."""
        return self.congruence > DEGENERATE

    def reconstruct(self) -> tuple[Array, Array]:
        """Return the tensor and the matrix that the model stands for."""
        tensor = _rebuild(self.weights, *self.factors)
        return tensor, self.factors[0] @ self.loadings.T


@bridged
def _rebuild(weights: Tensor, *factors: Tensor) -> Tensor:
    return sum_of_components(weights, factors)


@bridged
def cmtf(
    X: Array,
    Y: Array,
    rank: int,
    *,
    balance: float = 1.0,
    mask: Array | None = None,
    mask_matrix: Array | None = None,
    n_init: int = 8,
    ridge: float = 1e-9,
    max_iter: int = 400,
    tol: float = 1e-7,
    random_state: Random = 0,
) -> CMTF:
    """Return a joint model of a tensor and of a matrix with the same first mode.

    Trials with EEG and with other measures (behaviour, stimulus, heart): minimises
    ``||X - [[A, B, ...]]||^2 / ||X||^2 + balance ||Y - A V'||^2 / ||Y||^2``.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N)
    Y : array or tensor, shape (I_1, M)
        NaN are missing cells in both.
    rank : int
    balance : float
        How much the matrix counts.
    mask, mask_matrix : array of bool | None
        True for observed cells. Missing ones are imputed by the model in turn.
    n_init : int
        Starts on the compressed tensor.
    ridge : float
        On the normal equations, relative to their mean diagonal.
    max_iter : int
    tol : float
        Change of the relative error that ends the sweeps.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    CMTF

    Raises
    ------
    EEGTensorError
        If shapes, rank, balance or masks do not fit.

    References
    ----------
    E. Acar, T. G. Kolda and D. M. Dunlavy, "All-at-once optimization for coupled
    matrix and tensor factorizations", arXiv:1105.3422, 2011.
    """
    R, random = check_rank(rank), as_random(random_state)
    check_rank(n_init, "n_init")
    check_sweeps(max_iter, tol, ridge)
    check_number("balance", balance, above=0.0)
    if not (isinstance(X, Tensor) and isinstance(Y, Tensor)):
        fail(
            f"X is {type(X).__name__}, Y is {type(Y).__name__}",
            fix="give NumPy arrays or tensors",
        )
    if Y.ndim != 2 or X.ndim < 2 or len(X) != len(Y):
        fail(
            f"X has shape {tuple(X.shape)}, Y {tuple(Y.shape)}",
            fix="give a tensor and a matrix of equal first size",
        )
    masks = _masks(X, Y, mask, mask_matrix)
    both = read_people([X, Y.to(X.device), *masks], 2, (1.0, balance))

    def model(parts: list[Tensor], before: _Found | None) -> _Found:
        step = _step(parts, ridge)
        if before is not None:
            state, error, n_iter = settle(step, before.state, max_iter=3, tol=tol)
            return _Found(state, 1.0 - error**0.5, n_iter, before.start_fits)
        state, fits = _begin(parts, R, n_init, ridge, max_iter, tol, random)
        state, error, n_iter = settle(step, state, max_iter=max_iter, tol=tol)
        return _Found(state, 1.0 - error**0.5, n_iter, fits)

    if both.observed is None:
        found = model(both.parts, None)
    else:
        found = impute_people(
            both, model, lambda m: _estimate(m.state), max_iter=max_iter, tol=tol
        )
    (fit, fit_matrix), _ = relative_fits(both, _estimate(found.state))
    *factors, V = (U.double() for U in found.state)
    # What `canonical` does to A: order, size and sign, which V answers.
    weights, unit = canonical(factors)
    size = factors[0].norm(dim=0)
    order = torch.stack([U.norm(dim=0) for U in factors]).prod(dim=0)
    order = order.argsort(descending=True, stable=True)
    sign = (factors[0][:, order] * unit[0]).sum(dim=0).sign()
    V = (V * size)[:, order] * sign / both.scale[1]
    return CMTF(
        (weights / both.scale[0]).to(both.parts[0].dtype),
        tuple(U.to(both.parts[0].dtype) for U in unit),
        V.to(both.parts[1].dtype),
        fit,
        fit_matrix,
        found.n_iter,
        found.start_fits,
        congruence(unit),
    )


class _Found(NamedTuple):
    """State [A, B, ..., V] and how it came about."""

    state: list[Tensor]
    fit: float
    n_iter: int
    start_fits: tuple[float, ...]


def _masks(X: Tensor, Y: Tensor, mask: Any, mask_matrix: Any) -> list[Tensor]:
    if mask is None and mask_matrix is None:
        return []
    whole = [torch.ones(Z.shape, dtype=torch.bool) for Z in (X, Y)]
    return [
        whole[0] if mask is None else mask,
        whole[1] if mask_matrix is None else mask_matrix,
    ]


def _estimate(state: list[Tensor]) -> Estimate:
    """Return what gives some rows of the tensor (0) or of the matrix (1)."""
    A, *factors, V = state

    def part_of(s: int, part: slice) -> Tensor:
        if s == 1:
            return A[part] @ V.mT
        return sum_of_components(torch.ones_like(A[0]), [A[part], *factors])

    return part_of


def _step(parts: list[Tensor], ridge: float) -> Step:
    """Return one sweep over [A, B, ..., V]."""
    X, Y = parts
    total = squared_norm(X) + squared_norm(Y)

    def step(state: list[Tensor]) -> tuple[list[Tensor], float]:
        if total == 0.0:
            return [torch.zeros_like(U) for U in state], 0.0
        *factors, V = _balanced(state)
        grams = [U.double().mT @ U.double() for U in factors]
        inner = {}

        def update(n: int, M: Tensor) -> Tensor:
            W, M = normal_matrix(grams, n), M.double()
            if n == 0:
                U = solve(W + V.double().mT @ V.double(), M + (Y @ V).double(), ridge)
            else:
                U = solve(W, M, ridge)
            grams[n] = U.mT @ U
            inner["tensor"] = (M * U).sum()
            return U.to(X.dtype)

        sweep_modes(X, factors, update)
        A = factors[0]
        right = (Y.mT @ A).double()
        V = solve(grams[0], right, ridge)
        lost = total - 2.0 * inner["tensor"] + normal_matrix(grams, -1).sum()
        lost = lost + (V * (V @ grams[0] - 2.0 * right)).sum()
        return [*factors, V.to(Y.dtype)], max(float(lost), 0.0) / total

    return step


def _balanced(state: list[Tensor]) -> list[Tensor]:
    """Return the same model with equal norms of a component's tensor factors."""
    *factors, V = state
    sizes = torch.stack([U.norm(dim=0) for U in factors])
    target = sizes.prod(dim=0) ** (1.0 / len(factors))
    ratio = torch.where((sizes > 0) & (target > 0), target / sizes, 1.0)
    out = [U * r for U, r in zip(factors, ratio, strict=True)]
    return [*out, V / ratio[0]]


def _begin(
    parts: list[Tensor],
    R: int,
    n_init: int,
    ridge: float,
    max_iter: int,
    tol: float,
    random: Any,
) -> tuple[list[Tensor], tuple[float, ...]]:
    """Return the best of several starts on compressed data, in full size."""
    X, Y = parts
    sizes = [min(size, 2 * R) for size in X.shape]
    # The first basis serves both.
    joint = gram(X, 0) + Y.double() @ Y.double().mT
    bases = [eigh(joint)[1].flip(-1)[:, : sizes[0]]]
    # In parts: X in double precision would be twice as large.
    core = X.new_zeros(sizes[0], *X.shape[1:], dtype=torch.float64)
    for part in row_parts(X.shape):
        core += mode_product(X[part].double(), bases[0][part].mT, 0)
    for n in range(1, X.ndim):
        bases.append(leading_vectors(core, n, sizes[n])[0])
        core = mode_product(core, bases[n].mT, n)
    small = bases[0].mT @ Y.double()
    starts = []
    for start in range(n_init):
        drawn = [normal((size, R), random).to(core) for size in core.shape]
        if start == 0:
            for n, U in enumerate(drawn):
                k = min(R, len(U))
                drawn[n] = torch.cat([torch.eye(len(U), k).to(U), U[:, k:]], dim=1)
        starts.append([*drawn, normal((Y.shape[1], R), random).to(core)])
    step = _step([core.contiguous(), small], ridge)
    (*state, V), *_, fits = compete(step, starts, max_iter=max_iter, tol=tol)
    full = [(Q @ U).to(X.dtype) for Q, U in zip(bases, state, strict=True)]
    return [*full, V.to(Y.dtype)], fits
