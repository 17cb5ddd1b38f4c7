"""Means and spreads of channels, and the hook that changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.geometry.spectral import symmetrize
from eegtensor.training.network import inner_module
from eegtensor.training.perturbations.places import place_of

if TYPE_CHECKING:
    from eegtensor.training.perturbations.advstyle import AdvStyle
    from eegtensor.training.protocols import StepContext


class Styled:
    """A hook that changes styles, there until it is reverted."""

    def __init__(self, method: AdvStyle, context: StepContext) -> None:
        self.method = method
        self.generator = context.generator
        if context.generator is not None:
            # Of its own: every pass of the step draws the same numbers.
            self.generator = torch.Generator(context.generator.device)
        seed = 0 if context.generator is None else context.generator.initial_seed()
        self.seed = (seed + 0x9E3779B97F4A7C15 * context.step) % 2**63
        network: Any = inner_module(context.network.model)
        at = method.at
        self.spd = False
        self.before = True
        if at in ("auto", "input", "spd"):
            self.spd = place_of(context.network, at) == "spd"
            self.module = network.tail if self.spd else context.network.model
        else:
            named = dict(network.named_modules())
            self.module = named[check_option("at", at, tuple(named))]
            self.before = False
        self.handle: Any = None

    def apply(self) -> None:
        """Put the hook in place."""

        def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._new(args[0]), *args[1:])

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return self._new(output)

        self.handle = (
            self.module.register_forward_pre_hook(before)
            if self.before
            else self.module.register_forward_hook(after)
        )

    def _new(self, x: Tensor) -> Tensor:
        if self.generator is not None:
            self.generator.manual_seed(self.seed)
        return self.method.restyle(x, self.generator, self.spd)

    def revert(self) -> None:
        """Take the hook away; the pass behind it has left a gradient of strengths."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
        self.method.ascend()


def style_of(x: Tensor, spd: bool, eps: float = 0.0) -> tuple[Tensor, Tensor, Any]:
    """Return mu, s, and the function from other ones to values.

    Parameters
    ----------
    x : Tensor
    spd : bool
    eps : float
        Added to variances over time, in the squared unit of the values.
    """
    if spd:
        log = x.diagonal(dim1=-2, dim2=-1).log()

        def rescaled(mu: Tensor, s: Tensor) -> Tensor:
            gain = ((mu - log) / 2).exp()
            return symmetrize(gain[..., :, None] * x * gain[..., None, :])

        return log, torch.zeros_like(log), rescaled
    if x.ndim < 3:
        fail(
            f"Styles are of channels over time, not of values {tuple(x.shape)}",
            fix="set `at` to where values are (n_trials, n_channels, n_times)",
        )
    axes = tuple(range(2, x.ndim))
    mu = x.mean(axes, keepdim=True)
    s = (
        (x.var(axes, keepdim=True, correction=1) + eps).sqrt()
        if eps
        else x.std(axes, keepdim=True, correction=1)
    )
    unit = (x - mu) / torch.where(s == 0, 1.0, s)
    return mu, s, lambda mu, s: unit * s + mu
