"""Products of tensors with matrices: Grams, mode products, Khatri-Rao, MTTKRP.

No unfolding is ever formed as a copy of the tensor: a tensor of shape (I_1, ...,
I_N) is read as (left, I_n, right), which costs nothing. Grams are float64 whatever
the tensor's dtype: float32 would square its rounding. A batch of patterns over
all modes is reached in two passes over the tensor (a dimension tree).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eegtensor.geometry._batched_eigh import eigh

# Bytes of the float64 copy that a Gram works through at a time: stays in the cache.
_PIECE = 4_000_000
# Rows of a wide matrix that a thin one is multiplied with at a time, and from how
# many columns and cells on (measured: 15 to 40 % less time on one core).
_ROWS, _WIDE, _LARGE = 16, 2048, 1 << 20


def three_axes(X: Tensor, mode: int) -> Tensor:
    """Return X read as (left, I_n, right), without a copy where X is contiguous."""
    left = math.prod(X.shape[:mode])
    return X.reshape(left, X.shape[mode], -1)


def mode_product(X: Tensor, U: Tensor, mode: int) -> Tensor:
    """Return X with U (J, I_n) applied along one mode, shape (..., J, ...)."""
    Y = three_axes(X, mode)
    if Y.shape[2] == 1:
        out = Y[:, :, 0] @ U.mT
    else:
        out = torch.matmul(U, Y)
    return out.reshape(*X.shape[:mode], len(U), *X.shape[mode + 1 :])


def project(X: Tensor, factors: Sequence[Tensor], modes: Sequence[int]) -> Tensor:
    """Return X with factor' (I_n, R_n) applied along every mode named.

    The mode that shrinks the tensor most goes first.
    """
    order = sorted(modes, key=lambda n: factors[n].shape[1] / factors[n].shape[0])
    for n in order:
        X = mode_product(X, factors[n].mT, n)
    return X


def sweep_projections(
    Y: Tensor,
    modes: Sequence[int],
    factors: list[Any],
    update: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """Update orthonormal factors in turn, each from Y projected on all the others.

    ``update(n, P)`` gets Y with every other mode named projected onto its newest
    factor, and returns factor n, (I_n, R_n), which is put into the list. Half of
    the modes is projected once for all of the other half's updates.

    Returns
    -------
    core : Tensor
        Y projected on all new factors.
    """
    if len(modes) == 1:
        n = modes[0]
        factors[n] = update(n, Y)
        return mode_product(Y, factors[n].mT, n)
    half = len(modes) // 2
    first, second = modes[:half], modes[half:]
    sweep_projections(project(Y, factors, second), first, factors, update)
    return sweep_projections(project(Y, factors, first), second, factors, update)


def expand(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Return the Tucker product of a core with one factor (I_n, R_n) per mode."""
    order = sorted(
        range(core.ndim), key=lambda n: factors[n].shape[0] / factors[n].shape[1]
    )
    for n in order:
        core = mode_product(core, factors[n], n)
    return core


def _same_twice(Z: Tensor) -> Tensor:
    """Return Z Z' of a float64 matrix."""
    if Z.device.type == "cpu":
        # NumPy sees that both factors are one matrix and does half of the work.
        array = Z.numpy()
        return torch.from_numpy(np.matmul(array, array.T))
    return Z @ Z.mT


def gram(X: Tensor, mode: int) -> Tensor:
    """Return X_(n) X_(n)' of the unfolding along a mode, (I_n, I_n), float64."""
    Y = three_axes(X, mode)
    left, size, right = Y.shape
    S = torch.zeros(size, size, dtype=torch.float64, device=X.device)
    if left == 1:
        step = max(1, _PIECE // (8 * size))
        for at in range(0, right, step):
            S += _same_twice(Y[0, :, at : at + step].double())
        return S
    step = max(1, _PIECE // (8 * size * right))
    for at in range(0, left, step):
        piece = Y[at : at + step].double()
        if right == 1:
            S += _same_twice(piece[:, :, 0].mT)
        else:
            S += _same_twice(piece.transpose(0, 1).reshape(size, -1))
    return S


def leading_vectors(X: Tensor, mode: int, rank: int) -> tuple[Tensor, Tensor]:
    """Return leading left singular vectors of an unfolding, and all squared values.

    Through the smaller of the two Grams.

    Returns
    -------
    U : Tensor, shape (I_n, rank), float64
        Orthonormal columns, their largest entries positive.
    energy : Tensor, shape (min(I_n, others),), descending
        Squared singular values.
    """
    size = X.shape[mode]
    others = X.numel() // max(size, 1)
    if size <= others:
        values, vectors = eigh(gram(X, mode))
        found = vectors.flip(-1)[:, :rank]
        return positive_peaks(found), values.flip(-1).clamp_min(0.0)
    flat = three_axes(X, mode).transpose(0, 1).reshape(size, others).double()
    values, vectors = eigh(_same_twice(flat.mT))
    found = flat @ vectors.flip(-1)[:, :rank]
    if found.shape[1] < rank:
        eye = torch.eye(size, dtype=found.dtype, device=found.device)
        found = torch.cat([found, eye], dim=1)
    # Columns without energy are rounding: QR makes them an orthonormal rest.
    found = torch.linalg.qr(found)[0][:, :rank]
    return positive_peaks(found), values.flip(-1).clamp_min(0.0)


def peak_signs(U: Tensor) -> Tensor:
    """Return the sign of each column's largest entry, 1.0 or -1.0, shape (R,)."""
    largest = U.gather(0, U.abs().argmax(dim=0, keepdim=True))[0]
    return torch.where(largest < 0, -1.0, 1.0).to(U)


def positive_peaks(U: Tensor) -> Tensor:
    """Return columns with signs that make their largest entries positive."""
    return U * peak_signs(U)


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Return the column-wise Khatri-Rao product, one row per column: (R, prod I_n).

    The last factor's index runs fastest, as in a reshaped tensor.
    """
    # Rows, not columns: a product of a thin matrix with a tensor is then twice as
    # fast.
    out = factors[0].mT.contiguous()
    for U in factors[1:]:
        out = (out[:, :, None] * U.mT[:, None, :]).flatten(1)
    return out


def thin_product(thin: Tensor, X: Tensor) -> Tensor:
    """Return the product of a matrix of few rows, (R, I), with a large one, (I, J)."""
    rows, columns = X.shape
    if X.device.type != "cpu" or columns < _WIDE or X.numel() < _LARGE:
        return thin @ X
    # A few rows at a time are read where they lie; a whole matrix is first copied
    # to the order that the library's product likes, at the price of the product.
    out = thin[:, :_ROWS] @ X[:_ROWS]
    for at in range(_ROWS, rows, _ROWS):
        out.addmm_(thin[:, at : at + _ROWS], X[at : at + _ROWS])
    return out


def split_modes(shape: Sequence[int]) -> int:
    """Return where to cut the modes so that the larger half is smallest."""
    sides = [
        (max(math.prod(shape[:k]), math.prod(shape[k:])), k)
        for k in range(1, len(shape))
    ]
    return min(sides)[1]


def sweep_modes(
    X: Tensor,
    factors: list[Tensor],
    update: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """Update every factor in turn from its MTTKRP, in two passes over X.

    ``update(n, M)`` gets M = X_(n) KR(other factors), shape (I_n, R), made with the
    newest factors, and returns the new factor n, which is put into the list.

    Returns
    -------
    M : Tensor
        The last MTTKRP, of the last mode.
    """
    k = split_modes(X.shape)
    flat = X.reshape(math.prod(X.shape[:k]), -1)
    _sweep_half(khatri_rao(factors[k:]) @ flat.mT, X.shape[:k], 0, factors, update)
    left = thin_product(khatri_rao(factors[:k]), flat)
    return _sweep_half(left, X.shape[k:], k, factors, update)


def _sweep_half(
    P: Tensor,
    shape: Sequence[int],
    first: int,
    factors: list[Tensor],
    update: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """Update the modes that P, (R, prod shape), still has."""
    if len(shape) == 1:
        factors[first] = update(first, P.mT)
        return P.mT
    k = split_modes(shape)
    T = P.reshape(len(P), math.prod(shape[:k]), -1)
    after = khatri_rao(factors[first + k : first + len(shape)])
    part = (T @ after[:, :, None])[:, :, 0]
    _sweep_half(part, shape[:k], first, factors, update)
    before = khatri_rao(factors[first : first + k])
    part = (before[:, None, :] @ T)[:, 0]
    return _sweep_half(part, shape[k:], first + k, factors, update)


def mttkrp(X: Tensor, factors: Sequence[Tensor], mode: int) -> Tensor:
    """Return X_(n) times the Khatri-Rao product of the other factors, (I_n, R).

    Parameters
    ----------
    X : Tensor, shape (I_1, ..., I_N)
    factors : sequence of Tensor, shape (I_n, R)
        The one of `mode` is not used.
    mode : int
    """
    Y = three_axes(X, mode)
    if mode == 0:
        return (khatri_rao(factors[1:]) @ Y[0].mT).mT
    before = khatri_rao(factors[:mode])
    if mode == X.ndim - 1:
        return thin_product(before, Y[:, :, 0]).mT
    after = khatri_rao(factors[mode + 1 :])
    part = (after @ Y.reshape(-1, Y.shape[2]).mT).reshape(-1, *Y.shape[:2])
    return torch.einsum("rli,rl->ir", part, before)


def squared_norm(X: Tensor) -> float:
    """Return the sum of squares, in float64, without a float64 copy of X."""
    flat = X.reshape(-1)
    step, total = _PIECE // 8, 0.0
    for at in range(0, max(flat.numel(), 1), step):
        part = flat[at : at + step]
        # In float64 it is no copy: only others may be squared in place.
        whole = part.dtype == torch.float64
        part = part.square() if whole else part.double().square_()
        total += float(part.sum())
    return total


def sum_of_components(weights: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Return sum_r weights_r a_r o b_r o c_r ..., shape (I_1, ..., I_N)."""
    k = max(1, len(factors) // 2)
    first = khatri_rao(factors[:k]) * weights[:, None]
    whole = first.mT @ khatri_rao(factors[k:])
    return whole.reshape([len(U) for U in factors])
