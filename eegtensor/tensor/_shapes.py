"""Checks of tensors, ranks and masks, in the words of the person who gave them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import (
    RandomState,
    as_generator,
    check_count,
    check_number,
    fail,
    listing,
)
from eegtensor.geometry._bridge import floating
from eegtensor.tensor.kernels import squared_norm

Random = RandomState | torch.Generator


def as_tensor(
    X: Any, mask: Any = None, *, ndim: int = 2
) -> tuple[Tensor, Tensor | None, float]:
    """Return a floating tensor, its mask of observed cells, and its squared norm.

    The mask is None if all cells are observed; missing ones are zero.

    Parameters
    ----------
    X : Tensor
        NaN counts as missing where a mask is given or not.
    mask : Tensor of bool, as X | None
        True where a cell is observed.
    ndim : int
        Fewest axes.

    Raises
    ------
    EEGTensorError
        If X has too few axes or is empty, holds infinity, the mask does not fit,
        or nothing is observed.
    """
    if not isinstance(X, Tensor) or X.is_complex():
        kind = f"of dtype {X.dtype}" if hasattr(X, "dtype") else type(X).__name__
        fail(
            f"X is {kind}",
            fix="give an array or tensor of real numbers; of complex ones the "
            "magnitude, or the real and imaginary parts",
        )
    if X.ndim < ndim or 0 in X.shape:
        fail(
            f"X has shape {tuple(X.shape)}",
            fix=f"give an array of {ndim} or more axes, none of them empty",
        )
    X = floating(X.detach())
    if mask is None:
        X = X.contiguous()
        total = squared_norm(X)
        # One pass tells that all is finite.
        if math.isfinite(total):
            return X, None, _within_range(X, total)
    if mask is None:
        missing = X.isnan()
    else:
        if not isinstance(mask, Tensor) or mask.shape != X.shape:
            shape = tuple(getattr(mask, "shape", ()))
            fail(
                f"mask has shape {shape}, X has {tuple(X.shape)}",
                fix="give one True (observed) or False (missing) for each cell",
            )
        missing = ~mask.to(X.device, torch.bool)
        missing |= X.isnan()
    if bool(missing.all()):
        fail("No cell of X is observed", fix="check the mask: True is observed")
    X = X.clone(memory_format=torch.contiguous_format).masked_fill_(missing, 0.0)
    total = squared_norm(X)
    if not math.isfinite(total) and bool(X.isinf().any()):
        where = X.isinf().nonzero()[0].tolist()
        fail(
            f"X holds infinity, the first at {tuple(where)}",
            fix="mark it as missing: NaN, or False in the mask",
        )
    # In place: masks of long recordings are large too.
    observed = missing.logical_not_() if bool(missing.any()) else None
    return X, observed, _within_range(X, total)


def norm_of(X: Tensor) -> float:
    """Return the squared norm of a tensor that was checked, or raise; see below."""
    return _within_range(X, squared_norm(X))


def _within_range(X: Tensor, total: float) -> float:
    """Return the squared norm, or raise where squares of cells are no numbers."""
    if not math.isfinite(total) or (total == 0.0 and bool(X.any())):
        fail(
            f"X has cells as large as {float(X.abs().max()):.3g}",
            why="Squares of such numbers leave the range of floating point",
            fix="give X in another unit",
        )
    return total


def check_rank(rank: Any, name: str = "rank") -> int:
    """Return a rank as int, or raise."""
    return check_count(name, rank)


def check_sweeps(max_iter: Any, tol: Any, ridge: Any = 0.0, *, least: int = 0) -> None:
    """Raise unless sweeps can be counted, their gain compared, and solved with."""
    check_count("max_iter", max_iter, least=least)
    check_number("tol", tol)
    check_number("ridge", ridge, least=0.0)


def check_modes(modes: Any, n: int, name: str = "modes") -> tuple[int, ...]:
    """Return modes of a tensor of n axes, counted from 0, in the order given."""
    given: list[Any] = np.asarray(modes).tolist() if np.ndim(modes) == 1 else [None]
    whole = all(isinstance(m, int) for m in given)
    if not whole or not all(-n <= m < n for m in given):
        fail(
            f"{name}={modes!r} for a tensor of {n} axes",
            fix=f"give a list of numbers from 0 to {n - 1}",
        )
    return tuple(int(m) % n for m in given)


def check_ranks(ranks: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """Return one rank per mode, none above what the shape allows.

    Parameters
    ----------
    ranks : int | sequence of (int | None)
        One number is for every mode; None keeps a mode whole.
    shape : sequence of int
    """
    n = len(shape)
    wanted = (ranks,) * n if np.ndim(ranks) == 0 else tuple(ranks)
    if len(wanted) != n:
        fail(
            f"ranks={listing(wanted)} for a tensor of {n} modes",
            fix="give one rank, or one for each mode",
        )
    numbers = [
        size if r is None else min(check_rank(r, "ranks"), size)
        for r, size in zip(wanted, shape, strict=True)
    ]
    # A mode cannot have more directions than the other modes together.
    total = math.prod(numbers)
    return tuple(min(r, max(1, total // r)) for r in numbers)


def check_start(
    start: Any, wanted: Sequence[Sequence[int]], like: Tensor
) -> list[Tensor]:
    """Return cores to start from, of the dtype of a tensor, or raise."""
    given = list(start) if isinstance(start, (list, tuple)) else []
    if [list(np.shape(G)) for G in given] != [list(shape) for shape in wanted]:
        fail(
            f"start has shapes {[tuple(np.shape(G)) for G in given]}",
            fix=f"give cores of shapes {[tuple(s) for s in wanted]}",
        )
    return [torch.as_tensor(G).to(like) for G in given]


def normal(
    shape: Sequence[int], random: np.random.Generator | torch.Generator
) -> Tensor:
    """Return normal deviates in float64 on the CPU."""
    if isinstance(random, torch.Generator):
        drawn = torch.randn(
            tuple(shape), generator=random, device=random.device, dtype=torch.float64
        )
        return drawn.cpu()
    return torch.from_numpy(random.standard_normal(tuple(shape)))


def as_random(random_state: Random) -> np.random.Generator | torch.Generator:
    """Return a generator from a seed or a generator."""
    if isinstance(random_state, torch.Generator):
        return random_state
    return as_generator(random_state)
