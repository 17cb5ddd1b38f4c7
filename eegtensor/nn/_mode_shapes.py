"""Sizes of the modes into which the features of a layer are split."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from eegtensor._check import check_count, fail

# Automatic mode sizes are near this.
MODE = 16


@lru_cache(maxsize=1024)
def balanced_shape(n: int) -> tuple[int, ...]:
    """Return factors of n, rising, as equal as they can be and near 16.

    A number with large prime factors keeps them: 62 is (2, 31), 61 is (61,).
    """
    count = max(1, math.ceil(math.log(n, MODE) - 1e-9)) if n > 1 else 1
    return min(_factorisations(n, count, 2), key=lambda f: (sum(f), len(f)))


def _factorisations(n: int, count: int, least: int) -> list[tuple[int, ...]]:
    out: list[tuple[int, ...]] = [(n,)]
    if count > 1:
        for d in range(least, math.isqrt(n) + 1):
            if n % d == 0:
                out += [(d, *f) for f in _factorisations(n // d, count - 1, d)]
    return out


def check_shape(name: str, shape: Any, n: int) -> tuple[int, ...]:
    """Return a shape whose product is n; by itself balanced, for None."""
    if shape is None:
        return balanced_shape(n)
    if np.ndim(shape) != 1:
        fail(f"{name}={shape!r}", fix=f"give factors of {n}, as a list")
    sizes = tuple(check_count(name, s) for s in shape)
    if math.prod(sizes) != n:
        fail(
            f"{name}={sizes} has product {math.prod(sizes)}",
            fix=f"give factors of {n}, such as {balanced_shape(n)}",
        )
    return sizes
