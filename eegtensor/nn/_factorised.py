"""State that all factorised layers share: cores, bias, and the weight they mean."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.nn._cores import decompose, draw, rebuild
from eegtensor.nn._initial import fill_uniform
from eegtensor.nn._layout import Layout

# Plans under torch.compile and torch.export are made for a batch of this size.
NOMINAL = 64


class _Kept(NamedTuple):
    """The weight that cores meant, once they were seen twice."""

    cores: list[Tensor]
    weight: Tensor | None


class FactorizedLayer(nn.Module):
    """A layer whose weight is a tensor network.

    Where nothing is learned (`torch.no_grad`, on the CPU) and a dense product is
    faster than the network, the rebuilt weight is kept from the second call on, and
    used while the cores hold the same numbers. ``train()`` drops it.

    Attributes
    ----------
    layout : Layout
        The network: kind, modes, ranks.
    cores : nn.ParameterList
    bias : nn.Parameter, shape (n_out,) | None
    error : float
        Of the decomposition it was made by, relative; 0 where it was drawn.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        layout: Layout,
        n_out: int,
        fans: tuple[int, int],
        *,
        bias: bool,
        generator: torch.Generator | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self._fans = fans
        self._kept: _Kept | None = None
        dtype = dtype or torch.get_default_dtype()
        self.cores = nn.ParameterList(
            nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            for shape in layout.shapes
        )
        if bias:
            self.bias = nn.Parameter(torch.empty(n_out, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters(generator)

    @property
    def kind(self) -> str:
        """Kind of network: "tt", "tr", "tucker", "cp", "stt", "str", "sttu"."""
        return self.layout.kind

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new cores; the weight they mean has Glorot's variance.

        References
        ----------
        X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
        feedforward neural networks", AISTATS, 2010: 2 / (fan_in + fan_out).
        """
        with torch.no_grad():
            drawn = draw(self.layout, 2.0 / sum(self._fans), generator)
            for core, value in zip(self.cores, drawn, strict=True):
                core.copy_(value)
        self.error = 0.0
        fill_uniform(self.bias, fan_in=self._fans[0], generator=generator)

    def extra_repr(self) -> str:
        """Return kind, modes and ranks, for printing."""
        n, dense = self.layout.n_parameters, math.prod(self.layout.modes)
        return (
            f"kind={self.kind!r}, modes={self.layout.modes}, "
            f"ranks={self.layout.ranks}, t={self.layout.t}, numbers={n} of {dense}"
        )

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as of any module."""
        self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: not the kept weight."""
        return {**self.__dict__, "_kept": None}

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        raise NotImplementedError

    def _kept_weight(self, x: Tensor) -> Tensor | None:
        """Return the dense weight if it is known without work, else None."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or x.is_cuda:
            return None
        cores = list(self.cores)
        # Other types are those of torch.func and of autocast: not numbers to keep.
        plain = all(type(core) is nn.Parameter and not core.is_cuda for core in cores)
        if not plain or torch.is_autocast_enabled(x.device.type):
            return None
        kept = self._kept
        # Compared as numbers: a version counter misses what is written to `.data`.
        same = kept is not None and all(
            a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip(kept.cores, cores, strict=True)
        )
        if kept is None or not same:
            self._kept = _Kept([core.detach().clone() for core in cores], None)
            return None
        if kept.weight is None:
            kept = kept._replace(weight=self.weight.contiguous())
            self._kept = kept
        return kept.weight

    def _modes_tensor(self) -> Tensor:
        return rebuild(self.layout, list(self.cores))

    def _decompose(self, tensor: Tensor) -> float:
        """Replace the cores by a decomposition; return its relative error."""
        if not bool(tensor.isfinite().all()):
            fail(
                "The weight holds NaN or infinity",
                why="It has no decomposition",
                fix="look for the step of training that diverged",
            )
        with torch.no_grad():
            cores = decompose(self.layout, tensor)
            for core, value in zip(self.cores, cores, strict=True):
                core.copy_(value)
            exact = tensor.detach().double()
            lost = float((self._modes_tensor().double() - exact).norm())
            norm = float(exact.norm())
            self.error = lost / norm if norm > 0.0 else lost
            return self.error


def nominal(n: int) -> int:
    """Return the number of inputs that a plan is made for: a power of two."""
    if torch.compiler.is_compiling():
        return NOMINAL
    return 1 << min(max(int(n) - 1, 0).bit_length(), 20)
