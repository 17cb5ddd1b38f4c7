"""One step of training on each trial alone, and what is seen after it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor.training.batch import Batch
from eegtensor.training.network import Network
from eegtensor.training.statistics import evaluating

Look = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def each_after_a_step(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    lr: float,
    domain: Tensor | None,
    look: Look,
) -> Tensor:
    """Return what `look` sees of each trial after its own step; weights are restored.

    The step is the published SGD, down the trial's cross-entropy in evaluation
    mode, along the manifolds.
    """
    network = Network(model)
    space = network.space
    here = space.snapshot()
    # Weights differ from trial to trial: no batch serves them all.
    found = []
    try:
        for i in range(len(x)):
            one, t = x[i : i + 1], target[i : i + 1]
            d = None if domain is None else domain[i : i + 1]
            with evaluating(model), torch.enable_grad():
                loss = F.cross_entropy(network(Batch(one, domain=d)), t)
                gradients = torch.autograd.grad(
                    loss, list(space.leaves.values()), allow_unused=True
                )
            slopes = {
                name: torch.zeros_like(here[name]) if g is None else g.detach()
                for name, g in zip(space.leaves, gradients, strict=True)
            }
            space.assign(space.retract(space.scale(space.rgrad(slopes), -lr)))
            found.append(look(one, t, d))
            space.restore(here)
    finally:
        space.restore(here)
    return torch.cat(found)
