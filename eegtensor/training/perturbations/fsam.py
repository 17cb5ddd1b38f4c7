"""F-SAM: SAM without the part of the gradient that all batches share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.perturbations.moves import Move, Rho, ascent, check_rho

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState

# Below this share of the gradient what is left of it is rounding.
_LEFT = 1e-3


class FSAM:
    """Friendly sharpness-aware minimisation.

    The second pass is at ``retract(w, rho d / ||d||)`` with
    ``m <- decay m + (1 - decay) g`` and ``d = g - sigma m`` (algorithm 1 of the
    paper): up the noise of the batch alone. m is kept as a Euclidean gradient, the
    norm is that of the product metric of all parameters. The first step is SAM's.

    Where a batch is the whole training set, d is rounding noise: with
    ``||d|| <= 1e-3 ||g||`` the weights stay, and the step is a plain one.

    Parameters
    ----------
    rho : float | dict
        Length of the step up; 0.2 in the paper's runs on CIFAR-100. A dict as in
        `SAM`.
    sigma : float
        How much of the mean gradient is taken away; with 0 it is SAM.
    decay : float
        Of the mean gradient, in [0, 1).
    compat : "released" | None
        "released" takes the mean of the steps *before* this one, as the authors'
        code does, and normalises whatever is left. With sigma = 1 both are the
        same direction, with sigma = 0.5 they are some 5 degrees apart.

    Attributes
    ----------
    n_plain : Tensor
        Steps so far whose weights stayed.

    Raises
    ------
    EEGTensorError
        If rho is not positive or decay not in [0, 1).

    References
    ----------
    T. Li, P. Zhou, Z. He, X. Cheng and X. Huang, "Friendly sharpness-aware
    minimization", CVPR 2024.
    """

    where: Literal["weight"] = "weight"
    extra_gradients = 1

    def __init__(
        self,
        rho: Rho = 0.1,
        sigma: float = 1.0,
        decay: float = 0.6,
        compat: str | None = None,
    ) -> None:
        check_number("sigma", sigma)
        if not 0 <= check_number("decay", decay) < 1:
            fail(f"decay={decay}", fix="give a number in [0, 1)")
        check_option("compat", compat, (None, "released"))
        self.rho = check_rho(rho)
        self.sigma, self.decay, self.compat = sigma, decay, compat
        self._mean: dict[str, Tensor] = {}
        self.n_plain = torch.zeros((), dtype=torch.int64)

    def on_train_start(self, state: TrainState) -> None:
        """Forget the gradients of an earlier run."""
        if state.epoch == 0:
            self._mean, self.n_plain = {}, torch.zeros_like(self.n_plain)

    def sample(self, context: StepContext) -> Move:
        """Return the step up what the batch's gradient has of its own."""
        space, g = context.space, context.space.gradients()
        before = {name: m.to(g[name]) for name, m in self._mean.items()}
        if not before:
            self._mean, taken = {n: leaf.clone() for n, leaf in g.items()}, None
        else:
            self._mean = {n: g[n].lerp(m, self.decay) for n, m in before.items()}
            taken = before if self.compat == "released" else self._mean
        d = g
        if taken is not None and self.sigma:
            d = {name: leaf - self.sigma * taken[name] for name, leaf in g.items()}
        up = space.rgrad(d)
        step = ascent(space, up, self.rho)
        if d is not g and self.compat is None:
            stays = space.norm(up) <= _LEFT * space.norm(space.rgrad(g))
            step = space.scale(step, 1.0 - stays.double())
            self.n_plain = self.n_plain.to(stays.device) + stays
        return Move(space, step)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean gradient and the count of plain steps."""
        return {"mean": dict(self._mean), "n_plain": self.n_plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._mean, self.n_plain = dict(state["mean"]), state["n_plain"]
