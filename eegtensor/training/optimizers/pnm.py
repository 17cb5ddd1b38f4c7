"""PNM: two momenta, one counted negatively, for more noise at the same mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eegtensor.training.optimizers._twomomenta import TwoMomenta


class PNM(TwoMomenta):
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
        betas: tuple[float, float] = (0.9, 1.0),
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, 2, options)
