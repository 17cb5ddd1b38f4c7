"""Several people's tensors as one problem: checks, weights, joint imputation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError, fail, listing
from eegtensor.geometry._batched_eigh import eigh
from eegtensor.tensor._missing import Estimate, impute_all, squared_error
from eegtensor.tensor._shapes import as_tensor, check_modes
from eegtensor.tensor.kernels import (
    gram,
    leading_vectors,
    mode_product,
    squared_norm,
)


class People(NamedTuple):
    """Tensors in units in which their squared errors add up.

    Attributes
    ----------
    parts : list of Tensor
        Each times its `scale`; zero where missing.
    observed : list of Tensor of bool | None
        None where no cell of any is missing.
    scale : list of float
    total : float
        Sum of squared norms of `parts`.
    """

    parts: list[Tensor]
    observed: list[Tensor] | None
    scale: list[float]
    total: float


def as_list(given: Any, name: str) -> list[Any]:
    """Return slices, or people's tensors, as a list, or raise."""
    parts = list(given) if hasattr(given, "__len__") else []
    if not parts or not all(isinstance(X, np.ndarray | Tensor) for X in parts):
        kinds = listing(sorted({type(X).__name__ for X in parts})) or "nothing"
        fail(
            f"{name} is {type(given).__name__} of {kinds}",
            fix="give a list of one or more NumPy arrays or tensors",
        )
    return parts


def read_people(
    given: Sequence[Any], n: int, weights: Sequence[float] | None, *, ndim: int = 2
) -> People:
    """Return n tensors, followed by as many masks or none, ready to be fitted.

    Each is divided by its norm and counts by its weight (1 without weights): units
    and numbers of trials do not decide who counts.
    """
    tensors, masks = list(given[:n]), list(given[n:])
    if n == 0 or len(masks) not in (0, n):
        fail(f"{n} tensors and {len(masks)} masks", fix="give one mask per tensor")
    shares = np.ones(n) if weights is None else np.asarray(weights)
    numbers = shares.dtype.kind in "fiu"
    if (
        not numbers
        or shares.shape != (n,)
        or not (np.isfinite(shares) & (shares > 0)).all()
    ):
        fail(f"weights={weights!r} for {n} tensors", fix="give one number above 0 each")
    parts: list[Tensor] = []
    observed: list[Tensor | None] = []
    scale: list[float] = []
    for s, X in enumerate(tensors):
        try:
            X, seen, norm = as_tensor(X, masks[s] if masks else None, ndim=ndim)
        except EEGTensorError as error:
            fail(f"Tensor {s}: {error}", cause=error)
        scale.append(float((shares[s] / norm) ** 0.5) if norm > 0 else 1.0)
        # Where cells are missing, X is a copy already.
        parts.append(X * scale[s] if seen is None else X.mul_(scale[s]))
        observed.append(seen)
        del X
    # One of single precision would not multiply with one of double.
    dtype = max((X.dtype for X in parts), key=lambda kind: kind.itemsize)
    parts = [X.to(dtype) for X in parts]
    total = sum(squared_norm(X) for X in parts)
    if all(seen is None for seen in observed):
        return People(parts, None, scale, total)
    whole = [
        torch.ones_like(X, dtype=torch.bool) if seen is None else seen
        for X, seen in zip(parts, observed, strict=True)
    ]
    return People(parts, whole, scale, total)


def check_shared(parts: Sequence[Tensor], shared: Sequence[int]) -> tuple[int, ...]:
    """Return sorted modes whose sizes agree in all tensors, or raise."""
    N = parts[0].ndim
    if any(X.ndim != N for X in parts):
        fail(
            f"Tensors have {[X.ndim for X in parts]} axes, not one number",
            fix="give tensors of the same axes, such as trials x channels x times",
        )
    modes = tuple(sorted(set(check_modes(shared, N, "shared"))))
    if not modes:
        fail("shared is empty", fix="name one mode or more that the tensors share")
    for n in modes:
        sizes = [X.shape[n] for X in parts]
        if len(set(sizes)) > 1:
            fail(
                f"Mode {n} is shared but has sizes {sizes}",
                fix="bring the tensors to the same channels, frequencies or times",
            )
    return modes


def compress(
    parts: Sequence[Tensor], shared: Sequence[int], sizes: Sequence[int | None]
) -> tuple[list[list[Any]], list[Tensor]]:
    """Return orthonormal factors, per tensor and mode, and the cores.

    Shared modes have the same factor in all, from the sum of Grams; the others
    their own. A size of None keeps the mode whole, with None for a factor.
    """
    cores = list(parts)
    factors: list[list[Any]] = [[None] * cores[0].ndim for _ in cores]
    for n, size in enumerate(sizes):
        if size is None:
            continue
        if n in shared:
            bases = [joint_vectors(cores, n, size)] * len(cores)
        else:
            bases = [leading_vectors(Y, n, min(size, Y.shape[n]))[0] for Y in cores]
        for s, U in enumerate(bases):
            factors[s][n] = U.to(cores[s].dtype)
            cores[s] = mode_product(cores[s], factors[s][n].mT, n)
    return factors, cores


def joint_vectors(parts: Sequence[Tensor], mode: int, rank: int) -> Tensor:
    """Return leading eigenvectors of the sum of Grams along a mode, (I_n, rank)."""
    S = sum((gram(X, mode) for X in parts[1:]), gram(parts[0], mode))
    return eigh(S)[1].flip(-1)[:, :rank]


def impute_people(
    people: People,
    model: Callable[[list[Tensor], Any], Any],
    estimate: Callable[[Any], Estimate],
    *,
    max_iter: int,
    tol: float,
) -> Any:
    """Return a model of the observed cells of all tensors; see `impute_all`.

    Missing cells start at the mean of all observed ones; in `people.parts` they
    are zero again at the end.
    """
    assert people.observed is not None
    count = sum(int(seen.count_nonzero()) for seen in people.observed)
    mean = sum(X.sum() for X in people.parts) / count
    found = impute_all(
        people.parts,
        people.observed,
        model,
        estimate,
        [torch.as_tensor(mean)] * len(people.parts),
        max_iter=max_iter,
        tol=tol,
    )
    for X, seen in zip(people.parts, people.observed, strict=True):
        X.masked_fill_(~seen, 0.0)
    return found


def relative_fits(
    people: People, estimate: Estimate
) -> tuple[tuple[float, ...], float]:
    """Return the fit of each tensor over its observed cells, and of all together."""
    lost = []
    for s, X in enumerate(people.parts):
        seen = None if people.observed is None else people.observed[s]
        lost.append(squared_error(X, seen, lambda part, s=s: estimate(s, part)))  # type: ignore[misc]
    norms = [squared_norm(X) for X in people.parts]
    fits = [
        1.0 - (a / b) ** 0.5 if b > 0 else 1.0 for a, b in zip(lost, norms, strict=True)
    ]
    joint = 1.0 - (sum(lost) / people.total) ** 0.5 if people.total > 0 else 1.0
    return tuple(fits), joint
