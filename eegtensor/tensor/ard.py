"""Bayesian CP: the data say how many components there are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import normal_matrices, normal_matrix
from eegtensor.tensor._missing import slice_means, squared_error
from eegtensor.tensor._shapes import Random, as_random, as_tensor, check_rank, normal
from eegtensor.tensor.cp import canonical
from eegtensor.tensor.kernels import (
    leading_vectors,
    mttkrp,
    sum_of_components,
)

# Both Gamma priors: next to no knowledge.
_PRIOR = 1e-6
# A component with less than this share of the energy is pruned.
_NEGLIGIBLE = 1e-6


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
    if max_iter < 1:
        fail(f"max_iter={max_iter!r}", fix="give 1 or more")
    R = min(max(X.shape), 30) if max_rank is None else check_rank(max_rank, "max_rank")
    count = X.numel() if observed is None else int(observed.count_nonzero())
    if total == 0.0:
        return _result(X, [X.new_zeros(s, 0) for s in X.shape], 1.0, 0.0, 1.0, 0)
    # In units of the data's own size, the vague priors are vague for any unit.
    unit = math.sqrt(total / count)
    # Where cells are missing, X is a copy already.
    Y = X / unit if observed is None else X.div_(unit)
    del X
    first = _State.begin(Y, observed, R, as_random(random_state))
    found, n_iter = [], 0
    # A start with little trust in the data prunes too much where they are hard,
    # one with much trust is slow to prune: the more probable result counts.
    for precision in (1.0, 10.0):
        state = first.keep(torch.ones_like(first.relevance, dtype=torch.bool))
        state.precision = precision
        n_iter += _settle(Y, observed, state, count, max_iter, tol)
        slimmer: _State | None = state
        while slimmer is not None:
            state = slimmer
            slimmer, more = _without_one(Y, observed, state, count, max_iter, tol)
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


class _State:
    """Posterior of the factors, the relevance of components and the noise.

    Attributes
    ----------
    means : list of Tensor, shape (I_n, R)
    spreads : list of Tensor, shape (I_n, R, R) | (1, R, R)
        Covariances of rows; one for all where no cell is missing.
    volumes : list of float
        Sum of the log determinants of a mode's rows' covariances.
    relevance : Tensor, shape (R,)
        Expected precision of each component.
    precision : float
        Expected precision of the noise.
    noise : float
        Expected squared error of a cell.
    """

    def __init__(self, means: list[Tensor], spreads: list[Tensor]) -> None:
        self.means, self.spreads = means, spreads
        self.relevance = torch.ones_like(means[0][0])
        self.volumes = [0.0] * len(means)
        self.precision = self.noise = 1.0

    @classmethod
    def begin(cls, Y: Tensor, observed: Tensor | None, R: int, random: Any) -> _State:
        if observed is not None:
            # In place: a filled copy would cost as much as Y.
            torch.where(observed, Y, slice_means(Y, observed), out=Y)
        scale = (Y.numel() / R) ** (0.5 / Y.ndim)
        means, spreads = [], []
        for n, size in enumerate(Y.shape):
            U = leading_vectors(Y, n, min(R, size))[0]
            if R > size:
                extra = normal((size, R - size), random).to(U) / math.sqrt(size)
                U = torch.cat([U, extra], dim=1)
            means.append(U * scale)
            eye = torch.eye(R, dtype=U.dtype, device=U.device)
            rows = 1 if observed is None else size
            spreads.append(eye.expand(rows, R, R) * (scale**2 / size))
        if observed is not None:
            Y.masked_fill_(~observed, 0.0)
        return cls(means, spreads)

    @property
    def energy(self) -> Tensor:
        """Energy of each component's mean, shape (R,)."""
        return torch.stack([U.square().sum(dim=0) for U in self.means]).prod(dim=0)

    def spread(self, n: int) -> Tensor:
        """Return the sum of a mode's rows' variances, shape (R,)."""
        variances = self.spreads[n].diagonal(dim1=1, dim2=2)
        return variances.sum(dim=0) * (len(self.means[n]) / len(variances))

    def keep(self, which: Tensor) -> _State:
        """Return a copy with some of the components."""
        out = _State(
            [U[:, which] for U in self.means],
            [V[:, which][:, :, which] for V in self.spreads],
        )
        out.relevance = self.relevance[which]
        out.precision, out.noise = self.precision, self.noise
        return out

    def bound(self, count: int) -> float:
        """Return the lower bound of the log evidence, up to a common constant.

        Holds right after an update of relevance and noise, where the expected
        quadratic terms of both have become constants.
        """
        R, sides = len(self.relevance), sum(len(U) for U in self.means)
        shape = _PRIOR + 0.5 * sides
        each = math.lgamma(shape) - math.lgamma(_PRIOR) + _PRIOR * math.log(_PRIOR)
        rates = shape / self.relevance
        rows = 0.5 * sum(self.volumes) + 0.5 * R * sides
        rate = (_PRIOR + 0.5 * count) / self.precision
        return (
            rows
            + R * each
            - shape * float(rates.log().sum())
            - (_PRIOR + 0.5 * count) * math.log(rate)
        )


def _settle(
    Y: Tensor,
    observed: Tensor | None,
    state: _State,
    count: int,
    max_iter: int,
    tol: float,
) -> int:
    """Update a state, in place, until noise and energies stay; return the turns."""
    for n_iter in range(1, max_iter + 1):
        before, energy = state.noise, state.energy
        _update(Y, observed, state, count)
        after = state.energy
        keep = after > _NEGLIGIBLE * after.sum()
        moved = ((after - energy).abs() > 0.01 * energy).any()
        if not bool(keep.all()):
            slim = state.keep(keep)
            if not len(slim.relevance):
                slim.precision = slim.noise = 1.0
            state.__dict__ = slim.__dict__
            if not len(slim.relevance):
                return n_iter
        elif abs(before - state.noise) < tol and not bool(moved):
            return n_iter
    return max_iter


def _without_one(
    Y: Tensor,
    observed: Tensor | None,
    state: _State,
    count: int,
    max_iter: int,
    tol: float,
) -> tuple[_State | None, int]:
    """Return a state with a component less that is more probable, if there is one.

    Alternating updates merge two halves of one component only in hundreds of
    turns. Tried are the weakest component and the two most alike.
    """
    R = len(state.relevance)
    if R == 0:
        return None, 0
    bound = state.bound(count)
    if R == 1:
        none = state.keep(torch.zeros_like(state.relevance, dtype=torch.bool))
        none.precision = none.noise = 1.0
        return (none if none.bound(count) > bound else None), 0
    alike = torch.ones(R, R, dtype=torch.float64, device=Y.device)
    for U in state.means:
        unit = torch.nn.functional.normalize(U, dim=0)
        alike = alike * (unit.mT @ unit)
    alike = alike.abs().fill_diagonal_(0.0)
    pair = divmod(int(alike.argmax()), R)
    turns = 0
    for r in dict.fromkeys([int(state.energy.argmin()), *pair]):
        left = state.keep(torch.arange(R, device=Y.device) != r)
        left.noise = math.inf
        turns += _settle(Y, observed, left, count, min(max_iter, 100), tol)
        if left.bound(count) > bound:
            return left, turns
    return None, turns


def _update(Y: Tensor, observed: Tensor | None, state: _State, count: int) -> None:
    """Update all posteriors once, in place."""
    R = len(state.relevance)
    i, j = torch.triu_indices(R, R, device=Y.device)
    prior = torch.diag(state.relevance)

    def pairs(some: slice) -> list[Tensor]:
        """Return expected products of two columns, of some of the pairs."""
        a, b = i[some], j[some]
        both = zip(state.means, state.spreads, strict=True)
        return [(U[:, a] * U[:, b] + V[:, a, b]).to(Y.dtype) for U, V in both]

    for n in range(Y.ndim):
        if observed is None:
            moments = [
                U.mT @ U + len(U) * V[0]
                for U, V in zip(state.means, state.spreads, strict=True)
            ]
            S = normal_matrix(moments, n)[None]
        else:
            S = normal_matrices(observed, pairs, n, R)
        M = mttkrp(Y, [U.to(Y.dtype) for U in state.means], n).double()
        root = torch.linalg.cholesky(state.precision * S + prior)
        V = torch.cholesky_inverse(root)
        U = state.precision * (V @ M[..., None])[..., 0]
        logs = root.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        state.means[n], state.spreads[n] = U, V
        state.volumes[n] = -2.0 * float(logs.sum()) * (len(U) / len(V))
    # S and M are those of the last mode.
    rows = len(U) / len(V)
    expected = (
        count
        - 2.0 * float((M * U).sum())
        + float(((U[:, None, :] @ S) @ U[:, :, None]).sum())
        + rows * float((S * V).sum())
    )
    expected = max(expected, 0.0)
    energy = torch.zeros_like(state.relevance)
    for n, W in enumerate(state.means):
        energy += W.square().sum(dim=0) + state.spread(n)
    state.relevance = (_PRIOR + 0.5 * sum(Y.shape)) / (_PRIOR + 0.5 * energy)
    state.precision = (_PRIOR + 0.5 * count) / (_PRIOR + 0.5 * expected)
    state.noise = expected / count


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
