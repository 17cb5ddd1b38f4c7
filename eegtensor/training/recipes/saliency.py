"""Which weights matter to some trials more than to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.statistics import evaluating

if TYPE_CHECKING:
    from eegtensor.training.network import Network
    from eegtensor.training.protocols import Gradients, State, StepContext
    from eegtensor.training.space import ParamSpace

_TINY = 1e-15


def fisher(
    network: Network, data: Batch, batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Return the mean over batches of squared gradients of the cross entropy.

    In evaluation mode: neither statistics nor random numbers move. A parameter on a
    manifold has one number, the mean square of its Riemannian gradient: its entries
    are coordinates of no meaning.

    Parameters
    ----------
    network : Network
    data : Batch
    batches : iterable of Tensor
        Places of trials in `data`.

    Returns
    -------
    squares : dict of Tensor
        By name, of the shape of the parameter or of one number.
    """
    space, device = network.space, next(network.model.parameters()).device
    kept = {name: p.grad for name, p in space.leaves.items()}
    total: dict[str, Tensor] = {}
    count = 0
    with evaluating(network.model), torch.enable_grad():
        for index in batches:
            batch = data.pick(index.to(data.device)).to(device)
            network.model.zero_grad(set_to_none=True)
            y = labels_of(batch, "The Fisher information")
            outputs = network(batch)
            F.cross_entropy(outputs, y, ignore_index=UNLABELLED).backward()
            tangent = space.rgrad(space.gradients())
            for name, adapter in space.adapters.items():
                square = tangent[name].double().square()
                if adapter.name != "euclidean":
                    v = tangent[name]
                    square = adapter.inner(space.points()[name], v, v).double()
                    square = square.reshape(1) / v.numel()
                total[name] = total.get(name, 0.0) + square
            count += 1
    for name, p in space.leaves.items():
        p.grad = kept[name]
    return {name: square / max(count, 1) for name, square in total.items()}


def saliency_mask(
    wanted: Sequence[Mapping[str, Tensor]],
    protected: Sequence[Mapping[str, Tensor]],
    gamma: float = 1.0,
) -> dict[str, Tensor]:
    """Return 1 where the information of some trials outweighs that of others.

    1[(sum F_wanted + 1e-15) / (sum F_protected + 1e-15) >= gamma], the sums being over
    what is given.

    Parameters
    ----------
    wanted, protected : sequence of dict of Tensor
        Of `fisher`.
    gamma : float
    """
    mask = {}
    for name in wanted[0]:
        a = torch.stack([f[name] for f in wanted]).sum(0)
        b = torch.stack([f[name] for f in protected]).sum(0)
        mask[name] = ((a + _TINY) / (b + _TINY) >= gamma).double()
    return mask


class Masked:
    """A map of gradients: zero where a mask is, then clipped in norm.

    The norm is of Euclidean gradients, over all parameters together.

    Parameters
    ----------
    mask : dict of Tensor | None
        By name; of the shape of the parameter or one number. None is no mask.
    max_norm : float | None
    """

    def __init__(
        self, mask: Mapping[str, Tensor] | None, max_norm: float | None = None
    ) -> None:
        self.mask, self.max_norm = mask, max_norm

    def fit(self, trajectory: Sequence[State], space: ParamSpace) -> Masked:
        """Return itself: nothing is learned from weights along a run."""
        return self

    @torch.no_grad()
    def __call__(self, gradients: Gradients, context: StepContext) -> Gradients:
        """Return new gradients by name of parameter."""
        if self.mask is not None:
            gradients = {n: g * self.mask[n].to(g) for n, g in gradients.items()}
        if self.max_norm is None:
            return gradients
        squares: Any = [g.double().square().sum() for g in gradients.values()]
        norm = torch.stack(squares).sum().sqrt()
        factor = (self.max_norm / (norm + 1e-6)).clamp_max(1.0)
        return {name: g * factor.to(g) for name, g in gradients.items()}
