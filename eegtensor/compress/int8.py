"""int8 weights and activations, and products of whole numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_option
from eegtensor.compress._inputs import inputs_of
from eegtensor.compress._layers import (
    Shape,
    bias_of,
    find_layers,
    replace_layers,
    tiny,
)
from eegtensor.compress.compressor import Compressor
from eegtensor.training import Batch

LEVELS = 127
ACTIVATIONS = ("dynamic", "static", "float")


class Int8Layer(nn.Module):
    """A linear layer or convolution with int8 weights, one scale for each output.

    What enters is rounded to int8 as well, unless its scale is to stay "float". On
    the CPU linear layers multiply whole numbers and add them up in int32 (a kernel of
    torch; with AVX-512 VNNI several times faster than float32); convolutions, and all
    on other devices, multiply the same whole numbers as floating point. Nothing of it
    is trained.

    Parameters
    ----------
    shape : Shape
    bias : bool
    activations : "dynamic" | "static" | "float"
        Scale of what enters: of each row (linear) or trial; one number that was
        calibrated; or none, it is not rounded.

    Attributes
    ----------
    codes : Tensor of int8, shape of the weight
    scale : Tensor, shape (n_out,)
    input_scale : Tensor, shape ()
        Of "static".
    """

    codes: Tensor
    scale: Tensor
    input_scale: Tensor
    bias: Tensor | None

    def __init__(
        self, shape: Shape, *, bias: bool, activations: str = "dynamic"
    ) -> None:
        super().__init__()
        self.shape = shape
        self.activations = check_option("activations", activations, ACTIVATIONS)
        self.spec: dict[str, Any] = {
            "shape": list(shape),
            "bias": bias,
            "activations": activations,
        }
        # First what has the type of the network: some look for it there.
        self.register_buffer("scale", torch.ones(shape.size[0]))
        self.register_buffer("codes", torch.zeros(shape.size, dtype=torch.int8))
        static = activations == "static"
        self.register_buffer("input_scale", torch.ones(()) if static else None)
        self.register_buffer("bias", torch.zeros(shape.size[0]) if bias else None)

    @classmethod
    @torch.no_grad()
    def of(
        cls, layer: nn.Module, activations: str = "dynamic", largest: float = 0.0
    ) -> Int8Layer:
        """Return the int8 version of a layer.

        Parameters
        ----------
        layer : Linear | Conv1d | Conv2d
        activations : str
        largest : float
            With "static": the largest absolute value that enters.
        """
        weight, bias = layer.weight, bias_of(layer)
        assert isinstance(weight, Tensor)
        new = cls(Shape.of(layer), bias=bias is not None, activations=activations)
        weight = weight.detach()
        new.scale = weight.flatten(1).abs().amax(dim=1).clamp_min(tiny(weight)) / LEVELS
        codes = weight / new.shape.row(new.scale)
        new.codes = codes.round().clamp(-LEVELS, LEVELS).to(torch.int8)
        new.bias = bias
        if activations == "static":
            new.input_scale = torch.tensor(
                max(largest, tiny(weight)) / LEVELS, dtype=weight.dtype
            ).to(weight.device)
        return new

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for."""
        return self.codes.to(self.scale) * self.shape.row(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of x."""
        if self.activations == "float":
            return self.shape.apply(x, self.weight, self.bias)
        linear = self.shape.kind == "linear"
        rows = x.reshape(-1, x.shape[-1]) if linear else x
        scale = self._scale(rows)
        whole = (rows / scale).round_().clamp_(-LEVELS, LEVELS)
        if linear and x.device.type == "cpu" and len(rows):
            sums = torch._int_mm(whole.to(torch.int8), self.codes.mT).to(rows.dtype)
            y = sums.mul_(scale).mul_(self.scale)
        else:
            y = self.shape.apply(whole, self.codes.to(whole.dtype), None)
            lined = self.scale if linear else self.scale.view(-1, *[1] * (y.ndim - 2))
            y = y * scale * lined
        if self.bias is not None:
            bias = self.bias
            y += bias if linear else bias.view(-1, *[1] * (y.ndim - 2))
        return y.view(*x.shape[:-1], y.shape[-1]) if linear else y

    def _scale(self, rows: Tensor) -> Tensor:
        if self.activations == "static":
            return self.input_scale
        axes = tuple(range(1, rows.ndim))
        largest = rows.abs().amax(dim=axes, keepdim=True)
        return largest.clamp_min_(tiny(rows)).div_(LEVELS)

    def extra_repr(self) -> str:
        """Return the activations and the size, for printing."""
        return f"activations={self.activations!r}, size={self.shape.size}"


class Int8(Compressor):
    """int8 weights, one scale for each output, after training; no fine-tuning.

    A scale s is the largest absolute value of what it is for divided by 127, the code
    of w the whole number nearest to w / s. Factorised layers and weights on manifolds
    stay: rounded, a frame would not be one.

    Parameters
    ----------
    activations : "dynamic" | "static" | "float"
        See `Int8Layer`. "static" needs trials; layers that are not used when the
        network reads them are dynamic.
    skip : tuple of str
    min_size : int
        Fewest numbers of a weight.
    n_trials : int
        For calibration.

    References
    ----------
    B. Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018, eq. 1.
    """

    tunes = False

    def __init__(
        self,
        activations: str = "dynamic",
        skip: tuple[str, ...] = (),
        min_size: int = 256,
        n_trials: int = 256,
    ) -> None:
        self.activations = check_option("activations", activations, ACTIVATIONS)
        self.skip, self.min_size = skip, min_size
        self.n_trials = check_count("n_trials", n_trials)
        self.needs_data = activations == "static"

    def prepare(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the copy with int8 layers."""
        made = super().prepare(model, data)
        layers = find_layers(made, skip=self.skip, min_size=self.min_size)
        inputs: dict[str, Tensor] = {}
        if self.activations == "static":
            inputs = inputs_of(made, layers, self.trials(data), n_trials=self.n_trials)
        new: dict[str, nn.Module] = {}
        for name, layer in layers.items():
            how = self.activations
            how = "dynamic" if how == "static" and name not in inputs else how
            largest = float(inputs[name].abs().max()) if name in inputs else 0.0
            new[name] = Int8Layer.of(layer, how, largest)
        return replace_layers(made, new)
