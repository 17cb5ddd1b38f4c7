"""Two momenta that take turns: what PNM and AdaPNM share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.training.optimizers._leaf import Leaf, plain


class TwoMomenta(torch.optim.Optimizer):
    """Steps along one momentum and against the other, on manifolds too.

    Parameters
    ----------
    params : iterable
    n_betas : int
        How many of `betas` there must be: first the momenta's decay, last the weight
        of the other momentum, between them decays of `_scaled`.
    options : dict
        Of all groups: at least lr, betas and weight_decay.
    """

    def __init__(
        self, params: Iterable[Any], n_betas: int, options: dict[str, Any]
    ) -> None:
        lr, decay, betas = options["lr"], options["weight_decay"], options["betas"]
        check_number("lr", lr, least=0.0)
        check_number("weight_decay", decay, least=0.0)
        right = len(betas) == n_betas and betas[-1] >= 0
        if not right or not all(0 <= b < 1 for b in betas[:-1]):
            fail(
                f"betas={betas}",
                fix=f"give {n_betas} numbers: decays in [0, 1), and last the weight "
                "of the other momentum",
            )
        super().__init__(params, options | {"betas": tuple(betas)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move the parameters by their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group)
        return loss

    def _move(self, parameter: Any, group: dict[str, Any]) -> None:
        p, state = plain(parameter), self.state[parameter]
        leaf = Leaf(parameter)
        g = leaf.rgrad(p, plain(parameter.grad))
        if not state:
            state["step"] = 0
            state["odd"], state["even"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        moved, other = ("odd", "even") if state["step"] % 2 else ("even", "odd")
        decay, b2 = group["betas"][0] ** 2, group["betas"][-1]
        state[moved].lerp_(g, 1.0 - decay)
        size = ((1.0 + b2) ** 2 + b2**2) ** 0.5
        d = state[moved] * ((1.0 + b2) / size) - state[other] * (b2 / size)
        if group["weight_decay"]:
            # Groups on manifolds have none: see make_optimizer.
            p = p * (1.0 - group["lr"] * group["weight_decay"])
        new = leaf.retract(p, self._scaled(leaf, p, g, d, state, group) * -group["lr"])
        if not leaf.flat:
            for name in ("odd", "even"):
                state[name].copy_(leaf.transport(p, new, state[name]))
        parameter.copy_(new)

    def _scaled(
        self,
        leaf: Leaf,
        p: Tensor,
        g: Tensor,
        d: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
    ) -> Tensor:
        """Return the direction of a step for lr = -1."""
        return d
