"""The Euclidean metric of symmetric matrices: <U, V> = tr(U V).

Geodesics may leave the cone of SPD matrices; distances depend on the unit.
"""

from __future__ import annotations

from torch import Tensor

from eegtensor.geometry._flat import FlatMetric
from eegtensor.geometry.spectral import symmetrize


def _same(A: Tensor) -> Tensor:
    return symmetrize(A)


def _push(A: Tensor, *tangents: Tensor) -> tuple[Tensor, ...]:
    return (_same(A), *(_same(V) for V in tangents))


def _second(A: Tensor, V: Tensor) -> Tensor:
    return _same(V)


EUCLIDEAN = FlatMetric(_same, _same, _push, _second, _same, _second)
