"""What an attack climbs: a loss of each trial as a function of its displacement."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.training.perturbations.places import frozen
from eegtensor.training.perturbations.scales import channel_scale

LOSSES = ("cross-entropy", "margin")

# Trials in, logits out, each trial on its own.
Model = Callable[[Tensor], Tensor]


@contextmanager
def still(model: Any) -> Iterator[None]:
    """Inside, a module uses evaluation statistics, no dropout, and moves nothing."""
    if isinstance(model, nn.Module):
        with frozen(model):
            yield
        return
    # A view knows the modules that it calls.
    with model.still() if hasattr(model, "still") else _as_it_is():
        yield


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def margin(logits: Tensor, y: Tensor, targeted: bool = False) -> Tensor:
    """Return by how much another class leads, shape (n_trials,): above 0 is fooled.

    Parameters
    ----------
    logits : Tensor, shape (n_trials, n_classes)
    y : Tensor of int64, shape (n_trials,)
        Classes to leave or, with `targeted`, to reach.
    targeted : bool
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    lead = others - own[:, 0]
    return -lead if targeted else lead


class Goal:
    """A loss to climb, at displacements in standard deviations of the channels.

    Parameters
    ----------
    model : callable
        Trials to logits, each trial on its own, differentiable.
    x : Tensor, shape (n_trials, n_channels, n_times)
    y : Tensor of int64, shape (n_trials,)
        Classes to leave or, with `targeted`, to reach.
    loss : "cross-entropy" | "margin"
    targeted : bool
    scale : Tensor, shape (1, n_channels, 1) | None
        Standard deviations; those of x by default.

    Raises
    ------
    EEGTensorError
        If the loss is not known or labels do not fit.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        loss: str = "cross-entropy",
        targeted: bool = False,
        scale: Tensor | None = None,
    ) -> None:
        self.kind = check_option("loss", loss, LOSSES)
        if y.shape != x.shape[:1]:
            fail(
                f"Labels have shape {tuple(y.shape)} for {len(x)} trials",
                fix="give one class code a trial",
            )
        self.model, self.x, self.y, self.targeted = model, x.detach(), y, targeted
        self.scale = (channel_scale(x) if scale is None else scale).to(x)

    def at(self, rows: Tensor) -> Goal:
        """Return the goal of some of the trials."""
        part = copy.copy(self)
        part.x, part.y = self.x[rows], self.y[rows]
        if hasattr(self.model, "pick"):
            part.model = self.model.pick(rows)
        return part

    def moved(self, d: Tensor) -> Tensor:
        """Return the trials displaced."""
        return self.x + d * self.scale

    def loss(self, logits: Tensor) -> Tensor:
        """Return what is climbed, shape (n_trials,)."""
        logits = logits.double()
        if self.kind == "margin":
            return margin(logits, self.y, self.targeted)
        own = logits.gather(1, self.y[:, None])[:, 0]
        others = logits.scatter(1, self.y[:, None], -torch.inf).logsumexp(1)
        # The cross-entropy, but 1 - p is never formed: of a sure decoder it is 0 in
        # floating point, and half of the gradient with it.
        entropy = nn.functional.softplus(others - own)
        return -entropy if self.targeted else entropy

    def gradient(self, d: Tensor) -> Tensor:
        """Return the gradient of each trial's loss with respect to displacements."""
        d = d.detach().requires_grad_()
        with torch.enable_grad():
            total = self.loss(self.model(self.moved(d))).sum()
        found: Tensor = torch.autograd.grad(total, d)[0]
        return found

    @torch.no_grad()
    def lead(self, d: Tensor) -> Tensor:
        """Return `margin` at displacements."""
        return margin(self.model(self.moved(d)), self.y, self.targeted)
