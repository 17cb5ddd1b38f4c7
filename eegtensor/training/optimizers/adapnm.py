"""AdaPNM: positive-negative momentum with the step sizes of Adam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_number, check_option
from eegtensor.training.optimizers._leaf import Leaf
from eegtensor.training.optimizers._twomomenta import TwoMomenta


class AdaPNM(TwoMomenta):
    """Adaptive positive-negative momentum, also on manifolds.

    The momenta of `PNM`, divided entry by entry by the root of the decayed mean of
    squared gradients, as Adam. On manifolds one number
    a matrix stands for its entries, the squared norm of its Riemannian gradient,
    as in Riemannian Adam.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of them.
    lr : float
    betas : (float, float, float)
        Decay of the momenta, of squared gradients, and weight of the other momentum.
    eps : float
        Added to the root.
    weight_decay : float
        Decoupled from the gradient.
    amsgrad : bool
        Divide by the largest mean of squares so far.

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
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 1.0),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = True,
    ) -> None:
        check_number("eps", eps, least=0.0)
        check_option("amsgrad", amsgrad, (True, False))
        options = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, 3, options | {"eps": eps, "amsgrad": amsgrad})

    def _scaled(
        self,
        leaf: Leaf,
        p: Tensor,
        g: Tensor,
        d: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
    ) -> Tensor:
        (b1, b2, _), step = group["betas"], state["step"]
        square = leaf.square(p, g)
        if "square" not in state:
            state["square"] = torch.zeros_like(square)
            if group["amsgrad"]:
                state["largest"] = torch.zeros_like(square)
        state["square"].lerp_(square, 1.0 - b2)
        if group["amsgrad"]:
            torch.maximum(state["largest"], state["square"], out=state["largest"])
        mean = state["largest" if group["amsgrad"] else "square"]
        root = mean.sqrt() / (1.0 - b2**step) ** 0.5 + group["eps"]
        return d / root / (1.0 - b1**step)
