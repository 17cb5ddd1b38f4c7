"""The first layer of a network: where a pass is cut, and the way up to there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import fail, listing
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network, inner_module
from eegtensor.training.statistics import StatisticsGuard


@dataclass
class Cut:
    """What passes of a network left at the cut.

    Attributes
    ----------
    outputs : list of Tensor
        Of the first layer, with the graph of trials and of its own weights.
    leaves : list of Tensor
        The same numbers, of which the rest of the network was given.
    """

    outputs: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    @property
    def costates(self) -> list[Tensor] | None:
        """The gradients that have come back to the cut, None before any has."""
        found = [leaf.grad for leaf in self.leaves if leaf.grad is not None]
        return found if found and len(found) == len(self.leaves) else None


class FirstLayer:
    """A network's first layer f0, and its passes cut behind it.

    Parameters
    ----------
    network : Network
    at : str
        Name of a module, behind whose output the cut is; "auto": before the `tail` of
        networks on SPD matrices, so that f0 is all that leads to these, else behind the
        first module with weights.
    batch : Batch
        Trials to find that module with.

    Raises
    ------
    EEGTensorError
        If there is no such module.
    """

    def __init__(self, network: Network, at: str, batch: Batch) -> None:
        self.network = network
        inner: Any = inner_module(network.model)
        tail: Any = getattr(inner, "tail", None)
        self.before = at == "auto" and isinstance(tail, nn.Module)
        self.module: nn.Module
        if self.before:
            self.module = tail
        elif at == "auto":
            self.module = _first_with_weights(network, batch)
        else:
            named = dict(inner.named_modules())
            if at not in named or not at:
                fail(
                    f"at={at!r} is no module of {type(inner).__name__}",
                    fix=f"choose among {listing(name for name in named if name)}",
                )
            self.module = named[at]

    @contextmanager
    def cut(self, n_trials: int) -> Iterator[Cut]:
        """Cut the passes of a batch inside: the rest of the network gets leaves.

        Raises
        ------
        EEGTensorError
            If more trials than the batch has come past: someone makes other passes.
        """
        found, seen = Cut(), 0

        def split(out: Tensor) -> Tensor:
            nonlocal seen
            seen += len(out)
            if seen > n_trials:
                # No gradients can be taken from here any more.
                found.leaves.clear()
                fail(
                    "YOPO met a second pass of the same step",
                    why="It takes its gradients from one pass, cut behind the first "
                    "layer",
                    fix="leave out perturbations of weights, and objectives with "
                    "passes of their own",
                )
            found.outputs.append(out)
            found.leaves.append(out.detach().requires_grad_())
            return found.leaves[-1]

        with self._hooked(split):
            yield found

    def __call__(self, batch: Batch) -> Tensor:
        """Return the first layer's output alone; the rest is not run."""
        caught: list[Tensor] = []

        def stop(out: Tensor) -> Tensor:
            caught.append(out)
            raise _Stop

        with self._hooked(stop), StatisticsGuard(self.network.model, "transient"):
            try:
                self.network(batch)
            except _Stop:
                return caught[0]
        fail("The first layer of a network was not called", fix="name another by at=")

    @contextmanager
    def _hooked(self, change: Any) -> Iterator[None]:
        if self.before:
            handle = self.module.register_forward_pre_hook(
                lambda module, args: (change(args[0]), *args[1:])
            )
        else:
            handle = self.module.register_forward_hook(
                lambda module, args, out: change(out)
            )
        try:
            yield
        finally:
            handle.remove()


class _Stop(Exception):
    """A pass has gone as far as it should."""


def _first_with_weights(network: Network, batch: Batch) -> nn.Module:
    """Return the module with weights of its own that a pass comes to first."""
    found: list[nn.Module] = []

    def note(module: nn.Module, args: Any) -> None:
        found.append(module)
        raise _Stop

    handles = [
        module.register_forward_pre_hook(note)
        for module in network.model.modules()
        if next(module.parameters(recurse=False), None) is not None
        and not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad(), StatisticsGuard(network.model, "transient"):
            network(batch)
    except _Stop:
        return found[0]
    finally:
        for handle in handles:
            handle.remove()
    fail(
        f"{type(network.model).__name__} has no module with weights",
        fix="name the module that ends the first layer by at=",
    )
