"""PARAFAC2: components whose time courses differ from slice to slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._batched_eigh import eigh
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._people import as_list
from eegtensor.tensor._race import race
from eegtensor.tensor._shapes import Random, as_random, check_rank, check_sweeps
from eegtensor.tensor._slice_fit import rescore_all, starts_together, sweep_of
from eegtensor.tensor._slice_scores import canonical_form, project_parts
from eegtensor.tensor._slices import (
    first_projection,
    first_states,
    modelled,
    read_slices,
)
from eegtensor.tensor.cp import DEGENERATE, congruence


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
    check_rank(n_init, "n_init")
    check_sweeps(max_iter, tol, ridge)
    parts = as_list(slices, "slices")
    masks = [] if mask is None else as_list(mask, "mask")
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
    if not isinstance(model, PARAFAC2):
        fail(f"model is {type(model).__name__}", fix="give what parafac2 returned")
    check_sweeps(max_iter, tol, least=1)
    parts = as_list(slices, "slices")
    masks = [] if mask is None else as_list(mask, "mask")
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
    filled = data.filled
    step = sweep_of(data.groups, ridge)
    drawn = first_states(filled, rank, n_init, random)
    together = starts_together(data, rank)
    best: tuple[list[Tensor], float, int, tuple[float, ...]] | None = None
    fits: tuple[float, ...] = ()
    for at in range(0, n_init, together):
        A, B, C = (U[at : at + together] for U in drawn)
        models = modelled(A, B, C).split(data.sizes, dim=1)
        state = [A, B, C, *map(first_projection, data.groups, models)]
        # Signs that a slice takes while C is still wrong would stay: none are yet.
        for _ in range(10):
            A, B, C, *P = state
            state, _ = step([A.abs(), B, C, *P])
        limit = max_iter if together >= n_init else max(5, max_iter // 10)
        found = race(step, state, max_iter=limit, tol=tol)
        fits += found[3]
        best = found if best is None or found[1] < best[1] else best
    assert best is not None
    state, error, n_iter, _ = best
    if together < n_init:
        state, error, more, _ = race(step, state, max_iter=max_iter, tol=tol)
        n_iter += more
    total = max(float(filled.norms.sum()), torch.finfo(torch.float64).tiny)
    for turn in range(4):
        A, B, C, *P = state
        A, P, lost = rescore_all(data, A, B, C, P, 200, 1e-9)
        left = float(lost.sum()) / total
        if turn == 3 or error**0.5 - left**0.5 < max(10.0 * tol, 1e-6):
            break
        # Some slices had been on the wrong side: the others' part moves with them.
        state, error, more, _ = race(step, [A, B, C, *P], max_iter=max_iter, tol=tol)
        n_iter += more
    A, B, C, rotation, sign = canonical_form(A[0], B[0], C[0])
    turned = [
        p if group.Z is None else p @ rotation * s[:, None, None]
        for group, p, s in zip(data.groups, P, sign.split(data.sizes), strict=True)
    ]
    projections, lost = project_parts(data, A, B, C, turned)
    dtype, back = projections[0].dtype, data.as_given
    return PARAFAC2(
        A[back].to(dtype),
        B.to(dtype),
        C.to(dtype),
        tuple(projections[at] for at in back),
        1.0 - (float(lost.sum()) / total) ** 0.5,
        n_iter,
        fits,
        congruence([A, B, C]),
    )


@bridged
def _score(
    B: Tensor, C: Tensor, *given: Tensor, n: int, max_iter: int, tol: float
) -> PARAFAC2Scores:
    B, C, data = B.double(), C.double(), read_slices(given, n, B.shape[1])
    filled = data.filled
    if filled.grams.shape[1] != len(C):
        fail(
            f"Slices have {filled.grams.shape[1]} columns, the model {len(C)}",
            fix="give slices with the columns of those that it was fitted to",
        )
    # X_k' X_k = C (a a' * B' B) C' tells a up to its sign, where the model holds.
    inverse = torch.linalg.pinv(C)
    outer = inverse @ filled.grams @ inverse.mT
    signs = torch.where(eigh(outer * (B.mT @ B))[1][..., -1] < 0, -1.0, 1.0).to(B)
    A = signs * outer.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    models = modelled(A[None], B[None], C[None]).split(data.sizes, dim=1)
    P = list(map(first_projection, data.groups, models))
    A, P, _ = rescore_all(data, A[None], B[None], C[None], P, max_iter, tol)
    sign = torch.where(A[0].sum(dim=1) < 0, -1.0, 1.0).to(A)
    turned = [
        p if group.Z is None else p * s[:, None, None]
        for group, p, s in zip(data.groups, P, sign.split(data.sizes), strict=True)
    ]
    A = A[0] * sign[:, None]
    projections, lost = project_parts(data, A, B, C, turned)
    fits = 1.0 - (lost / torch.where(filled.norms > 0, filled.norms, 1.0)).sqrt()
    dtype, back = projections[0].dtype, data.as_given
    return PARAFAC2Scores(
        A[back].to(dtype), tuple(projections[at] for at in back), fits[back].to(dtype)
    )
