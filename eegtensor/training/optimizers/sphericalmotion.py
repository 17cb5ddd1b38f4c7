"""Does the direction of weights turn as fast as learning rate and decay say?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from eegtensor._check import fail
from eegtensor.training.adapters import is_manifold_parameter
from eegtensor.training.seeds import reseed
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState


class Turning(NamedTuple):
    """How the direction of one array of weights moved in one epoch.

    Attributes
    ----------
    name : str
    epoch : int
    angle : float
        Root mean square of the angle of a step, radians.
    expected : float
        In equilibrium.
    norm : float
        Of the weights at the end.
    settled : bool
        Whether angle and expectation agree to a tenth, or nothing is expected: a
        group of the optimizer without weight decay has no equilibrium.
    """

    name: str
    epoch: int
    angle: float
    expected: float
    norm: float
    settled: bool


class SphericalMotion:
    """Watch the angle by which weights before a norm turn in each step.

    Where the scale of weights does not matter, as before a batch norm, decay lr w
    and gradients balance at an angle of ``sqrt(2 lr decay)`` a step, with momentum
    ``sqrt(2 lr decay / (1 + momentum))`` (for SGD with
    coupled decay). That takes some 1 / (lr decay) steps: an angle far below says
    that learning rate and decay do not do yet what they were chosen for.

    Parameters
    ----------
    names : tuple of str | None
        Parameters to watch. None finds, in the first step, those that can be
        doubled without changing the outputs; that takes a forward pass for each.

    Attributes
    ----------
    rows : list of Turning
        One for each parameter and epoch.
    warnings : list of str
        What the user should know of the last epoch.

    References
    ----------
    R. Wan, Z. Zhu, X. Zhang and J. Sun, "Spherical motion dynamics: learning
    dynamics of normalized neural network using SGD and weight decay", NeurIPS 2021.
    """

    def __init__(self, names: tuple[str, ...] | None = None) -> None:
        self.names = names
        self.rows: list[Turning] = []
        self.warnings: list[str] = []
        self._last: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._count = 0
        # Found by `scale_free`, which may find none.
        self._watched: tuple[str, ...] | None = None

    def on_train_start(self, state: TrainState) -> None:
        """Check the names."""
        known = dict(state.model.named_parameters())
        wrong = [name for name in self.names or () if name not in known]
        if wrong:
            fail(f"The network has no parameter {wrong[0]!r}", fix="correct the name")
        if state.epoch == 0:
            self.rows, self._watched = [], None
        names = self.names or self._watched or ()
        self._last = {n: _direction(known[n]) for n in names}

    def on_epoch_start(self, state: TrainState) -> None:
        """Begin to count anew."""
        self._squares, self._count = {}, 0

    @torch.no_grad()
    def on_step_end(self, state: TrainState) -> None:
        """Take in the angle of a step."""
        known = dict(state.model.named_parameters())
        if self.names is None and self._watched is None:
            self._watched = tuple(scale_free(state))
            self._last = {n: _direction(known[n]) for n in self._watched}
            return
        self._count += 1
        for name, before in self._last.items():
            now = _direction(known[name])
            # The chord: the cosine of a small angle keeps half of the digits.
            chord = (now - before).norm().clamp_max(2.0)
            square = (2.0 * torch.asin(chord / 2.0)) ** 2
            self._squares[name] = self._squares.get(name, 0.0) + square
            self._last[name] = now

    def on_epoch_end(self, state: TrainState) -> None:
        """Add a row for each parameter."""
        known, self.warnings = dict(state.model.named_parameters()), []
        groups = {id(p): g for g in state.optimizer.param_groups for p in g["params"]}
        for name, total in self._squares.items():
            group = groups.get(id(known[name]), {})
            expected = equilibrium_angle(
                group.get("lr", 0.0),
                group.get("weight_decay", 0.0),
                group.get("momentum", 0.0),
            )
            angle = math.sqrt(float(total) / self._count)
            # Without decay there is nothing to be in balance with.
            settled = abs(angle - expected) <= 0.1 * expected or expected == 0.0
            norm = float(known[name].detach().norm())
            self.rows.append(Turning(name, state.epoch, angle, expected, norm, settled))
            if not settled:
                self.warnings.append(
                    f"{name} turns by {angle:.2g} a step, not by {expected:.2g}: "
                    "learning rate and decay are not in balance (yet)"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, and which parameters they are of."""
        rows = [tuple(row) for row in self.rows]
        return {"rows": rows, "watched": self._watched}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.rows = [Turning(*row) for row in state["rows"]]
        self._watched = state["watched"]


def equilibrium_angle(lr: float, weight_decay: float, momentum: float = 0.0) -> float:
    """Return the angle of a step in equilibrium, radians."""
    return math.sqrt(2.0 * lr * weight_decay / (1.0 + momentum))


@torch.no_grad()
def scale_free(state: TrainState, *, tol: float = 1e-3) -> list[str]:
    """Return names of weights that can be doubled without changing the outputs.

    Not the loss: an objective may draw numbers, remember trials or need gradients,
    and a run that is watched must be the same as one that is not.
    """
    context: Any = state.context
    devices = [context.batch.device] if context.batch.device.type == "cuda" else []
    features = context.network.features

    def outputs() -> Tensor:
        # The same dropout each time.
        with StatisticsGuard(state.model, "transient"), torch.random.fork_rng(devices):
            reseed(0, context.batch.device)
            leaves = tree_leaves(context.network(context.batch))
            return torch.cat([leaf.double().flatten() for leaf in leaves])

    plain, found = outputs(), []
    for name, p in state.model.named_parameters():
        if p.ndim > 1 and p.requires_grad and not is_manifold_parameter(p):
            kept = p.detach().clone()
            p.mul_(2.0)
            if float((outputs() - plain).norm()) <= tol * float(plain.norm()):
                found.append(name)
            p.copy_(kept)
    context.network.features = features
    return found


def _direction(p: nn.Parameter) -> Tensor:
    flat = p.detach().reshape(-1).double()
    return flat / flat.norm().clamp_min(1e-300)
