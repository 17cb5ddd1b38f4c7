"""Missing cells: a model of the whole tensor, and imputation by it, in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from eegtensor.tensor.kernels import squared_norm

Model = TypeVar("Model", bound=Any)
# (number of a tensor, part of its first mode) -> the model's values there.
Estimate = Callable[[int, slice], Tensor]

# Most cells that are worked on at a time: copies stay small beside the tensor.
_CELLS = 250_000
# So few are not worth a loop.
_FEW_CELLS = 100_000


def impute(
    X: Tensor,
    observed: Tensor,
    model: Callable[[Tensor, Any], Model],
    *,
    max_iter: int,
    tol: float,
    reconstruct: Callable[[Model], Tensor] | None = None,
    rows: Callable[[Model, slice], Model] | None = None,
) -> Model:
    """Return a model of the observed cells by expectation and maximisation.

    Missing cells start at their slice means, and take the model's value in turn.
    Each turn cannot raise the error over the observed cells where `model` cannot
    raise that over all cells. Every few turns the step between two imputations is
    lengthened while that lowers the error: plain turns converge as slowly as the
    share of cells that are missing.

    Parameters
    ----------
    X : Tensor
        Zero where missing; these cells are overwritten.
    observed : Tensor of bool
    model : callable
        ``(Z, model before | None) -> model`` with fields `fit` and `n_iter`.
    max_iter : int
    tol : float
        Change of the fit over the observed cells that ends it.
    reconstruct : callable | None
        ``model -> Tensor`` of the shape of X; by default the model's own method.
    rows : callable | None
        ``(model, slice) -> model`` of these entries of the first mode alone: the
        whole estimate is then never held.

    Returns
    -------
    model
        With `fit` over the observed cells and `n_iter` turns.
    """
    rebuild = reconstruct or (lambda found: found.reconstruct())

    def estimate(found: Model) -> Estimate:
        if rows is not None:
            return lambda _, part: rebuild(rows(found, part))
        whole = rebuild(found)
        return lambda _, part: whole[part]

    return impute_all(
        [X],
        [observed],
        lambda Z, before: model(Z[0], before),
        estimate,
        [slice_means(X, observed)],
        max_iter=max_iter,
        tol=tol,
    )


def impute_all(
    tensors: Sequence[Tensor],
    observed: Sequence[Tensor],
    model: Callable[[list[Tensor], Any], Model],
    estimate: Callable[[Model], Estimate],
    start: Sequence[Tensor],
    *,
    max_iter: int,
    tol: float,
) -> Model:
    """Return one model of the observed cells of several tensors; see `impute`.

    Parameters
    ----------
    tensors, observed
        One or more, as in `impute`.
    model : callable
        ``(tensors, model before | None) -> model``.
    estimate : callable
        ``model -> f``, where ``f(s, part)`` are the model's values of a part of
        tensor s along its first mode.
    start : sequence of Tensor
        First values of missing cells, of shapes that broadcast.
    """
    total = max(sum(map(squared_norm, tensors)), torch.finfo(torch.float64).tiny)
    for X, seen, value in zip(tensors, observed, start, strict=True):
        torch.where(seen, X, value, out=X)
    # Other objects over the same cells: no model may take them for those it had.
    Z = [X.view_as(X) for X in tensors]

    def fit_of(found: Model) -> float:
        values = estimate(found)
        error = 0.0
        for s, (X, seen) in enumerate(zip(Z, observed, strict=True)):
            error += squared_error(X, seen, lambda part, s=s: values(s, part))  # type: ignore[misc]
        return 1.0 - math.sqrt(error / total)

    def move(found: Model, longer: float) -> None:
        """Move missing cells towards the model's values, or beyond them."""
        # Made anew for every move: kept, they would cost as much as the tensors.
        values = estimate(found)
        for s, (X, seen) in enumerate(zip(Z, observed, strict=True)):
            for part in row_parts(X.shape):
                now = X[part]
                after = now.lerp(values(s, part).to(X.dtype), longer)
                torch.where(seen[part], now, after, out=now)

    found = model(Z, None)
    fit = fit_of(found)
    turn, longer = 1, 1.0
    while turn < max_iter:
        move(found, longer)
        after = model(Z, found)
        fit_after = fit_of(after)
        turn += 1
        if fit_after < fit and longer > 1.0:
            # The next move, of full length, lands on the values themselves.
            longer = 1.0
            continue
        gain, fit = fit_after - fit, fit_after
        found = after
        longer = min(longer * 1.5, 16.0)
        if gain < tol / 10.0:
            break
    return found._replace(fit=fit, n_iter=turn)


def part_cells(shape: Sequence[int]) -> int:
    """Return how many cells of a tensor to work on at a time: about an eighth."""
    return min(max(math.prod(shape) // 8, _FEW_CELLS), _CELLS)


def row_parts(shape: Sequence[int]) -> list[slice]:
    """Return slices of the first mode of `part_cells` each, or of one entry."""
    step = max(1, part_cells(shape) // max(math.prod(shape[1:]), 1))
    return [slice(at, min(at + step, shape[0])) for at in range(0, shape[0], step)]


def slice_means(X: Tensor, observed: Tensor) -> Tensor:
    """Return the mean of observed cells along the first mode, else of all."""
    # In parts: torch sums a copy of the mask in eight bytes a cell.
    count = torch.zeros_like(observed[:1], dtype=torch.int64)
    for part in row_parts(observed.shape):
        count += observed[part].sum(dim=0, keepdim=True)
    overall = X.sum() / count.sum()
    return torch.where(
        count > 0, X.sum(dim=0, keepdim=True) / count.clamp_min(1), overall
    )


def squared_error(
    X: Tensor, observed: Tensor | None, estimate: Callable[[slice], Tensor]
) -> float:
    """Return the squared error of an estimate made in parts, of observed cells."""
    error = 0.0
    for part in row_parts(X.shape):
        rest = X[part] - estimate(part).to(X.dtype)
        if observed is not None:
            rest.masked_fill_(~observed[part], 0.0)
        error += squared_norm(rest)
    return error
