"""Perturbations of weights: a tangent, and the way there and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from eegtensor._check import check_number, check_option, fail, listing
from eegtensor.training.space import ParamSpace, Points, Tangent

# Names of the geometries of parameters.
GROUPS = ("euclidean", "stiefel", "spd")

Rho = float | Mapping[str, float]


class Move:
    """Weights moved along a tangent by retraction, and put back by a copy.

    Parameters
    ----------
    space : ParamSpace
    tangent : dict of Tensor | None
        None moves nothing.
    """

    def __init__(self, space: ParamSpace, tangent: Tangent | None) -> None:
        self.space = space
        self.tangent = tangent
        self._kept: Points | None = None

    def apply(self) -> None:
        """Go there."""
        if self.tangent is not None:
            self._kept = self.space.snapshot()
            self.space.assign(self.space.retract(self.tangent))

    def revert(self) -> None:
        """Come back, bit for bit."""
        if self._kept is not None:
            self.space.restore(self._kept)
            self._kept = None


def check_rho(rho: Rho) -> float | dict[str, float]:
    """Return the length of a step up, or those of groups of parameters.

    Raises
    ------
    EEGTensorError
        If a length is not positive, or there is no such group.
    """
    if not isinstance(rho, Mapping):
        return check_number("rho", rho, above=0.0)
    if not rho:
        fail("rho={}", fix=f"give lengths for groups among {listing(GROUPS)}")
    return {
        check_option("group of rho", group, GROUPS): check_number(
            f"rho of {group!r}", length, above=0.0
        )
        for group, length in rho.items()
    }


@torch.no_grad()
def ascent(space: ParamSpace, up: Tangent, rho: Rho) -> Tangent:
    """Return a step of length `rho` along a tangent.

    Where `rho` says a length for each geometry, the Euclidean, Stiefel and SPD parts
    of the tangent are normalised one by one. In one common norm the SPD part, which
    grows with the eigenvalues, may take nearly all of the step, or none.

    Raises
    ------
    EEGTensorError
        If parameters are of a group that `rho` says nothing of.
    """
    # A tangent of zero has no direction: the weights stay.
    if not isinstance(rho, Mapping):
        return space.scale(up, rho / space.norm(up).clamp_min(1e-30))
    points, step = space.points(), {}
    groups = {name: adapter.name for name, adapter in space.adapters.items()}
    missing = sorted({*groups.values()} - {*rho})
    if missing:
        fail(
            f"rho says nothing of {listing(missing)} parameters",
            why="This network has some",
            fix="give rho a length for these too, or one number for all",
        )
    for group, length in rho.items():
        names = [name for name in groups if groups[name] == group]
        squares = [
            space.adapters[n].inner(points[n], up[n], up[n]).double() for n in names
        ]
        for name in names:
            norm = torch.stack(squares).sum().clamp_min(0.0).sqrt()
            step[name] = up[name] * (length / norm.clamp_min(1e-30))
    return {name: step[name] for name in up}
