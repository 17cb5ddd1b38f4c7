"""Bayesian CP: the data say how many components there are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._missing import squared_error
from eegtensor.tensor._relevance import State, settle, without_one
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    as_tensor,
    check_rank,
    check_sweeps,
)
from eegtensor.tensor.cp import canonical
from eegtensor.tensor.kernels import sum_of_components


class BayesianCP(NamedTuple):
    """A CP decomposition whose rank was found by automatic relevance.

    Attributes
    ----------
    rank : int
        Number of components that the data support; 0 if none.
    weights : array, shape (rank,)
    factors : tuple of array, shape (I_n, rank)
        Posterior means, in the form of `CP`.
    noise : float
        Standard deviation of the noise, in the unit of X.
    fit : float
        1 - relative error over the observed cells.
    n_iter : int
    """

    rank: int
    weights: Array
    factors: tuple[Array, ...]
    noise: float
    fit: float
    n_iter: int

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, shape (I_1, ..., I_N)."""
        return _rebuild(self.weights, *self.factors)


@bridged
def _rebuild(weights: Tensor, *factors: Tensor) -> Tensor:
    return sum_of_components(weights, factors)


@bridged
def ard_cp(
    X: Array,
    max_rank: int | None = None,
    *,
    mask: Array | None = None,
    max_iter: int = 300,
    tol: float = 1e-6,
    random_state: Random = 0,
) -> BayesianCP:
    """Return the CP decomposition of variational Bayes, with as many components as fit.

    Every component starts with its own precision, common to all modes; those that
    explain less than their cost are driven to zero and pruned.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N), N >= 2
        NaN are missing cells.
    max_rank : int | None
        Components at the start; None for the longest side, at most 30.
    mask : array of bool, shape as X | None
        True for observed cells; only they count.
    max_iter : int
    tol : float
        Change of the noise's variance, relative to X's, that ends it.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    BayesianCP

    Raises
    ------
    EEGTensorError
        If X holds infinity, or shape, rank or mask do not fit.

    References
    ----------
    Q. Zhao, L. Zhang and A. Cichocki, "Bayesian CP factorization of incomplete
    tensors with automatic rank determination", IEEE TPAMI, 2015.
    """
    X, observed, total = as_tensor(X, mask)
    check_sweeps(max_iter, tol, least=1)
    R = min(max(X.shape), 30) if max_rank is None else check_rank(max_rank, "max_rank")
    count = X.numel() if observed is None else int(observed.count_nonzero())
    if total == 0.0:
        return _result(X, [X.new_zeros(s, 0) for s in X.shape], 1.0, 0.0, 1.0, 0)
    # In units of the data's own size, the vague priors are vague for any unit.
    unit = math.sqrt(total / count)
    # Where cells are missing, X is a copy already.
    Y = X / unit if observed is None else X.div_(unit)
    del X
    first = State.begin(Y, observed, R, as_random(random_state))
    found, n_iter = [], 0
    # A start with little trust in the data prunes too much where they are hard,
    # one with much trust is slow to prune: the more probable result counts.
    for precision in (1.0, 10.0):
        state = first.keep(torch.ones_like(first.relevance, dtype=torch.bool))
        state.precision = precision
        n_iter += settle(Y, observed, state, count, max_iter, tol)
        slimmer: State | None = state
        while slimmer is not None:
            state = slimmer
            slimmer, more = without_one(Y, observed, state, count, max_iter, tol)
            n_iter += more
        found.append(state)
    state = max(found, key=lambda one: one.bound(count))
    means = [U.to(Y.dtype) for U in state.means]
    ones = torch.ones_like(means[0][0])
    left = squared_error(
        Y,
        observed,
        lambda part: sum_of_components(ones, [means[0][part], *means[1:]]),
    )
    error = math.sqrt(left / count)
    return _result(Y, state.means, unit, math.sqrt(state.noise), 1.0 - error, n_iter)


def _result(
    X: Tensor, means: list[Tensor], unit: float, noise: float, fit: float, n_iter: int
) -> BayesianCP:
    weights, factors = canonical(means)
    return BayesianCP(
        len(weights),
        (weights * unit).to(X.dtype),
        tuple(U.to(X.dtype) for U in factors),
        noise * unit,
        fit,
        n_iter,
    )
