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
        Zero where missing.
    observed : Tensor of bool
    model : callable
        ``(Z, model before | None) -> model`` with fields `fit` and `n_iter`.
    max_iter : int
    tol : float
        Change of the fit over the observed cells that ends it.

    Returns
    -------
    model
        With `fit` over the observed cells and `n_iter` turns.
    """
    rebuild = reconstruct or (lambda found: found.reconstruct())
    total = max(squared_norm(X), torch.finfo(torch.float64).tiny)
    Z = torch.where(observed, X, slice_means(X, observed))
    found = model(Z, None)
    estimate = rebuild(found)
    fit, turn, longer = _fit(X, estimate, observed, total), 1, 1.0
    while turn < max_iter:
        stretched = Z + longer * (estimate - Z)
        Z_next = torch.where(observed, X, stretched)
        after = model(Z_next, found)
        estimate_next = rebuild(after)
        turn += 1
        fit_next = _fit(X, estimate_next, observed, total)
        if fit_next < fit and longer > 1.0:
            longer = 1.0
            continue
        gain, fit = fit_next - fit, fit_next
        found, estimate, Z = after, estimate_next, Z_next
        longer = min(longer * 1.5, 16.0)
        if gain < tol / 10.0:
            break
    return found._replace(fit=fit, n_iter=turn)


def slice_means(X: Tensor, observed: Tensor) -> Tensor:
    """Return the mean of observed cells along the first mode, else of all."""
    count = observed.sum(dim=0, keepdim=True)
    overall = X.sum() / observed.sum()
    return torch.where(
        count > 0, X.sum(dim=0, keepdim=True) / count.clamp_min(1), overall
    )


def _fit(X: Tensor, estimate: Tensor, observed: Tensor, total: float) -> float:
    error = squared_norm(torch.where(observed, X - estimate, 0.0))
    return 1.0 - math.sqrt(error / total)
