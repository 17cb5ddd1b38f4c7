"""Fine-tuning that is pulled to where it came from only as far as it does no harm."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.training.network import Network
from eegtensor.training.objectives.vat import divergence
from eegtensor.training.statistics import evaluating

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.space import ParamSpace

PULLS = ("weights", "predictions")


class DTNH:
    """Deep transfer that never hurts: a pull to the pretrained network, projected.

    With the gradient g of the task and r of the pull, the step's gradient is

        g + alpha r                        where <g, r> >= 0
        g + alpha (r - <r, g> / ||g||^2 g)  elsewhere

    so that to first order the loss falls as fast as without the pull, or faster.
    Inner products are those of all parameters on their manifolds. The pretrained
    network is the one that the run starts with.

    That is of a step that is short enough. Near the end of training g is small and
    r is not: a strong pull from a wrong network does harm at any finite step, less
    than the plain sum does.

    Parameters
    ----------
    alpha : float
        0.01 to 0.1.
    pull : "weights" | "predictions"
        "weights": r of ``||w - w0||^2 / 2`` (L2-SP; of matrices on a manifold in
        their entries). "predictions": r of KL(p0(x) || p(x)), by one more pass.
    projected : bool
        Whether the part of r against g is taken out; False is the plain sum.

    Raises
    ------
    EEGTensorError
        If an option is unknown or out of range, or there is no network to go back
        to.

    References
    ----------
    R. Wan, H. Xiong, X. Li, Z. Zhu and J. Huan, "Towards making deep transfer
    learning never hurt", ICDM 2019, eq. 5 to 8; X. Li, Y. Grandvalet and
    F. Davoine, "Explicit inductive bias for transfer learning with convolutional
    networks", ICML 2018 (L2-SP).
    """

    def __init__(
        self, alpha: float = 0.01, pull: str = "weights", projected: bool = True
    ) -> None:
        if alpha < 0:
            fail(f"alpha={alpha}", fix="give 0 or more")
        self.alpha, self.projected = alpha, projected
        self.pull = check_option("pull", pull, PULLS)
        self.anchor: dict[str, Tensor] | None = None
        self._teacher: nn.Module | None = None

    def fit(self, trajectory: Sequence[Any], space: ParamSpace) -> DTNH:
        """Take the last of some weights as those to be pulled to; return itself."""
        kept = {**trajectory[-1]}
        self.anchor = {name: kept[name].detach().clone() for name in space.leaves}
        return self

    def on_train_start(self, state: TrainState) -> None:
        """Remember the network that the run starts with."""
        assert state.network is not None
        predicts = self.pull == "predictions"
        if self.anchor is None:
            space = state.network.space
            # Predictions are also those of its statistics.
            whole = state.model.state_dict() if predicts else space.points()
            self.anchor = {
                n: t.detach().clone().as_subclass(Tensor) for n, t in whole.items()
            }
        if predicts:
            self._teacher = copy.deepcopy(state.model)
            self._teacher.load_state_dict(self.anchor, strict=False)

    def __call__(
        self, gradients: dict[str, Tensor], context: StepContext
    ) -> dict[str, Tensor]:
        """Return the gradients with the pull."""
        if self.anchor is None:
            fail(
                "DTNH has no network to be pulled to",
                fix="use it in a run of `train`, or call fit with its weights",
            )
        space = context.space
        r = self._pull(context)
        g = {
            name: gradients.get(name, torch.zeros_like(leaf))
            for name, leaf in r.items()
        }
        if self.projected:
            # Euclidean gradients add up as the Riemannian ones that they stand for.
            up, back = space.rgrad(g), space.rgrad(r)
            against = space.inner(back, up).clamp_max(0.0)
            share = against / space.inner(up, up).clamp_min(1e-300)
            r = {name: leaf - share.to(leaf) * g[name] for name, leaf in r.items()}
        return {
            **gradients,
            **{name: g[name] + self.alpha * leaf for name, leaf in r.items()},
        }

    def _pull(self, context: StepContext) -> dict[str, Tensor]:
        assert self.anchor is not None
        points = context.space.points()
        if self.pull == "weights":
            return {n: p - self.anchor[n].to(p.device) for n, p in points.items()}
        assert self._teacher is not None
        batch = context.batch if context.clean is None else context.clean
        with torch.no_grad(), evaluating(self._teacher):
            before = Network(self._teacher)(batch).log_softmax(1)
        with evaluating(context.model):
            loss = divergence(before, context.network(batch)).mean()
            leaves = context.space.leaves
            found = torch.autograd.grad(loss, [*leaves.values()], allow_unused=True)
        return {
            name: torch.zeros_like(points[name]) if leaf is None else leaf
            for name, leaf in zip(leaves, found, strict=True)
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights to be pulled to."""
        return {} if self.anchor is None else dict(self.anchor)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set the weights to be pulled to."""
        self.anchor = {name: leaf.clone() for name, leaf in state.items()} or None
