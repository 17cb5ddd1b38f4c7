"""What convolutions with a factorised kernel share over any number of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, fail
from eegtensor.nn._contract import contract
from eegtensor.nn._factorised import NOMINAL, FactorizedLayer, nominal
from eegtensor.nn._layout import choose_layout
from eegtensor.nn._mode_shapes import check_shape
from eegtensor.nn._stages import Stages, choose_stages, mix

# Positions for which a convolution is planned under torch.compile and export.
PLACES = 256


class FactorizedConv(FactorizedLayer):
    """A convolution over `n_dims` axes; see `FactorizedConv1d`."""

    n_dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        kind: str = "tt",
        rank: int | float | Sequence[int] = 0.1,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        t: int = 2,
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if groups != 1:
            fail(
                f"groups={groups}",
                why="A grouped convolution is small already",
                fix="use torch.nn's layer, or groups=1",
            )
        check_count("in_channels", in_channels)
        check_count("out_channels", out_channels)
        modes_in = check_shape("in_shape", in_shape, in_channels)
        modes_out = check_shape("out_shape", out_shape, out_channels)
        size = self._numbers("kernel_size", kernel_size)
        taps = math.prod(size)
        modes = (*modes_in, taps, *modes_out)
        super().__init__(
            choose_layout(kind, modes, rank, t, whole=(len(modes_in),)),
            out_channels,
            (in_channels * taps, out_channels * taps),
            bias=bias,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = size
        self.stride = self._numbers("stride", stride)
        self.dilation = self._numbers("dilation", dilation)
        self.padding: str | tuple[int, ...]
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                fail(f"padding={padding!r}", fix='give numbers, "same" or "valid"')
            if padding == "same" and max(self.stride) > 1:
                fail(
                    f'padding="same" with stride={self.stride}',
                    fix="give the padding as numbers",
                )
            self.padding = padding
        else:
            self.padding = self._numbers("padding", padding, least=0)
        self.groups, self.padding_mode = 1, "zeros"
        self._n_in = len(modes_in)
        self._stages: dict[tuple[int, int], Stages] = {}
        self._planned((NOMINAL, PLACES), [PLACES] + [1] * (self.n_dims - 1))

    @classmethod
    def from_conv(
        cls,
        layer: nn.Conv1d | nn.Conv2d,
        kind: str = "tt",
        rank: int | float | Sequence[int] = 0.1,
        *,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        t: int = 2,
    ) -> Self:
        """Return a layer whose cores decompose the kernel of a trained one.

        Parameters
        ----------
        layer : torch.nn.Conv1d | torch.nn.Conv2d
            With one group, and zeros as padding. It is left as it is.
        kind, rank, in_shape, out_shape, t
            As of the class.
        """
        if layer.padding_mode != "zeros":
            fail(
                f"padding_mode={layer.padding_mode!r}",
                fix='pad before the layer, or use padding_mode="zeros"',
            )
        new = cls(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            kind,
            rank,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            in_shape=in_shape,
            out_shape=out_shape,
            t=t,
            bias=layer.bias is not None,
            # Its numbers are replaced: the global generator is left alone.
            generator=torch.Generator().manual_seed(0),
            device=layer.weight.device,
            dtype=layer.weight.dtype,
        )
        new.set_weight(layer.weight)
        if new.bias is not None and layer.bias is not None:
            with torch.no_grad():
                new.bias.copy_(layer.bias)
        return new.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """The dense kernel, shape (out_channels, in_channels, *kernel_size)."""
        W = self._modes_tensor().reshape(self.in_channels, -1, self.out_channels)
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        return W.permute(2, 0, 1).reshape(shape)

    def set_weight(self, weight: Tensor) -> float:
        """Replace the cores by a decomposition of a dense kernel.

        Parameters
        ----------
        weight : Tensor, shape (out_channels, in_channels, *kernel_size)

        Returns
        -------
        error : float
            ||W - rebuilt W|| / ||W||.
        """
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        if tuple(weight.shape) != shape:
            fail(f"weight has shape {tuple(weight.shape)}", fix=f"give one of {shape}")
        W = weight.reshape(self.out_channels, self.in_channels, -1).permute(1, 2, 0)
        return self._decompose(W.reshape(self.layout.modes))

    def plan(self, shape: Sequence[int]) -> Stages:
        """Return the order of work for inputs of a shape (n, channels, ...)."""
        if torch.compiler.is_compiling():
            return self._stages[NOMINAL, PLACES]
        places = [int(n) for n in shape[2:]]
        return self._planned((nominal(shape[0]), math.prod(places)), places)

    def _planned(self, key: tuple[int, int], places: Sequence[int]) -> Stages:
        if key not in self._stages:
            after = math.prod(max(1, self._length(n, k)) for k, n in enumerate(places))
            self._stages[key] = choose_stages(self.layout, self._n_in, *key, after)
        return self._stages[key]

    def _length(self, n: int, axis: int) -> int:
        if self.padding == "same":
            return n
        pad = 0 if isinstance(self.padding, str) else self.padding[axis]
        span = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        return (n + 2 * pad - span) // self.stride[axis] + 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, shape (n, out_channels, ...).

        Parameters
        ----------
        x : Tensor, shape (n, in_channels, ...) or (in_channels, ...)
        """
        single = x.ndim == self.n_dims + 1
        if single:
            x = x[None]
        if x.ndim != self.n_dims + 2 or x.shape[1] != self.in_channels:
            fail(
                f"x has shape {tuple(x.shape)}",
                fix=f"give inputs of {self.in_channels} channels and {self.n_dims} "
                "further axes",
            )
        n, places = x.shape[0], x.shape[2:]
        how, cores = self.plan(x.shape), list(self.cores)
        if how.cost > how.dense:
            weight = self._kept_weight(x)
            if weight is not None:
                y = self._convolve(x, weight, 1, self.bias)
                return y[0] if single else y
        z = mix(x.reshape(n, self.in_channels, -1), how.before, cores)
        z = z.reshape(n * how.passing, how.groups * how.n_in, *places)
        K = contract(how.kernel, [cores[k] for k in how.kernel_cores])
        K = K.reshape(how.groups * how.n_out, how.n_in, *self.kernel_size)
        z = self._convolve(z, K, how.groups)
        places = z.shape[2:]
        z = mix(
            z.reshape(n, how.passing * how.groups * how.n_out, -1), how.after, cores
        )
        y = z.reshape(n, self.out_channels, *places)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype).view(-1, *[1] * self.n_dims)
        return y[0] if single else y

    def _convolve(
        self, x: Tensor, K: Tensor, groups: int, bias: Tensor | None = None
    ) -> Tensor:
        convolve: Any = (
            nn.functional.conv1d if self.n_dims == 1 else nn.functional.conv2d
        )
        y: Tensor = convolve(
            x, K, bias, self.stride, self.padding, self.dilation, groups
        )
        return y

    def _numbers(self, name: str, value: Any, least: int = 1) -> tuple[int, ...]:
        many = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = tuple(value) if many else (value,) * self.n_dims
        if len(numbers) != self.n_dims:
            fail(
                f"{name}={value!r}",
                fix=f"give a number from {least} up, or {self.n_dims} of them",
            )
        return tuple(check_count(name, n, least=least) for n in numbers)
