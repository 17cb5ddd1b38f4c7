"""PARAFAC2: components whose time courses differ from slice to slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._batched_eigh import eigh
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._momentum import compete, settle
from eegtensor.tensor._shapes import Random, as_random, check_rank
from eegtensor.tensor._slices import (
    canonical_form,
    first_state,
    modelled,
    polar,
    project_parts,
    read_slices,
    rescore,
    sweep_slices,
)
from eegtensor.tensor.cp import DEGENERATE, congruence
from eegtensor.tensor.kernels import squared_norm


class PARAFAC2(NamedTuple):
    """Slices X_k = P_k B diag(a_k) C', with orthonormal P_k.

    Attributes
    ----------
    A : array, shape (K, R)
        Size of each component in each slice, in the unit of X; columns by falling
        norm. The sum of each row and of each column is not negative.
    B : array, shape (R, R)
        Symmetric; B' B holds the cosines between time courses, the same in every
        slice.
    C : array, shape (J, R)
        Columns of norm one, their largest entry positive.
    projections : tuple of array, shape (I_k, R)
        Orthonormal columns. ``projections[k] @ B`` are time courses of norm one.
    fit : float
        1 - relative error over the observed cells.
    n_iter : int
    start_fits : tuple of float
        Fit of each start when it was given up, or at the end.
    congruence : float
        As in `CP`: above 0.95, components cancel each other.
    """

    A: Array
    B: Array
    C: Array
    projections: tuple[Array, ...]
    fit: float
    n_iter: int
    start_fits: tuple[float, ...]
    congruence: float

    @property
    def degenerate(self) -> bool:
        """Whether two components nearly cancel each other."""
        return self.congruence > DEGENERATE

    @property
    def courses(self) -> tuple[Array, ...]:
        """Time courses of norm one of every slice, shape (I_k, R)."""
        return tuple(P @ self.B for P in self.projections)

    @property
    def blocks(self) -> tuple[Array, ...]:
        """Matrices (size, R) that `factor_match_score` compares."""
        return self.A, _stack(*self.courses), self.C

    def reconstruct(self) -> tuple[Array, ...]:
        """Return the slices that the model stands for, shapes (I_k, J)."""
        return tuple(
            (F * a) @ self.C.T for F, a in zip(self.courses, self.A, strict=True)
        )


class PARAFAC2Scores(NamedTuple):
    """New slices in the terms of a model.

    Attributes
    ----------
    A : array, shape (K, R)
    projections : tuple of array, shape (I_k, R)
    fits : array, shape (K,)
        1 - relative error of each slice over its observed cells.
    """

    A: Array
    projections: tuple[Array, ...]
    fits: Array


@bridged
def _stack(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def parafac2(
    slices: Array | Sequence[Array],
    rank: int,
    *,
    mask: Array | Sequence[Array] | None = None,
    n_init: int = 8,
    ridge: float = 1e-9,
    max_iter: int = 1000,
    tol: float = 1e-7,
    random_state: Random = 0,
) -> PARAFAC2:
    """Return the PARAFAC2 decomposition of slices that share one axis.

    The slices (people, trials) may differ in length: channel maps C are common,
    time courses are each slice's own, and only their inner products are common.

    Parameters
    ----------
    slices : sequence of array, shape (I_k, J) | array, shape (K, I, J)
        NaN are missing cells.
    rank : int
        At most the shortest length.
    mask : as slices | None
        True for observed cells. Missing ones are imputed by the model in turn.
    n_init : int
        Starts: leading singular vectors, then random ones. They run side by side
        and the worse half leaves, again and again.
    ridge : float
        On the normal equations, relative to their mean diagonal.
    max_iter : int
    tol : float
        Change of the relative error that ends the sweeps.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    PARAFAC2

    Raises
    ------
    EEGTensorError
        If shapes or rank do not fit, or a slice holds infinity or no observed cell.

    References
    ----------
    H. A. L. Kiers et al., "PARAFAC2 - Part I. A direct fitting algorithm for the
    PARAFAC2 model", J. Chemometrics, 1999.
    """
    R = check_rank(rank)
    if n_init < 1:
        fail(f"n_init={n_init!r}", fix="give 1 or more starts")
    parts = list(slices)
    masks = [] if mask is None else list(mask)
    options = {
        "n": len(parts),
        "rank": R,
        "n_init": n_init,
        "ridge": ridge,
        "max_iter": max_iter,
        "tol": tol,
        "random": as_random(random_state),
    }
    result: PARAFAC2 = _fit(*parts, *masks, **options)
    return result


def parafac2_project(
    model: PARAFAC2,
    slices: Array | Sequence[Array],
    *,
    mask: Array | Sequence[Array] | None = None,
    max_iter: int = 200,
    tol: float = 1e-9,
) -> PARAFAC2Scores:
    """Return new slices in the terms of a fitted model: C and B stay, A and P move.

    Each slice's result depends on that slice alone.

    Parameters
    ----------
    model : PARAFAC2
    slices, mask
        As in `parafac2`.
    max_iter : int
    tol : float
        Change of a slice's squared relative error that ends its iterations.

    Returns
    -------
    PARAFAC2Scores
    """
    parts = list(slices)
    masks = [] if mask is None else list(mask)
    result: PARAFAC2Scores = _score(
        model.B, model.C, *parts, *masks, n=len(parts), max_iter=max_iter, tol=tol
    )
    return result


@bridged
def _fit(
    *given: Tensor,
    n: int,
    rank: int,
    n_init: int,
    ridge: float,
    max_iter: int,
    tol: float,
    random: Any,
) -> PARAFAC2:
    data = read_slices(given, n, rank)
    total = max(float(data.norms.sum()), torch.finfo(torch.float64).tiny)

    def step(state: list[Tensor]) -> tuple[list[Tensor], float]:
        P, A, B, C = state
        Z = data.Z
        if data.observed is not None:
            Z = torch.where(data.observed, Z, modelled(P, A, B, C))
        P = polar(Z @ ((C * A[:, None, :]) @ B.mT), P)
        Y = (P.mT @ Z).contiguous()
        energy = squared_norm(Y)
        factors, error = sweep_slices(Y, [A, B, C], energy, ridge)
        if data.observed is None:
            return [P, *factors], max(total - energy * (1.0 - error), 0.0) / total
        rest = torch.where(data.observed, data.Z - modelled(P, *factors), 0.0)
        return [P, *factors], squared_norm(rest) / total

    starts = [first_state(data.Z, rank, start, random) for start in range(n_init)]
    # Signs that a slice takes while C is still wrong would stay: none are taken yet.
    for _ in range(10):
        starts = [step([P, A.abs(), B, C])[0] for P, A, B, C in starts]
    state, error, n_iter, fits = compete(step, starts, max_iter=max_iter, tol=tol)
    for turn in range(4):
        P, A, B, C = state
        A, P, errors = rescore(data, B, C, A, P, 200, 1e-9)
        left = float(errors.sum()) / total
        if turn == 3 or error**0.5 - left**0.5 < max(10.0 * tol, 1e-6):
            break
        # Some slices had been on the wrong side: the others' part moves with them.
        state, error, more = settle(step, [P, A, B, C], max_iter=max_iter, tol=tol)
        n_iter += more
    A, B, C, rotation, sign = canonical_form(A, B, C)
    P = sign[:, None, None] * (P @ rotation)
    dtype = data.parts[0].dtype
    return PARAFAC2(
        A.to(dtype),
        B.to(dtype),
        C.to(dtype),
        project_parts(data, A, B, C, P),
        1.0 - left**0.5,
        n_iter,
        fits,
        congruence([A, B, C]),
    )


@bridged
def _score(
    B: Tensor, C: Tensor, *given: Tensor, n: int, max_iter: int, tol: float
) -> PARAFAC2Scores:
    B, C = B.double(), C.double()
    data = read_slices(given, n, B.shape[1])
    if data.Z.shape[2] != len(C):
        fail(
            f"Slices have {data.Z.shape[2]} columns, the model {len(C)}",
            fix="give slices with the columns of those that it was fitted to",
        )
    # X_k' X_k = C (a a' * B' B) C' tells a up to its sign, where the model holds.
    K = len(data.Z)
    inverse = torch.linalg.pinv(C)
    outer = inverse @ (data.Z.mT @ data.Z) @ inverse.mT
    signs = eigh(outer * (B.mT @ B))[1][..., -1]
    signs = torch.where(signs < 0, -1.0, 1.0).to(B)
    signs = signs * torch.where(signs.sum(dim=1) < 0, -1.0, 1.0).to(B)[:, None]
    A = signs * outer.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    m, R = data.Z.shape[1], B.shape[1]
    P = torch.eye(m, R, dtype=B.dtype, device=B.device).expand(K, m, R)
    A, P, errors = rescore(data, B, C, A, P, max_iter, tol)
    sign = torch.where(A.sum(dim=1) < 0, -1.0, 1.0).to(A)
    A, P = A * sign[:, None], P * sign[:, None, None]
    norms = torch.where(data.norms > 0, data.norms, 1.0)
    dtype = data.parts[0].dtype
    return PARAFAC2Scores(
        A.to(dtype),
        project_parts(data, A, B, C, P),
        (1.0 - (errors / norms).sqrt()).to(dtype),
    )
