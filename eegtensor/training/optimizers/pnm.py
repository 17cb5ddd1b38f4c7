"""PNM: two momenta, one counted negatively, for more noise at the same mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.training.optimizers._leaf import Leaf, plain


class PNM(torch.optim.Optimizer):
    """Positive-negative momentum, also on manifolds.

    Two momenta take in the gradients of odd and of even steps,
    ``m <- b1^2 m + (1 - b1^2) g``, and a step is

        w <- w (1 - lr decay) - lr ((1 + b2) m - b2 m') / sqrt((1 + b2)^2 + b2^2)

    with m the momentum just moved and m' the other. At b2 = 1 a constant gradient
    moves the weights by lr / sqrt(5) of it: raise the learning rate by 2.2 against
    SGD. On manifolds both momenta are Riemannian gradients, carried along with the
    weights.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of them.
    lr : float
    betas : (float, float)
        b1 in [0, 1), and b2 >= 0.
    weight_decay : float
        Decoupled from the gradient.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    Z. Xie, L. Yuan, Z. Zhu and M. Sugiyama, "Positive-negative momentum:
    manipulating stochastic gradient noise to improve generalization", ICML 2021.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, ...] = (0.9, 1.0),
        weight_decay: float = 0.0,
        **defaults: Any,
    ) -> None:
        if not lr >= 0 or not weight_decay >= 0:
            fail(f"lr={lr}, weight_decay={weight_decay}", fix="give no negative number")
        if not all(0 <= b < 1 for b in betas[:-1]) or not betas[-1] >= 0:
            fail(
                f"betas={betas}",
                fix="give decays in [0, 1), and last the weight of the other momentum",
            )
        options = {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay}
        super().__init__(params, options | defaults)

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
