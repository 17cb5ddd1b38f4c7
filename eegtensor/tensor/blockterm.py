"""Block terms (L, L, 1): components that are a matrix of rank L times a vector."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._block_steps import begin, step_of
from eegtensor.tensor._missing import impute
from eegtensor.tensor._momentum import settle
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    as_tensor,
    check_rank,
    check_sweeps,
)
from eegtensor.tensor.cp import DEGENERATE, congruence
from eegtensor.tensor.kernels import peak_signs, squared_norm


class BlockTerm(NamedTuple):
    """A sum of R terms (A_r B_r') o c_r.

    Attributes
    ----------
    weights : array, shape (R,)
        Norms of the terms, falling; in the unit of X.
    A : array, shape (I, R, L)
        Per term orthonormal columns, by falling singular value of the map; the
        largest entry of each is positive.
    B : array, shape (J, R, L)
        Per term orthogonal columns, of joint norm one.
    c : array, shape (K, R)
        Columns of norm one, which carry the sign.
    fit : float
        1 - relative error over the observed cells.
    n_iter : int
        Sweeps over the whole tensor.
    start_fits : tuple of float
        Fit of each start, on the compressed tensor, when it was given up.
    congruence : float
        As in `CP`: above 0.95, two terms cancel each other.
    vector_mode : int
        Axis of X that c belongs to.
    """

    weights: Array
    A: Array
    B: Array
    c: Array
    fit: float
    n_iter: int
    start_fits: tuple[float, ...]
    congruence: float
    vector_mode: int

    @property
    def degenerate(self) -> bool:
        """Whether two terms nearly cancel each other."""
        return self.congruence > DEGENERATE

    @property
    def maps(self) -> Array:
        """Maps A_r B_r' of norm one, shape (R, I, J)."""
        return _maps(self.A, self.B)

    @property
    def blocks(self) -> tuple[Array, ...]:
        """Matrices (size, R) that `factor_match_score` compares."""
        return self.c, self.maps.reshape(len(self.weights), -1).T

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, in the shape of X."""
        return _rebuild(self.c * self.weights, self.A, self.B, self.vector_mode)


@bridged
def _maps(A: Tensor, B: Tensor) -> Tensor:
    return torch.einsum("irl,jrl->rij", A, B)


@bridged
def _rebuild(c: Tensor, A: Tensor, B: Tensor, vector_mode: int) -> Tensor:
    maps = _maps(A, B)
    X = (c @ maps.flatten(1)).reshape(len(c), *maps.shape[1:])
    return X.movedim(0, vector_mode)


@bridged
def block_term(
    X: Array,
    rank: int,
    L: int,
    *,
    vector_mode: int = 0,
    mask: Array | None = None,
    n_init: int = 6,
    ridge: float = 1e-9,
    max_iter: int = 400,
    tol: float = 1e-7,
    random_state: Random = 0,
) -> BlockTerm:
    """Return the decomposition of a 3-way tensor into (L, L, 1) block terms.

    A term is a source whose map over two modes needs L patterns (one that moves,
    or whose spectrum differs from channel to channel), and that changes as a whole
    along the third.

    Parameters
    ----------
    X : array or tensor, three axes
        NaN are missing cells.
    rank : int
        Number of terms, R.
    L : int
        Rank of each term's map; at most the sizes of both its modes.
    vector_mode : int
        Axis along which the maps stay: by default the first (trials).
    mask : array of bool, shape as X | None
        True for observed cells. Missing ones are imputed by the model in turn.
    n_init : int
        Starts on the compressed tensor: half of them CP components of rank R L
        that are alike along `vector_mode`, half random.
    ridge : float
        On the normal equations, relative to their mean diagonal.
    max_iter : int
    tol : float
        Change of the relative error that ends the sweeps.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    BlockTerm

    Raises
    ------
    EEGTensorError
        If X has not three axes, or rank, L or mask do not fit.

    References
    ----------
    L. De Lathauwer and D. Nion, "Decompositions of a higher-order tensor in block
    terms - Part III: alternating least squares algorithms", SIAM J. Matrix Anal.
    Appl., 2008.
    """
    R, L = check_rank(rank), check_rank(L, "L")
    check_rank(n_init, "n_init")
    check_sweeps(max_iter, tol, ridge)
    X, observed, total = as_tensor(X, mask, ndim=3)
    axis = slice_axis(X, vector_mode)
    Y = X.movedim(axis, 0).contiguous()
    if min(Y.shape[1:]) < L:
        fail(
            f"L={L} for maps of shape {tuple(Y.shape[1:])}",
            fix="give an L that is no larger than either side",
        )
    random = as_random(random_state)

    def model(Z: Tensor, before: BlockTerm | None) -> BlockTerm:
        norm = total if Z is Y else squared_norm(Z)
        fits: tuple[float, ...] = ()
        if before is None:
            state, fits = begin(Z, R, L, n_init, ridge, max_iter, tol, random)
            sweeps = max_iter
        else:
            fits, sweeps = before.start_fits, 3
            state = [before.c * before.weights, before.A, before.B]
        step = step_of(Z, norm, ridge)
        state, error, n_iter = settle(step, state, max_iter=sweeps, tol=tol)
        c, A, B = (U.double() for U in state)
        weights, A, B, c = _canonical(A, B, c)
        alike = congruence([c, _maps(A, B).flatten(1).mT])
        weights, A, B, c = (U.to(X.dtype) for U in (weights, A, B, c))
        return BlockTerm(weights, A, B, c, 1.0 - error**0.5, n_iter, fits, alike, axis)

    if observed is None:
        return model(Y, None)
    seen = observed.movedim(axis, 0)
    return impute(
        Y,
        seen,
        model,
        max_iter=max_iter,
        tol=tol,
        reconstruct=lambda m: m.reconstruct().movedim(axis, 0),
        rows=lambda m, part: m._replace(c=m.c[part]),
    )


def slice_axis(X: Tensor, vector_mode: int) -> int:
    """Return the axis of the slices, counted from 0, or raise."""
    whole = isinstance(vector_mode, (int, np.integer))
    if X.ndim != 3 or not whole or not -3 <= vector_mode < 3:
        fail(
            f"X has shape {tuple(X.shape)} and vector_mode={vector_mode!r}",
            fix="give three axes, and one of them as vector_mode: 0, 1 or 2",
        )
    return int(vector_mode) % 3


def _canonical(
    A: Tensor, B: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return weights, A, B and c in one form."""
    L = A.shape[2]
    Q_A, S_A = torch.linalg.qr(A.movedim(1, 0))
    Q_B, S_B = torch.linalg.qr(B.movedim(1, 0))
    U, s, Vh = torch.linalg.svd(S_A @ S_B.mT)
    A, B = Q_A @ U[..., :L], Q_B @ (Vh.mT[..., :L] * s[:, None, :])
    signs = torch.stack([peak_signs(part) for part in A])
    A, B = A * signs[:, None, :], B * signs[:, None, :]
    size_map, size_c = B.norm(dim=(1, 2)), c.norm(dim=0)
    weights = size_map * size_c
    B = B / torch.where(size_map > 0, size_map, 1.0)[:, None, None]
    c = c / torch.where(size_c > 0, size_c, 1.0)
    # The map's first pattern is positive at its peak in both modes.
    sign = torch.stack([peak_signs(part[:, :1])[0] for part in B]).to(c)
    order = weights.argsort(descending=True, stable=True)
    A, B = (U.movedim(0, 1)[:, order] for U in (A, B * sign[:, None, None]))
    return weights[order], A.contiguous(), B.contiguous(), (c * sign)[:, order]
