"""Parallel transport of the Bures-Wasserstein metric by collocation.

SPD matrices are A = Z Z' of a square Z, up to a rotation of its columns. Along
the geodesic Z(t) = (I + t X) Z a tangent vector is S(t) Z(t) with symmetric S,
and it is parallel where the derivative of S Z has no horizontal part:

    S' Gamma + Gamma S' = -(S P + P' S),  Gamma = Z Z',  P = X A (I + t X).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor.geometry._lyapunov import lyapunov_solver
from eegtensor.geometry.spectral import _eager_cpu, congruence, eigvalsh


class _Collocation(NamedTuple):
    nodes: Tensor  # in (0, 1)
    partial: Tensor  # integrals from 0 to each node
    full: Tensor  # integrals from 0 to 1


def _collocation(like: Tensor, n: int = 8) -> _Collocation:
    """Gauss nodes and the integrals of their Lagrange polynomials."""
    x, w = np.polynomial.legendre.leggauss(n)
    powers = np.arange(n)
    # Integrals of Legendre polynomials are well conditioned, those of powers not.
    values = np.polynomial.legendre.legvander(x, n - 1)
    integrals = np.stack(
        [
            np.polynomial.legendre.legval(
                x, np.polynomial.legendre.legint(np.eye(n)[k], lbnd=-1)
            )
            for k in powers
        ],
        axis=1,
    )
    partial = integrals @ np.linalg.inv(values)
    parts = (0.5 * (x + 1.0), 0.5 * partial, 0.5 * w)
    return _Collocation(
        *(torch.as_tensor(p, dtype=like.dtype, device=like.device) for p in parts)
    )


def _mesh(X: Tensor) -> list[tuple[float, float, float]]:
    """Return panels and the time t = a + b sigmoid(u) on them.

    The equation changes with t X / (I + t X), which is steep at an end where I + X
    has eigenvalues far from 1; in u its rate is at most one.

    Returns
    -------
    panels : list of (u, a, b)
        Panels are one unit of u long.
    """
    if _eager_cpu(X):
        values = 1.0 + eigvalsh(X.detach())
        before = math.log(max(1.0, float(values.max())))
        after = -math.log(min(1.0, max(float(values.min()), 1e-12)))
    else:
        before = after = 7.0
    start = -math.ceil(before) - 1.0
    stop = math.ceil(after) + 1.0
    low, high = _sigmoid(start), _sigmoid(stop)
    b = 1.0 / (high - low)
    n_panels = round(stop - start)
    return [(start + k, -low * b, b) for k in range(n_panels)]


def _sigmoid(u: float) -> float:
    return 1.0 / (1.0 + math.exp(-u))


def carry(A: Tensor, X: Tensor, S: Tensor) -> Tensor:
    """Return S(1) of the transport along the geodesic from A.

    Parameters
    ----------
    A : Tensor, shape (..., n, n), SPD
    X : Tensor, shape (..., n, n), symmetric
        I + X is the optimal map from A to the end.
    S : Tensor, shape (..., n, n), symmetric
        Lyapunov solution of the tangent vector at A.
    """
    rule = _collocation(A)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    ndim = max(A.ndim, X.ndim, S.ndim)
    n_sweeps = 14 if A.dtype == torch.float64 else 8
    for u, a, b in _mesh(X):
        share = torch.sigmoid(rule.nodes + u)
        t = (a + b * share).view(-1, *(1 for _ in range(ndim)))
        speed = (b * share * (1.0 - share)).view(t.shape)
        forward = eye + t * X
        solve = lyapunov_solver(congruence(forward, A))
        push = X @ A @ forward
        stage = S.expand(torch.broadcast_shapes(push.shape, S.shape))
        slope = torch.zeros_like(stage)
        # Each sweep adds one order; the rate is at most one, so that 14 of them
        # leave 1 / 14!.
        for _ in range(n_sweeps):
            half = stage @ push
            slope = -speed * solve(half + half.mT)
            stage = S + torch.einsum("jk,k...->j...", rule.partial, slope)
        S = S + torch.einsum("k,k...->...", rule.full, slope)
    return S
