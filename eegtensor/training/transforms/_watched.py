"""What entered maps of trials during a step, and the gradient of what left them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eegtensor.training.adapters import adapter_of

# Linear in their weights: the gradient of a trial does not depend on these.
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Pass(NamedTuple):
    """One call of a module.

    Attributes
    ----------
    x, d : Tensor, shape (n_trials, ...)
        What entered, and the gradient of what left, with all that later layers
        make of it: norms over the batch put every trial's output into the losses
        of the others, and these terms are in d.
    weights : dict
        By full name, the keyword under which the module has each weight.
    values : dict
        By keyword, the weights at the time of the call.
    options : dict
        Other keyword arguments.
    """

    x: Tensor
    d: Tensor
    weights: dict[str, str]
    values: dict[str, Tensor]
    options: dict[str, Any]


class Watcher:
    """Records the passes of all maps of trials in a network.

    Parameters
    ----------
    model : torch.nn.Module

    Attributes
    ----------
    modules : list of torch.nn.Module
    """

    def __init__(self, model: nn.Module) -> None:
        names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
        self._names = names
        self._passes: list[list[Pass]] = []
        self._handles: list[Any] = []
        self.modules: list[nn.Module] = []
        inside: tuple[str, ...] = ()
        for prefix, module in model.named_modules():
            weights = weights_of(module)
            if not weights or prefix.startswith(inside):
                continue
            if getattr(module, "trialwise", False):
                inside += (f"{prefix}." if prefix else "",)
            self.modules.append(module)
            self._passes.append([])
            hook = self._hook(module, weights, self._passes[-1])
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def release(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()

    def forget(self) -> None:
        """Drop what was recorded."""
        for passes in self._passes:
            passes.clear()

    def of(self, n: int) -> Iterator[tuple[nn.Module, Pass]]:
        """Yield modules with the passes last seen that make up n trials, as one."""
        for module, passes in zip(self.modules, self._passes, strict=True):
            found = _last(passes, n)
            if found is not None:
                yield module, found

    def _hook(
        self,
        watched: nn.Module,
        weights: Mapping[str, nn.Parameter],
        passes: list[Pass],
    ) -> Any:
        def see(
            module: nn.Module,
            args: tuple[Any, ...],
            keywords: dict[str, Any],
            output: Any,
        ) -> None:
            x = args[0] if len(args) == 1 else None
            # Copies of a network have its hooks, too.
            if module is not watched:
                return
            if not isinstance(output, Tensor) or not isinstance(x, Tensor):
                return
            if not output.requires_grad or len(x) != len(output):
                return
            # A weight that another module has may come as an argument.
            lent = {k: v for k, v in keywords.items() if isinstance(v, Tensor)}
            if any(id(v) not in self._names for v in lent.values()):
                return
            all_weights: dict[str, Tensor] = {**weights, **lent}
            options = {k: v for k, v in keywords.items() if k not in lent}
            values = {k: plain(p) for k, p in all_weights.items()}
            if not isinstance(module, LINEAR):
                # A perturbation may be taken back before the gradients are used.
                values = {k: v.clone() for k, v in values.items()}
            names = {self._names[id(p)]: k for k, p in all_weights.items()}
            kept = widened(x.detach())

            def keep(gradient: Tensor) -> None:
                d = widened(gradient.detach())
                passes.append(Pass(kept, d, names, values, options))

            output.register_hook(keep)

        return see


@contextmanager
def unwatched(module: nn.Module) -> Iterator[None]:
    """Let a module run without its hooks inside."""
    hooks = module._forward_hooks.copy()
    module._forward_hooks.clear()
    try:
        yield
    finally:
        module._forward_hooks.update(hooks)


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of a map of trials by name, none where it is no such map."""
    every = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if getattr(module, "trialwise", False):
        return every
    own = {n: p for n, p in every.items() if "." not in n}
    if isinstance(module, LINEAR):
        return {n: p for n, p in own.items() if n == "weight"}
    if any(True for _ in module.buffers()) or any(True for _ in module.children()):
        return {}
    curved = {n: p for n, p in own.items() if adapter_of(p).name != "euclidean"}
    return curved if len(curved) == 1 else {}


def plain(p: Tensor) -> Tensor:
    """Return a parameter's values, no longer of the class of manifold parameters."""
    return p.detach().as_subclass(Tensor)


def widened(x: Tensor) -> Tensor:
    """Return what autocast left in 16 bits in float32, all else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _last(passes: Sequence[Pass], n: int) -> Pass | None:
    """Return the passes last seen that make up n trials."""
    taken: list[Pass] = []
    count = 0
    for found in reversed(passes):
        taken.insert(0, found)
        count += len(found.x)
        if count >= n:
            break
    if count != n:
        return None
    x, d = (torch.cat([getattr(f, part) for f in taken]) for part in ("x", "d"))
    return taken[-1]._replace(x=x, d=d)
