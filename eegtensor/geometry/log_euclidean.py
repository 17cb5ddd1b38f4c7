"""The log-Euclidean metric: the Euclidean one of log A (Arsigny et al. 2007)."""

from __future__ import annotations

from torch import Tensor

from eegtensor.geometry._flat import FlatMetric
from eegtensor.geometry._scalar import EXP, LOG
from eegtensor.geometry.spectral import expm, logm, symmetrize, with_derivatives


def _push(A: Tensor, *tangents: Tensor) -> tuple[Tensor, ...]:
    out: tuple[Tensor, ...] = with_derivatives(LOG, symmetrize(A), *tangents)
    return out


def _pull(P: Tensor, W: Tensor) -> Tensor:
    V: Tensor = with_derivatives(EXP, P, W)[1]
    return V


def _gradient(A: Tensor, G: Tensor) -> Tensor:
    # <R, V>_A = <G, V> for all V: R is the derivative of exp applied twice, as that
    # of log is self-adjoint.
    P = logm(A)
    return _pull(P, _pull(P, symmetrize(G)))


LOG_EUCLIDEAN = FlatMetric(logm, expm, _push, _pull, symmetrize, _gradient)
