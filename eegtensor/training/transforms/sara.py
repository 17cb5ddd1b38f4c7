"""SaRA: fine-tuning of the smallest weights alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.adapters import is_manifold_parameter

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.space import ParamSpace

# Sides of a matrix from which its rank is drawn down.
_SIDE = 64


class SaRA:
    """Fine-tuning of weights below a threshold alone; all others keep their bits.

    The weights of a pretrained network that matter least are free for a new task: the
    `share` of all Euclidean weights that is smallest in size. Matrices and kernels
    count; biases and norms stay as they are, and so do weights on manifolds, where no
    entry is free by itself. Each step adds ``nuclear ||w o mask||_*`` of one matrix,
    drawn among those of at least 64 x 64, which keeps the change of low rank. After
    half of the epochs the mask is drawn anew among those that were free: what grew
    beyond the threshold stays where it is.

    Sums of squares in an optimizer forget what is no longer free; weight decay moves
    only what is.

    Parameters
    ----------
    share : float
        0.1 to 0.2; the threshold follows from it.
    nuclear : float
        Weight of the nuclear norm. (In the released code its gradient goes to tensors
        that are no longer trained.)
    progressive : float
        Share of the epochs after which the mask is drawn anew; 1 for never.

    Attributes
    ----------
    masks : dict of Tensor of bool
        By parameter, what moves.
    threshold : float

    References
    ----------
    T. Hu et al., "SaRA: high-efficient diffusion model fine-tuning with progressive
    sparse low-rank adaptation", ICLR 2025, eq. 3 to 6.
    """

    def __init__(
        self, share: float = 0.15, nuclear: float = 5e-4, progressive: float = 0.5
    ) -> None:
        if not 0.0 < check_number("share", share) <= 1.0:
            fail(f"share={share}", fix="give a share above 0, up to 1")
        if not 0.0 <= check_number("progressive", progressive) <= 1.0:
            fail(f"progressive={progressive}", fix="give a share of the epochs")
        self.share, self.progressive = share, progressive
        self.nuclear = check_number("nuclear", nuclear, least=0.0)
        self.masks: dict[str, Tensor] = {}
        self.threshold = 0.0
        self._fixed: dict[str, Tensor] = {}
        self._renewed = False

    def fit(self, trajectory: Sequence[Any], space: ParamSpace) -> SaRA:
        """Return itself: nothing is learned from a trajectory."""
        return self

    def on_train_start(self, state: TrainState) -> None:
        """Choose what moves, unless the run goes on."""
        if state.epoch == 0:
            self._renewed = False
            self._choose(state.model)
        self._keep(state.model)

    def on_epoch_start(self, state: TrainState) -> None:
        """Draw the mask anew, once."""
        due = state.epoch > self.progressive * state.n_epochs
        if not due or self._renewed or not self.masks:
            return
        self._renewed = True
        for name, p in _named(state.model):
            if name in self.masks:
                self.masks[name] &= p.detach().abs() < self.threshold
                for value in state.optimizer.state.get(p, {}).values():
                    if isinstance(value, Tensor) and value.shape == p.shape:
                        value.mul_(self.masks[name])
        self._keep(state.model)

    @torch.no_grad()
    def _choose(self, model: nn.Module) -> None:
        free = {
            name: p.detach().abs()
            for name, p in _named(model)
            if p.ndim >= 2 and not is_manifold_parameter(p)
        }
        if not free:
            fail(
                f"{type(model).__name__} has no matrix or kernel off manifolds",
                fix="choose another way to fine-tune",
            )
        sizes = torch.cat([size.flatten() for size in free.values()])
        count = min(int(self.share * len(sizes)), len(sizes) - 1)
        self.threshold = float(sizes.kthvalue(count + 1).values)
        if self.share >= 1.0:
            self.threshold = float("inf")
        self.masks = {name: size < self.threshold for name, size in free.items()}

    @torch.no_grad()
    def _keep(self, model: nn.Module) -> None:
        self._fixed = {
            name: p.detach().clone().as_subclass(Tensor) for name, p in _named(model)
        }
        # Those of a run that goes on come from a file.
        self.masks = {n: m.to(self._fixed[n].device) for n, m in self.masks.items()}

    def __call__(
        self, gradients: dict[str, Tensor], context: StepContext
    ) -> dict[str, Tensor]:
        """Return the gradients of what moves, zero elsewhere."""
        if not self.masks:
            fail("SaRA has chosen no weights", fix="use it in a run of `train`")
        found = {
            name: g * self.masks[name] if name in self.masks else torch.zeros_like(g)
            for name, g in gradients.items()
        }
        wide = [n for n in found if n in self.masks and is_wide(self.masks[n])]
        if self.nuclear and wide:
            seed = 0 if context.generator is None else context.generator.initial_seed()
            name = random.Random(seed * 1_000_003 + context.step).choice(wide)
            part = context.space.leaves[name].detach() * self.masks[name]
            # The polar factor is the norm's gradient.
            U, _, Vh = torch.linalg.svd(part, full_matrices=False)
            found[name] = found[name] + self.nuclear * (U @ Vh) * self.masks[name]
        return found

    @torch.no_grad()
    def on_step_end(self, state: TrainState) -> None:
        """Put back, to the bit, whatever decay or a retraction moved."""
        for name, p in _named(state.model):
            fixed = self._fixed[name]
            if name in self.masks:
                fixed = torch.where(self.masks[name], p.detach(), fixed)
            p.copy_(fixed)

    def state_dict(self) -> dict[str, Any]:
        """Return the masks and the threshold."""
        return {
            "masks": dict(self.masks),
            "threshold": self.threshold,
            "renewed": self._renewed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.masks = dict(state["masks"])
        self.threshold, self._renewed = state["threshold"], state["renewed"]


def is_wide(matrix: Tensor) -> bool:
    """Return whether a parameter is a matrix of at least 64 x 64."""
    return matrix.ndim == 2 and min(matrix.shape) >= _SIDE


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]
