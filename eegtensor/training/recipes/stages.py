"""Networks as chains of stages, and chains with one stage replaced."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.seeds import reseed
from eegtensor.training.statistics import StatisticsGuard


class Stages(nn.Module):
    """A chain of modules; those that take a `domain` are given it.

    Parameters
    ----------
    stages : sequence of Module
        The last one returns logits.
    n_frozen : int
        So many first stages stay as they are: no gradient, evaluation mode.
    """

    def __init__(self, stages: Sequence[nn.Module], n_frozen: int = 0) -> None:
        super().__init__()
        if not 0 <= n_frozen < max(len(stages), 1) or not len(stages):
            fail(
                f"{len(stages)} stages, {n_frozen} of them frozen",
                fix="give at least one stage that learns",
            )
        self.stages = nn.ModuleList(stages)
        self.n_frozen = n_frozen
        for stage in self.stages[:n_frozen]:
            stage.requires_grad_(False)
        self.train(self.training)

    def forward(self, x: Any, domain: Tensor | None = None) -> Any:
        """Return what the last stage makes of trials."""
        for stage in self.stages:
            x = _call(stage, x, domain)
        return x

    def train(self, mode: bool = True) -> Stages:
        """Set the mode of the stages that learn."""
        super().train(mode)
        for stage in self.stages[: self.n_frozen]:
            stage.eval()
        return self

    @property
    def head(self) -> nn.Module:
        """The last stage."""
        return self.stages[-1]


def hybrid(meta: Sequence[nn.Module], place: int, module: nn.Module) -> Stages:
    """Return the meta chain with a module in the place of one stage.

    Meta stages before it are frozen; those behind are copies, which may learn.

    Parameters
    ----------
    meta : sequence of Module
        The shallow chain, trained end to end.
    place : int
    module : Module
        Is used itself, not a copy.
    """
    if not 0 <= place < len(meta):
        fail(f"place={place} of {len(meta)} stages", fix="count from 0")
    before = [copy.deepcopy(m) for m in meta[:place]]
    after = [copy.deepcopy(m) for m in meta[place + 1 :]]
    return Stages([*before, module, *after], n_frozen=place)


class Fitted(nn.Module):
    """A module between linear layers that make its widths those of its place.

    Parameters
    ----------
    module : Module
    enter, leave : Module
    """

    def __init__(self, module: nn.Module, enter: nn.Module, leave: nn.Module) -> None:
        super().__init__()
        self.enter, self.module, self.leave = enter, module, leave

    def forward(self, x: Any, domain: Tensor | None = None) -> Any:
        """Return features of the width that the next stage takes."""
        return self.leave(_call(self.module, self.enter(x), domain))


def fitted(
    meta: Sequence[nn.Module],
    place: int,
    module: nn.Module,
    data: Batch,
    *,
    random_state: Sequence[int] = (0,),
) -> nn.Module:
    """Return the module, with linear layers around it where widths ask for them."""
    seed = np.random.SeedSequence(random_state).generate_state(1)
    with torch.random.fork_rng([]):
        reseed(int(seed[0]), torch.device("cpu"))
        return _fitted(meta, place, module, data)


def _fitted(
    meta: Sequence[nn.Module], place: int, module: nn.Module, data: Batch
) -> nn.Module:
    some = torch.arange(min(8, len(data)), device=data.device)
    batch = data.pick(some).to(device_of(meta[0]))
    wanted = Stages([copy.deepcopy(m) for m in meta[: place + 1]])
    with torch.no_grad():
        wanted.train()
        x = batch.x
        for stage in wanted.stages[:place]:
            x = _call(stage, x, batch.domain)
        y = _call(wanted.stages[place], x, batch.domain)
        enter: nn.Module = nn.Identity()
        takes = _width(module)
        if place and takes is not None and takes != x.shape[-1]:
            enter = nn.Linear(x.shape[-1], takes).to(x)
        with StatisticsGuard(module, "transient"):
            out = _call(module, enter(x), batch.domain)
    leave: nn.Module = nn.Identity()
    if place < len(meta) - 1 and out.shape[-1] != y.shape[-1]:
        leave = nn.Linear(out.shape[-1], y.shape[-1]).to(out)
    plain = isinstance(enter, nn.Identity) and isinstance(leave, nn.Identity)
    return module if plain else Fitted(module, enter, leave)


def _width(module: nn.Module) -> int | None:
    """Return how many features the first linear layer of a module takes."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            return m.in_features
    return None


def _call(stage: nn.Module, x: Any, domain: Tensor | None) -> Any:
    takes = "domain" in inspect.signature(stage.forward).parameters
    return stage(x, domain=domain) if takes and domain is not None else stage(x)
