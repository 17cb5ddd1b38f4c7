"""A new person in the terms of a coupled CP model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._linked import estimate, signed
from eegtensor.tensor._missing import squared_error
from eegtensor.tensor._shapes import as_tensor, check_sweeps
from eegtensor.tensor.consistency import first_factor
from eegtensor.tensor.coupled import CoupledCP
from eegtensor.tensor.cp import CP, congruence
from eegtensor.tensor.kernels import leading_vectors


@bridged
def coupled_project(
    model: CoupledCP,
    X: Array,
    *,
    mask: Array | None = None,
    max_iter: int = 200,
    tol: float = 1e-7,
) -> CP:
    """Return a new person's CP model: the common components, with fixed factors.

    Parameters
    ----------
    model : CoupledCP
    X : array or tensor
        Sizes of shared modes as fitted; NaN are missing cells.
    mask : array of bool, shape as X | None
    max_iter : int
        Sweeps, where more than one mode is the person's own; one mode is solved
        at once.
    tol : float
        Change of the relative error that ends them.

    Returns
    -------
    CP
        Its components are in the order of `model`.
    """
    check_sweeps(max_iter, tol, least=1)
    X, observed, total = as_tensor(X, mask)
    N = len(model.people[0].factors)
    own = [n for n in range(N) if n not in model.shared]
    factors: list[Tensor] = [X] * N
    for n, U in zip(model.shared, model.factors, strict=True):
        factors[n] = torch.as_tensor(U).to(X.device).double()
    if X.ndim != N or any(X.shape[n] != len(factors[n]) for n in model.shared):
        fixed = {n: len(factors[n]) for n in model.shared}
        fail(f"X has shape {tuple(X.shape)}, the model has sizes {fixed} by mode")
    for n in own:
        U = leading_vectors(X, n, min(model.common, X.shape[n]))[0]
        factors[n] = U[:, torch.arange(model.common) % U.shape[1]]
    error, before, n_iter = 1.0, float("inf"), 0
    while n_iter < max_iter:
        n_iter += 1
        for n in own:
            factors[n] = _refit(X, observed, factors, n)
        values = estimate([factors])
        lost = squared_error(X, observed, lambda part: values(0, part))  # noqa: B023
        error = (lost / total) ** 0.5 if total > 0 else 0.0
        if len(own) == 1 or before - error < tol:
            break
        before = error
    weights, unit = signed([U.to(X.dtype) for U in factors], own[0], True)
    return CP(weights, tuple(unit), 1.0 - error, n_iter, (), congruence(unit))


def _refit(
    X: Tensor, observed: Tensor | None, factors: Sequence[Tensor], mode: int
) -> Tensor:
    """Return the factor of a mode by least squares, the others being fixed."""
    others = [U for n, U in enumerate(factors) if n != mode]
    seen = None if observed is None else observed.movedim(mode, 0)
    return first_factor(X.movedim(mode, 0), seen, [factors[mode], *others])
