"""Posterior of a CP model whose components earn their keep: updates, pruning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eegtensor.tensor._alternate import normal_matrices, normal_matrix
from eegtensor.tensor._missing import slice_means
from eegtensor.tensor._shapes import normal
from eegtensor.tensor.kernels import leading_vectors, mttkrp

# Both Gamma priors: next to no knowledge.
_PRIOR = 1e-6
# A component with less than this share of the energy is pruned.
_NEGLIGIBLE = 1e-6


class State:
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
    def begin(cls, Y: Tensor, observed: Tensor | None, R: int, random: Any) -> State:
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

    def keep(self, which: Tensor) -> State:
        """Return a copy with some of the components."""
        out = State(
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


def settle(
    Y: Tensor,
    observed: Tensor | None,
    state: State,
    count: int,
    max_iter: int,
    tol: float,
) -> int:
    """Update a state, in place, until noise and energies stay; return the turns."""
    for n_iter in range(1, max_iter + 1):
        before, energy = state.noise, state.energy
        update(Y, observed, state, count)
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


def without_one(
    Y: Tensor,
    observed: Tensor | None,
    state: State,
    count: int,
    max_iter: int,
    tol: float,
) -> tuple[State | None, int]:
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
        turns += settle(Y, observed, left, count, min(max_iter, 100), tol)
        if left.bound(count) > bound:
            return left, turns
    return None, turns


def update(Y: Tensor, observed: Tensor | None, state: State, count: int) -> None:
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
