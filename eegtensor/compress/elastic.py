"""EQ-Net: one network for many numbers of bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.compress._layers import Shape, bias_of, layers_of, tiny
from eegtensor.compress.packed import PackedLayer, code_range

# Of the 80 ends that are tried, 1 to 0.21 of the largest value.
_TRIED = 80


class Form(NamedTuple):
    """How a layer is quantised.

    Attributes
    ----------
    weight_bits, input_bits : int
        32 for not at all.
    per_channel : bool
        Whether each output has its own scale.
    symmetric : bool
        Without an offset.
    """

    weight_bits: int = 8
    input_bits: int = 8
    per_channel: bool = True
    symmetric: bool = True


def fake_quantise(
    x: Tensor,
    scale: Tensor,
    offset: Tensor | float = 0.0,
    *,
    bits: int = 8,
    positive: bool = False,
    gradient_scale: float = 1.0,
) -> Tensor:
    """Return x rounded to the numbers that so many bits can tell.

    ``round(clip((x - offset) / scale)) scale + offset``; rounding has the gradient of
    the identity, which for the scale is that of LSQ, times `gradient_scale`.

    Parameters
    ----------
    x : Tensor
    scale, offset : Tensor
        As many as x, or to be stretched to it.
    bits : int
    positive : bool
        Codes from 0 up.
    gradient_scale : float
        Published: ``1 / sqrt(n_numbers largest_code)``.

    References
    ----------
    S. Esser et al., "Learned step size quantization", ICLR 2020, eq. 1 to 3;
    Y. Bhalgat et al., "LSQ+", CVPR Workshops 2020 (offset).
    """
    low, high = code_range(bits, positive)
    scale = _slowed(scale.abs().clamp_min(tiny(scale)), gradient_scale)
    if isinstance(offset, Tensor):
        offset = _slowed(offset, gradient_scale)
    code = ((x - offset) / scale).clamp(low, high)
    return (code + (code.round() - code).detach()) * scale + offset


def _slowed(x: Tensor, factor: float) -> Tensor:
    """Return x with its gradient times a factor."""
    return x if factor == 1.0 else (x - x * factor).detach() + x * factor


@torch.no_grad()
def best_scale(
    rows: Tensor, bits: int, *, symmetric: bool = True, positive: bool = False
) -> tuple[Tensor, Tensor]:
    """Return each row's scale and offset with the least error in L2.4, of 80 tried.

    Parameters
    ----------
    rows : Tensor, shape (n_rows, n)
    bits : int
    symmetric : bool
        Offset 0.
    positive : bool

    Returns
    -------
    scale, offset : Tensor, shape (n_rows,)
    """
    low, high = code_range(bits, positive)
    # The power of small numbers would vanish: volts are small.
    unit = rows.abs().amax().clamp_min(tiny(rows))
    rows = rows / unit
    if symmetric:
        top = rows.abs().amax(dim=1)
        bottom = torch.zeros_like(top) if positive else -top
    else:
        top, bottom = rows.amax(dim=1), rows.amin(dim=1)
    best = torch.full_like(top, torch.inf)
    scale, offset = torch.ones_like(top), torch.zeros_like(top)
    for k in range(_TRIED):
        ends = 1.0 - 0.01 * k
        step = ((top - bottom) * ends / (high - low)).clamp_min(tiny(rows))
        zero = torch.zeros_like(step) if symmetric else bottom * ends - step * low
        told = fake_quantise(
            rows, step[:, None], zero[:, None], bits=bits, positive=positive
        )
        error = (told - rows).abs().pow(2.4).mean(dim=1)
        better = error < best
        best = torch.where(better, error, best)
        scale = torch.where(better, step, scale)
        offset = torch.where(better, zero, offset)
    return scale * unit, offset * unit


class ElasticLayer(nn.Module):
    """A layer with learned scales for every number of bits; see `Elastic`.

    Attributes
    ----------
    weight : Parameter
    form : Form
        In which it computes.
    channel_scale, channel_offset : Parameter, shape (n_bits, 2, n_out)
        Row 0 symmetric, row 1 not.
    layer_scale, layer_offset, input_scale, input_offset : Parameter, (n_bits, 2)
    """

    def __init__(
        self, layer: nn.Module, bits: Sequence[int], inputs: Tensor | None
    ) -> None:
        super().__init__()
        self.shape = Shape.of(layer)
        self.bits = tuple(bits)
        weight, bias = layer.weight, bias_of(layer)
        assert isinstance(weight, Tensor)
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias)
        self.reads = inputs is not None
        x = weight.new_zeros(1, 1) if inputs is None else inputs.reshape(1, -1)
        self.positive = bool((x >= 0).all())
        self.form = Form(max(bits), max(bits))
        rows = self.weight.detach().flatten(1)
        both = (True, False)
        parts = {"channel": rows, "layer": rows.reshape(1, -1), "input": x}
        starts = {
            name: [
                [
                    best_scale(
                        part,
                        b,
                        symmetric=s,
                        positive=self.positive and name == "input",
                    )
                    for s in both
                ]
                for b in bits
            ]
            for name, part in parts.items()
        }
        for name, found in starts.items():
            for place, part in enumerate(("scale", "offset")):
                stack = torch.stack(
                    [torch.stack([pair[place] for pair in row]) for row in found]
                )
                stack = stack if name == "channel" else stack[..., 0]
                self.register_parameter(f"{name}_{part}", nn.Parameter(stack))

    def scales(self, name: str, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
        """Return scale and offset for a number of bits."""
        k = self.bits.index(bits)
        scale = getattr(self, f"{name}_scale")[k, 1 - symmetric]
        offset = getattr(self, f"{name}_offset")[k, 1 - symmetric]
        return scale, offset * 0.0 if symmetric else offset

    def quantised_weight(self) -> Tensor:
        """Return the weight in the layer's form, with gradients."""
        bits = self.form.weight_bits
        if bits >= 32:
            return self.weight
        per = self.form.per_channel
        scale, offset = self.scales(
            "channel" if per else "layer", bits, self.form.symmetric
        )
        if per:
            scale, offset = self.shape.row(scale), self.shape.row(offset)
        n = self.weight.numel() / (len(self.weight) if per else 1)
        factor = (n * code_range(bits)[1]) ** -0.5
        return fake_quantise(
            self.weight, scale, offset, bits=bits, gradient_scale=factor
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of x in its form."""
        bits = self.form.input_bits
        if bits < 32 and self.reads:
            scale, offset = self.scales("input", bits, self.form.symmetric)
            high = code_range(bits, self.positive)[1]
            x = fake_quantise(
                x,
                scale,
                offset,
                bits=bits,
                positive=self.positive,
                gradient_scale=(x.numel() * high) ** -0.5,
            )
        return self.shape.apply(x, self.quantised_weight(), self.bias)

    @torch.no_grad()
    def packed(self) -> PackedLayer:
        """Return the layer in its form, with so many bits a weight."""
        form = self.form
        if form.weight_bits > 8:
            fail(f"{form}", fix="give a form of at most 8 bits")
        reads = self.reads and form.input_bits < 32
        scale, offset = self.scales(
            "channel" if form.per_channel else "layer", form.weight_bits, form.symmetric
        )
        scale = scale.abs().clamp_min(tiny(scale)).reshape(-1)
        offset = offset.reshape(-1)
        new = PackedLayer(
            self.shape,
            "integer",
            form.weight_bits,
            bias=self.bias is not None,
            per_row=form.per_channel,
            offset=not form.symmetric,
            inputs="integer" if reads else "real",
            input_bits=form.input_bits if reads else 0,
            input_positive=self.positive,
        )
        row = self.shape.row
        low, high = code_range(form.weight_bits)
        codes = ((self.weight - row(offset)) / row(scale)).clamp(low, high).round()
        numbers = {"scale": scale} | ({} if form.symmetric else {"offset": offset})
        if reads:
            step, zero = self.scales("input", form.input_bits, form.symmetric)
            numbers["input_scale"] = torch.stack([step.abs(), zero])
        return new.fill((codes - low).long(), self.bias, **numbers)


def set_form(model: nn.Module, form: Form | dict[str, Form]) -> None:
    """Make a network's elastic layers compute in a form, or each in its own."""
    for name, layer in layers_of(model, ElasticLayer).items():
        layer.form = form[name] if isinstance(form, dict) else form
