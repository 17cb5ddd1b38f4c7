"""State that all factorised layers share: cores, bias, and the weight they mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.nn._cores import decompose, draw, rebuild
from eegtensor.nn._initial import fill_uniform
from eegtensor.nn._layout import Layout

# Plans under torch.compile and torch.export are made for a batch of this size.
NOMINAL = 64


class FactorizedLayer(nn.Module):
    """A layer whose weight is a tensor network.

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
