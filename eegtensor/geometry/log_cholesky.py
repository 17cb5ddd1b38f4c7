"""The log-Cholesky metric of Lin (2019): no eigendecomposition at all.

Coordinates are the strictly lower part of the Cholesky factor and the logarithm
of its diagonal. The coordinates of the strictly lower part carry the unit:
distances depend on it, unlike those of the other curved metrics.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eegtensor.geometry._cholesky import definite_factor, left_solve
from eegtensor.geometry._flat import FlatMetric
from eegtensor.geometry.spectral import symmetrize


def _diagonal(X: Tensor) -> Tensor:
    return X.diagonal(dim1=-2, dim2=-1)


def _split(L: Tensor, diagonal: Tensor) -> Tensor:
    return L.tril(-1) + torch.diag_embed(diagonal)


def coordinates(A: Tensor) -> Tensor:
    """Return strictly lower(L) + log diag(L), lower triangular."""
    L = definite_factor(A)[1]
    return _split(L, _diagonal(L).log())


def point(P: Tensor) -> Tensor:
    """Return L L' of the factor with coordinates P."""
    L = _split(P, _diagonal(P).exp())
    return symmetrize(L @ L.mT)


def _push(A: Tensor, *tangents: Tensor) -> tuple[Tensor, ...]:
    L = definite_factor(A)[1]
    diagonal = _diagonal(L)
    out = [_split(L, diagonal.log())]
    for V in tangents:
        # dL = L (L^-1 V L^-T)_(1/2): the lower part with half the diagonal.
        Y = left_solve(L, left_solve(L, symmetrize(V)).mT)
        moved = L @ _split(Y, 0.5 * _diagonal(Y))
        out.append(_split(moved, _diagonal(moved) / diagonal))
    return tuple(out)


def _pull(P: Tensor, W: Tensor) -> Tensor:
    diagonal = _diagonal(P).exp()
    L = _split(P, diagonal)
    half = L @ _split(W, diagonal * _diagonal(W)).mT
    return half + half.mT


def _frame(N: Tensor) -> Tensor:
    return _split(math.sqrt(2.0) * N, _diagonal(N))


def _gradient(A: Tensor, G: Tensor) -> Tensor:
    P = coordinates(A)
    diagonal = _diagonal(P).exp()
    # The adjoint of `pull`: <G, dL L' + L dL'> = <2 G L, dL>.
    slope = 2.0 * symmetrize(G) @ _split(P, diagonal)
    return _pull(P, _split(slope, diagonal * _diagonal(slope)))


LOG_CHOLESKY = FlatMetric(coordinates, point, _push, _pull, _frame, _gradient)
