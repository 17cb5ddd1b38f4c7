"""Fine-tuning that is pulled to where it came from only as far as it does no harm."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.network import Network
from eegtensor.training.objectives.vat import divergence
from eegtensor.training.statistics import evaluating
from eegtensor.training.transforms._against import shares_against

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.space import ParamSpace

PULLS = ("weights", "predictions")


class DTNH:
    """Deep transfer that never hurts: a pull to the pretrained network, projected.

    With the gradient g of the task and r of the pull, the step's gradient is g + alpha
    r', where r' is r without what is against g,

        r' = r                        where <g, r> >= 0
        r' = r - <r, g> / ||g||^2 g   elsewhere

    so that to first order the loss falls as fast as without the pull, or faster.
    Inner products are those of all parameters on their manifolds. The pretrained
    network is the one that the run starts with.

    g of a batch is mostly noise near the end, at right angles to what lowers the loss
    of all trials: projected off g alone, a strong pull does nearly all its harm (of
    simulated trials accuracy .84 where no pull has .95). So r' is the nearest to r
    that is against neither g nor its running mean, and no longer than `limit` times
    that mean: training ends only where it could without the pull. Where the run
    starts is beyond its reach: fine-tuning that starts at a wrong network may end
    below training from scratch, with or without a pull.

    Parameters
    ----------
    alpha : float
        0.01 to 0.1.
    pull : "weights" | "predictions"
        "weights": r of ``||w - w0||^2 / 2`` (L2-SP; of matrices on a manifold in
        their entries). "predictions": r of KL(p0(x) || p(x)), by one more pass.
    projected : bool
        Whether the part of r against g is taken out; False is the plain sum.
    decay : float
        Of the running mean of g, in [0, 1); 0 is g itself, as in the paper.
    limit : float | None
        Most length of alpha r', in lengths of the running mean. Ours; None, as in
        the paper, for no limit.

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
        self,
        alpha: float = 0.01,
        pull: str = "weights",
        projected: bool = True,
        decay: float = 0.9,
        limit: float | None = 1.0,
    ) -> None:
        self.alpha = check_number("alpha", alpha, least=0.0)
        if not 0 <= decay < 1:
            fail(f"decay={decay}", fix="give a number in [0, 1)")
        if limit is not None:
            check_number("limit", limit, above=0.0)
        self.projected, self.decay, self.limit = projected, decay, limit
        self.pull = check_option("pull", pull, PULLS)
        self.anchor: dict[str, Tensor] | None = None
        self._mean: dict[str, Tensor] = {}
        self._teacher: nn.Module | None = None

    def fit(self, trajectory: Sequence[Any], space: ParamSpace) -> DTNH:
        """Take the last of some weights as those to be pulled to; return itself."""
        kept = {**trajectory[-1]}
        self.anchor = {name: kept[name].detach().clone() for name in space.leaves}
        return self

    def on_train_start(self, state: TrainState) -> None:
        """Remember the network that the run starts with."""
        assert state.network is not None
        if state.epoch == 0:
            self._mean = {}
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
        factor = torch.tensor(self.alpha)
        if self.projected:
            mean = {name: m.to(g[name]) for name, m in self._mean.items()}
            mean = {n: g[n].lerp(mean.get(n, g[n]), self.decay) for n in g}
            self._mean = {name: leaf.detach().clone() for name, leaf in mean.items()}
            # Euclidean gradients add up as the Riemannian ones that they stand for.
            tangents = [space.rgrad(leaves) for leaves in (g, mean, r)]
            share, rest = shares_against(space, *tangents)
            r = {
                n: leaf - share.to(leaf) * g[n] - rest.to(leaf) * mean[n]
                for n, leaf in r.items()
            }
            if self.limit is not None:
                most = self.limit * space.norm(tangents[1])
                length = space.norm(space.rgrad(r))
                factor = (most / length.clamp_min(1e-300)).clamp_max(self.alpha)
        return {
            **gradients,
            **{name: g[name] + factor.to(leaf) * leaf for name, leaf in r.items()},
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

    def state_dict(self) -> dict[str, Any]:
        """Return the weights to be pulled to, and the mean of gradients."""
        return {"anchor": dict(self.anchor or {}), "mean": dict(self._mean)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.anchor = {n: leaf.clone() for n, leaf in state["anchor"].items()} or None
        self._mean = dict(state["mean"])
