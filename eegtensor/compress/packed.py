"""Layers whose weights are codes of a few bits."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from eegtensor._check import check_option
from eegtensor.compress._layers import Shape, tiny
from eegtensor.compress._packing import pack_bits, unpack_bits

KINDS = ("integer", "binary", "codebook")
INPUTS = ("real", "sign", "scaled", "integer")


class PackedLayer(nn.Module):
    """A linear layer or convolution that is kept as codes of 1 to 8 bits.

    Weights are rebuilt when they are first used, and kept until the module is moved,
    copied or loaded; products are those of torch in full precision, so that it takes
    little room on the disk and its usual time. Nothing of it is trained.

    Parameters
    ----------
    shape : Shape
    kind : "integer" | "binary" | "codebook"
        w = scale (code - 2^(bits - 1)) + offset; w = scale (2 code - 1); or
        w = table[group, code], each row of the weight being of one group.
    bits : int
    bias : bool
    n_groups : int
        Tables of a codebook.
    per_row : bool
        Whether each output has its own scale and offset.
    offset : bool
    inputs : "real" | "sign" | "scaled" | "integer"
        What is made of inputs: nothing; their signs (of zero: 1); signs times the
        mean absolute value of the row; or whole numbers of `input_bits`, with a scale
        and an offset.
    input_bits : int
    input_positive : bool
        Whether whole numbers begin at 0.
    shift : int
        Channels from which a number each is subtracted before signs are taken, or 0.

    Attributes
    ----------
    codes : Tensor of uint8
        Side by side, see `pack_bits`.
    scale, offset : Tensor, shape (n_out,) or (1,)
    table : Tensor, shape (n_groups, 2^bits)
    group : Tensor of uint8, shape (n_out,)
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor
    table: Tensor
    group: Tensor
    input_scale: Tensor
    shift: Tensor | None

    def __init__(
        self,
        shape: Shape,
        kind: str,
        bits: int,
        *,
        bias: bool,
        n_groups: int = 0,
        per_row: bool = True,
        offset: bool = False,
        inputs: str = "real",
        input_bits: int = 0,
        input_positive: bool = False,
        shift: int = 0,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.kind = check_option("kind", kind, KINDS)
        self.inputs = check_option("inputs", inputs, INPUTS)
        self.bits, self.input_bits = bits, input_bits
        self.input_positive = input_positive
        self.spec: dict[str, Any] = {
            "shape": list(shape),
            "kind": kind,
            "bits": bits,
            "bias": bias,
            "n_groups": n_groups,
            "per_row": per_row,
            "offset": offset,
            "inputs": inputs,
            "input_bits": input_bits,
            "input_positive": input_positive,
            "shift": shift,
        }
        n_out, n = shape.size[0], math.prod(shape.size)
        rows = n_out if per_row else 1
        # First what has the type of the network: some look for it there.
        if kind == "codebook":
            self.register_buffer("table", torch.zeros(n_groups, 2**bits))
            self.register_buffer("group", torch.zeros(n_out, dtype=torch.uint8))
        else:
            self.register_buffer("scale", torch.ones(rows))
        self.register_buffer("codes", torch.zeros(-(-n * bits // 8), dtype=torch.uint8))
        self.register_buffer("offset", torch.zeros(rows) if offset else None)
        # Scale and offset.
        integer = inputs == "integer"
        self.register_buffer("input_scale", torch.ones(2) if integer else None)
        self.register_buffer("shift", torch.zeros(shift) if shift else None)
        self.register_buffer("bias", torch.zeros(n_out) if bias else None)
        self._weight: Tensor | None = None

    @torch.no_grad()
    def fill(self, codes: Tensor, bias: Tensor | None, **numbers: Tensor) -> Self:
        """Take over codes, of the weight's shape, and named numbers; return itself."""
        self.codes = pack_bits(codes, self.bits)
        if bias is not None:
            self.bias = bias.detach().clone()
        for name, value in numbers.items():
            setattr(self, name, value.detach().clone())
        return self

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for."""
        if self._weight is None:
            self._weight = self._rebuilt()
        return self._weight

    @torch.no_grad()
    def _rebuilt(self) -> Tensor:
        size = self.shape.size
        codes = unpack_bits(self.codes, self.bits, math.prod(size)).view(size)
        if self.kind == "codebook":
            rows = codes.flatten(1) + self.group.long()[:, None] * 2**self.bits
            return self.table.flatten()[rows].view(size)
        row = self.shape.row
        if self.kind == "binary":
            return (2 * codes - 1).to(self.scale) * row(self.scale)
        w = (codes - 2 ** (self.bits - 1)).to(self.scale) * row(self.scale)
        return w if self.offset is None else w + row(self.offset)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of x."""
        return self.shape.apply(self._entered(x), self.weight, self.bias)

    def _entered(self, x: Tensor) -> Tensor:
        if self.inputs == "real":
            return x
        if self.inputs == "integer":
            low, high = code_range(self.input_bits, self.input_positive)
            scale, offset = self.input_scale.unbind()
            codes = ((x - offset) / scale).clamp(low, high).round()
            return codes * scale + offset
        x = shifted(x, self.shift, linear=self._linear)
        return signed(x, scaled=self.inputs == "scaled", linear=self._linear)

    @property
    def _linear(self) -> bool:
        return self.shape.kind == "linear"

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._weight = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._weight = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: not the rebuilt weight."""
        return {**self.__dict__, "_weight": None}

    def extra_repr(self) -> str:
        """Return kind, bits and size, for printing."""
        return f"{self.kind}, bits={self.bits}, size={self.shape.size}"


def code_range(bits: int, positive: bool = False) -> tuple[float, float]:
    """Return the least and the largest whole number of so many bits."""
    if positive:
        return 0.0, 2.0**bits - 1
    return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1


def input_size(x: Tensor, *, linear: bool) -> Tensor:
    """Return the mean absolute value of each row (linear) or trial."""
    axes = (-1,) if linear else tuple(range(1, x.ndim))
    return x.detach().abs().mean(dim=axes, keepdim=True).clamp_min(tiny(x))


def shifted(x: Tensor, shift: Tensor | None, *, linear: bool) -> Tensor:
    """Return inputs less a number for each channel."""
    if shift is None:
        return x
    return x - (shift if linear else shift.view(-1, *[1] * (x.ndim - 2)))


def signed(x: Tensor, *, scaled: bool, linear: bool) -> Tensor:
    """Return signs of inputs, 1 for zero, times their mean size where asked for."""
    signs = torch.where(x >= 0, 1.0, -1.0).to(x)
    return signs * input_size(x, linear=linear) if scaled else signs
