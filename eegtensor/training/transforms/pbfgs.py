"""P-BFGS: quasi-Newton steps of a few numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option, fail

# Value and gradient at coefficients; the gradient may be left out.
Function = Callable[[Tensor, bool], tuple[float, Tensor | None]]
_SEARCHES = ("backtracking", "interpolation")


class Minimum(NamedTuple):
    """Where a quasi-Newton search ended.

    Attributes
    ----------
    coefficients : Tensor, shape (n_directions,)
    losses : list of float
        At the start and after each step.
    n_evaluations : int
        Of the loss, with or without gradient.
    """

    coefficients: Tensor
    losses: list[float]
    n_evaluations: int


def bfgs(
    function: Function,
    start: Tensor,
    *,
    n_steps: int = 20,
    search: str = "backtracking",
    shrink: float = 0.4,
    decrease: float = 0.4,
    n_trials: int = 20,
    tol: float = 1e-10,
) -> Minimum:
    """Minimise a function of a few numbers by BFGS.

    Parameters
    ----------
    function : callable
        ``function(a, wants_gradient) -> (value, gradient | None)``.
    start : Tensor, shape (n,)
    n_steps : int
    search : "backtracking" | "interpolation"
        "backtracking" shrinks a step of length 1 until the loss falls by
        `decrease` of what its slope promises, as published. "interpolation" goes
        to the minimum of the parabola through the slope and that step if it is
        lower: exact on quadratics, for one more evaluation a step.
    shrink, decrease : float
        rho and sigma of the paper.
    n_trials : int
        Of one search; if none serves, the search has ended.
    tol : float
        Length of the gradient, relative to the first, at which to end.

    References
    ----------
    T. Li, L. Tan, Z. Huang, Q. Tao, Y. Liu and X. Huang, "Low dimensional
    trajectory hypothesis is true: DNNs can be trained in tiny subspaces", IEEE
    TPAMI 2023.
    """
    check_option("search", search, _SEARCHES)
    check_count("n_steps", n_steps, least=0)
    check_count("n_trials", n_trials)
    for name, value in (("shrink", shrink), ("decrease", decrease)):
        if not check_number(name, value, above=0.0) < 1:
            fail(f"{name}={value}", fix="give a number between 0 and 1")
    a = start.detach().double().clone()
    value, g = function(a, True)
    assert g is not None
    g = g.double()
    losses, count = [value], 1
    inverse = torch.eye(len(a), dtype=a.dtype, device=a.device)
    first = float(g.norm())
    for _ in range(n_steps):
        if not float(g.norm()) > tol * first:
            break
        d = -inverse @ g
        slope = float(g @ d)
        if slope >= 0:
            # Rounding made the matrix indefinite: begin anew.
            inverse = torch.eye(len(a), dtype=a.dtype, device=a.device)
            d, slope = -g, -float(g @ g)
        length = 1.0
        for trial in range(n_trials):
            new, _ = function(a + length * d, False)
            count += 1
            if trial == 0 and search == "interpolation":
                bend = new - value - slope
                best = -slope / (2.0 * bend) if bend > 0 else length
                lower, _ = function(a + best * d, False)
                count += 1
                if lower < new or new >= value + decrease * slope:
                    new, length = lower, best
                if new < value:
                    break
            if new < value + decrease * length * slope:
                break
            length *= shrink
        else:
            break
        s = length * d
        a = a + s
        value, new_g = function(a, True)
        count += 1
        assert new_g is not None
        y = new_g.double() - g
        g = new_g.double()
        losses.append(value)
        if float(s @ y) > 1e-20:
            rho = 1.0 / (s @ y)
            left = torch.eye(
                len(a), dtype=a.dtype, device=a.device
            ) - rho * torch.outer(s, y)
            inverse = left @ inverse @ left.mT + rho * torch.outer(s, s)
    return Minimum(a, losses, count)
