"""A few directions in the space of all weights, on their manifolds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry.spectral import eigh
from eegtensor.training.space import ParamSpace, Points, Tangent

# Directions whose length is below this share of the largest are rounding.
_RANK = 1e-6


@dataclass(frozen=True, eq=False)
class Frame:
    """A point, and tangents there: a few numbers stand for all weights.

    Coefficients a stand for ``retract(base, sum_j a_j directions_j)``.

    Attributes
    ----------
    space : ParamSpace
    base : dict of Tensor
    directions : dict of Tensor, shape (n_directions, ...)
        Stacked tangents of each leaf, by its name.
    """

    space: ParamSpace
    base: Points
    directions: Tangent

    def __len__(self) -> int:
        return len(next(iter(self.directions.values())))

    def tangent(self, coefficients: Tensor) -> Tangent:
        """Return the tangent that coefficients, shape (n_directions,), stand for."""
        return {
            n: torch.tensordot(coefficients.to(d), d, dims=1)
            for n, d in self.directions.items()
        }

    def points(self, coefficients: Tensor) -> Points:
        """Return the weights that coefficients stand for, with their graph."""
        # The adapters themselves: the space's own `retract` keeps no graph.
        return {
            n: self.space.adapters[n].retract(self.base[n], u)
            for n, u in self.tangent(coefficients).items()
        }

    def gradient(self, coefficients: Tensor, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return the gradient of the coefficients from that of the weights there.

        Exact also away from the base: the derivative of the retraction is in it.
        """
        with torch.enable_grad():
            a = coefficients.detach().requires_grad_()
            points = self.points(a)
            (found,) = torch.autograd.grad(
                [points[n] for n in points], a, [gradients[n] for n in points]
            )
        return found

    def coefficients(self, points: Mapping[str, Tensor]) -> Tensor:
        """Return the coefficients of the nearest weights, seen from the base.

        The directions must be orthonormal, as those of `orthonormal_frame` are.
        """
        u = self.space.log(points, self.base)
        return cross_gram(self.space, self.base, self.directions, stack([u]))[:, 0]

    def project(self, gradients: Mapping[str, Tensor]) -> Points:
        """Return the part of a Euclidean gradient at the base along the directions.

        For orthonormal directions P of Euclidean leaves this is P' P g. Leaves
        without a gradient count as zero.
        """
        a = sum(
            _rows(d) @ gradients[n].reshape(-1).to(d)
            for n, d in self.directions.items()
            if n in gradients
        )
        assert isinstance(a, Tensor)
        return {
            n: lower(self.space, n, self.base[n], u) for n, u in self.tangent(a).items()
        }


def lower(space: ParamSpace, name: str, p: Tensor, u: Tensor) -> Tensor:
    """Return the Euclidean gradient whose Riemannian gradient is a tangent."""
    adapter = space.adapters[name]
    if adapter.name in ("euclidean", "stiefel"):
        return u
    with torch.enable_grad():
        # The inner product is linear in v: its gradient is the same everywhere.
        v = u.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(adapter.inner(p, u.detach(), v), v)
    return found


def stack(tangents: Sequence[Mapping[str, Tensor]]) -> Tangent:
    """Return tangents stacked along a new first axis."""
    return {n: torch.stack([u[n] for u in tangents]) for n in tangents[0]}


def _rows(stacked: Tensor) -> Tensor:
    # Leaves may be single numbers: there is nothing to flatten then.
    return stacked.reshape(len(stacked), -1)


@torch.no_grad()
def cross_gram(space: ParamSpace, base: Points, one: Tangent, two: Tangent) -> Tensor:
    """Return inner products of stacked tangents at a base, (n_one, n_two), float64."""
    total: Tensor | None = None
    for name, a in one.items():
        adapter, b = space.adapters[name], two[name]
        if adapter.name in ("euclidean", "stiefel"):
            part = _rows(a).double() @ _rows(b).double().mT
        else:
            p = base[name].double()
            rows = [adapter.inner(p, u.double(), v.double()) for u in a for v in b]
            part = torch.stack(rows).reshape(len(a), len(b))
        total = part if total is None else total + part
    assert total is not None
    return total


@torch.no_grad()
def orthonormal_frame(
    space: ParamSpace,
    base: Points,
    tangents: Sequence[Tangent],
    *,
    n_components: int | None = None,
) -> Frame:
    """Return the principal directions of tangents, orthonormal in the base's metric.

    Parameters
    ----------
    space : ParamSpace
    base : dict of Tensor
    tangents : sequence of dict of Tensor
        At the base. Subtract their mean for a principal component analysis.
    n_components : int | None
        Directions kept, by falling length; all that are not rounding by default.

    Raises
    ------
    EEGTensorError
        If all tangents are zero.
    """
    stacked = stack(tangents)
    values, vectors = eigh(cross_gram(space, base, stacked, stacked))
    values, vectors = values.flip(-1), vectors.flip(-1)
    kept = int((values > _RANK**2 * values[0].clamp_min(0.0)).sum())
    if not kept or not bool(values[0] > 0):
        fail(
            "A subspace of weights has no direction",
            why="All weights that span it are the same",
            fix="record weights while they move: more epochs, or a larger rate",
        )
    kept = kept if n_components is None else min(kept, n_components)
    mixing = (vectors[:, :kept] / values[:kept].sqrt()).mT
    directions = {
        n: torch.tensordot(mixing, d.double(), dims=1).to(d) for n, d in stacked.items()
    }
    return Frame(space, base, directions)


def trajectory_frame(
    space: ParamSpace,
    states: Sequence[Mapping[str, Tensor]],
    *,
    n_components: int | None = 40,
    base: Mapping[str, Tensor] | None = None,
) -> Frame:
    """Return the principal directions of weights along a run (DLDR).

    Parameters
    ----------
    space : ParamSpace
    states : sequence of dict of Tensor
        Weights along the run, as a `Trajectory` records them.
    n_components : int | None
    base : dict of Tensor | None
        Where tangents are taken; the first state by default.

    Raises
    ------
    EEGTensorError
        If there are fewer than two states, or all are the same.

    References
    ----------
    T. Li, L. Tan, Z. Huang, Q. Tao, Y. Liu and X. Huang, "Low dimensional
    trajectory hypothesis is true: DNNs can be trained in tiny subspaces", IEEE
    TPAMI 2023.
    """
    if len(states) < 2:
        fail(
            f"{len(states)} recorded weights span no subspace",
            fix="record more epochs, or every few steps",
        )
    at = {n: (states[0] if base is None else base)[n] for n in space.leaves}
    tangents = [space.log(state, at) for state in states]
    middle = {n: d.mean(dim=0) for n, d in stack(tangents).items()}
    centred = [{n: u[n] - middle[n] for n in u} for u in tangents]
    return orthonormal_frame(space, at, centred, n_components=n_components)
