"""Missing cells: a model of the whole tensor, and imputation by it, in turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from eegtensor.tensor.kernels import squared_norm

Model = TypeVar("Model", bound=Any)


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
    parts = [slice(None)] if rows is None else _parts(len(X))
    total = max(squared_norm(X), torch.finfo(torch.float64).tiny)
    torch.where(observed, X, slice_means(X, observed), out=X)
    # Another object over the same cells: no model may take it for the X it had.
    Z = X.view_as(X)

    def estimate(found: Model) -> tuple[Tensor, float]:
        """Return the model's values of missing cells, and its fit of the others."""
        values, error = [], 0.0
        for part in parts:
            guess = rebuild(found if rows is None else rows(found, part)).to(Z.dtype)
            seen = observed[part]
            values.append(guess[~seen])
            error += squared_norm(torch.where(seen, Z[part] - guess, 0.0))
        return torch.cat(values), 1.0 - math.sqrt(error / total)

    def move(values: Tensor, longer: float) -> None:
        """Move the missing cells of Z towards values, or beyond them."""
        at = 0
        for part in parts:
            hole = ~observed[part]
            now = Z[part][hole]
            Z[part][hole] = now.lerp(values[at : at + len(now)], longer)
            at += len(now)

    found = model(Z, None)
    values, fit = estimate(found)
    turn, longer = 1, 1.0
    while turn < max_iter:
        move(values, longer)
        after = model(Z, found)
        values_after, fit_after = estimate(after)
        turn += 1
        if fit_after < fit and longer > 1.0:
            # The next move, of full length, lands on the values themselves.
            longer = 1.0
            continue
        gain, fit = fit_after - fit, fit_after
        found, values = after, values_after
        longer = min(longer * 1.5, 16.0)
        if gain < tol / 10.0:
            break
    return found._replace(fit=fit, n_iter=turn)


def _parts(size: int) -> list[slice]:
    """Return slices of about an eighth each."""
    step = max(1, -(-size // 8))
    return [slice(at, min(at + step, size)) for at in range(0, size, step)]


def slice_means(X: Tensor, observed: Tensor) -> Tensor:
    """Return the mean of observed cells along the first mode, else of all."""
    count = observed.sum(dim=0, keepdim=True)
    overall = X.sum() / observed.sum()
    return torch.where(
        count > 0, X.sum(dim=0, keepdim=True) / count.clamp_min(1), overall
    )


def squared_error(
    X: Tensor, observed: Tensor | None, estimate: Callable[[slice], Tensor]
) -> float:
    """Return the squared error of an estimate made in parts, of observed cells."""
    error = 0.0
    for part in _parts(len(X)):
        rest = X[part] - estimate(part)
        if observed is not None:
            rest = torch.where(observed[part], rest, 0.0)
        error += squared_norm(rest)
    return error
